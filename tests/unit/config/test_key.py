from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha256

import pytest

from gateway.config import KeySettings

DIGEST = sha256(b"abcdefgh").hexdigest()


@pytest.mark.parametrize("fields", [{"key": "abcdefgh"}, {"key_sha256": DIGEST.upper()}])
def test_a_key_and_its_hash_are_compared_by_the_same_digest(fields: dict[str, str]) -> None:
    assert KeySettings.model_validate({"name": "team", **fields}).digest == DIGEST


def test_a_key_without_a_secret_has_no_digest() -> None:
    with pytest.raises(ValueError, match="neither key nor key_sha256"):
        _ = KeySettings(name="team").digest


def test_secrets_do_not_show_in_repr() -> None:
    key = KeySettings.model_validate({"name": "team", "key": "abcdefgh", "key_sha256": DIGEST})
    assert "abcdefgh" not in repr(key)
    assert DIGEST not in str(key)


@pytest.mark.parametrize(
    ("expires", "end"),
    [
        pytest.param(None, None, id="never"),
        pytest.param(date(2027, 1, 31), datetime(2027, 2, 1, tzinfo=UTC), id="a-day-counts-to-its-end"),
        pytest.param(
            datetime(2027, 1, 31, 12),  # noqa: DTZ001 - a time without a zone is the case
            datetime(2027, 1, 31, 12, tzinfo=UTC),
            id="without-a-zone-it-is-utc",
        ),
        pytest.param(
            datetime(2027, 1, 31, 12, tzinfo=timezone(timedelta(hours=8))),
            datetime(2027, 1, 31, 4, tzinfo=UTC),
            id="with-a-zone",
        ),
    ],
)
def test_a_key_ends_when_it_says(expires: date | None, end: datetime | None) -> None:
    assert KeySettings(name="team", expires=expires).expires_at == end
