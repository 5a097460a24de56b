"""How a credential is found in a request and mapped to its tenant."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from unittest import mock

import pytest

from gateway.config import KeySettings
from gateway.errors import ModelNotAllowed, Unauthorized
from gateway.tenancy.keys import ANONYMOUS, Keyring, KnownKey, Tenant, credential

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
BEARER = b"Bearer sk-12345678"


def keyring(**fields: Any) -> Keyring:
    return Keyring([KeySettings.model_validate({"name": "team", "key": "sk-12345678", **fields})])


def basic(text: bytes) -> bytes:
    return b"Basic " + b64encode(text)


def found(ring: Keyring, key: bytes = BEARER, now: datetime = NOW) -> Tenant:
    return ring.known([(b"authorization", key)], {b"authorization": key}, now.timestamp).tenant


def refused(ring: Keyring, key: bytes = BEARER, now: datetime = NOW) -> str:
    with pytest.raises(Unauthorized) as caught:
        found(ring, key, now)
    return caught.value.reason


# --- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param([], None, id="none"),
        pytest.param([(b"authorization", b"Bearer k")], b"k", id="bearer"),
        pytest.param([(b"authorization", b"BEARER  k ")], b"k", id="bearer-case-and-blanks"),
        pytest.param([(b"authorization", b"Bearer a b")], b"a b", id="bearer-with-a-blank-inside"),
        pytest.param([(b"authorization", b"Bearer ")], None, id="bearer-empty"),
        pytest.param([(b"authorization", b"Token k")], None, id="other-scheme"),
        pytest.param([(b"x-api-key", b" k ")], b"k", id="x-api-key"),
        pytest.param([(b"x-api-key", b" ")], None, id="x-api-key-blank"),
        pytest.param([(b"authorization", basic(b"user:k"))], b"k", id="basic"),
        pytest.param([(b"authorization", b"basic " + b64encode(b"user:k"))], b"k", id="basic-case"),
        pytest.param([(b"authorization", basic(b"user:a:b"))], b"a:b", id="basic-colon-in-password"),
        pytest.param([(b"authorization", basic(b"k:"))], b"k", id="basic-name-alone"),
        pytest.param([(b"authorization", basic(b"k"))], None, id="basic-without-colon"),
        pytest.param([(b"authorization", basic(b":"))], None, id="basic-empty"),
        pytest.param([(b"authorization", basic("x:clé".encode()))], "clé".encode(), id="basic-non-ascii"),
        pytest.param([(b"authorization", b"Basic ???")], None, id="basic-no-base64"),
        pytest.param([(b"authorization", b"Basic \xff\xfe")], None, id="basic-bytes"),
        pytest.param([(b"authorization", b"Bearer k"), (b"x-api-key", b"j")], b"k", id="bearer-first"),
        pytest.param([(b"authorization", basic(b"x:k")), (b"x-api-key", b"j")], b"j", id="basic-last"),
        pytest.param([(b"authorization", b"Bearer k")] * 2, None, id="two-authorizations"),
        pytest.param(
            [(b"authorization", b"Bearer k"), (b"authorization", basic(b"x:k"))], None, id="two-schemes"
        ),
        pytest.param([(b"x-api-key", b"k"), (b"x-api-key", b"j")], None, id="two-x-api-keys"),
    ],
)
def test_where_a_key_is_looked_for(headers: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert credential(headers, dict(reversed(headers))) == key


# --- keys ------------------------------------------------------------------------------------------


def test_a_known_key_has_its_tenant() -> None:
    assert found(keyring()) == Tenant("team")


def test_a_tenant_has_the_weight_and_priority_of_its_key() -> None:
    assert found(keyring(weight=3, priority=-1)) == Tenant("team", None, 3, -1)


def test_a_key_may_be_configured_as_its_hash() -> None:
    digest = sha256(b"sk-12345678").hexdigest()
    assert found(keyring(key=None, key_sha256=digest.upper())).name == "team"


def test_each_key_has_its_own_tenant() -> None:
    keys = [
        KeySettings.model_validate({"name": f"t{number}", "key": f"sk-number-{number}"})
        for number in range(5)
    ]
    ring = Keyring(keys)
    for number in range(5):
        assert found(ring, f"Bearer sk-number-{number}".encode()).name == f"t{number}"


@pytest.mark.parametrize("key", [b"Bearer sk-1234567", b"Bearer sk-123456789", b"Bearer \xff", b"Bearer x"])
def test_a_wrong_key_is_refused(key: bytes) -> None:
    assert refused(keyring(), key) == "wrong"


def test_no_key_is_refused() -> None:
    with pytest.raises(Unauthorized) as caught:
        keyring().known([], {}, NOW.timestamp)
    assert caught.value.reason == "missing"


def test_where_no_keys_are_configured_none_is_good() -> None:
    assert refused(Keyring([])) == "wrong"


def test_all_refusals_say_the_same() -> None:
    messages = {
        str(caught.value)
        for ring, headers in [
            (keyring(), []),
            (keyring(), [(b"authorization", b"Bearer wrong")]),
            (keyring(expires=date(2020, 1, 1)), [(b"authorization", BEARER)]),
        ]
        for caught in [_caught(ring, headers)]
    }
    assert len(messages) == 1


def _caught(ring: Keyring, headers: list[tuple[bytes, bytes]]) -> pytest.ExceptionInfo[Unauthorized]:
    with pytest.raises(Unauthorized) as caught:
        ring.known(headers, dict(reversed(headers)), NOW.timestamp)
    return caught


@pytest.mark.parametrize(
    ("expires", "last_good", "first_bad"),
    [
        pytest.param(
            date(2026, 6, 15),
            datetime(2026, 6, 15, 23, 59, 59, tzinfo=UTC),
            datetime(2026, 6, 16, tzinfo=UTC),
            id="a-day-counts-to-its-end",
        ),
        pytest.param(
            datetime(2026, 6, 15, 12),  # noqa: DTZ001 - a TOML date-time without an offset is naive
            datetime(2026, 6, 15, 11, 59, 59, tzinfo=UTC),
            datetime(2026, 6, 15, 12, tzinfo=UTC),
            id="a-moment-is-utc",
        ),
        pytest.param(
            datetime(2026, 6, 15, 12, tzinfo=timezone(timedelta(hours=8))),
            datetime(2026, 6, 15, 3, 59, 59, tzinfo=UTC),
            datetime(2026, 6, 15, 4, tzinfo=UTC),
            id="a-moment-with-its-zone",
        ),
    ],
)
def test_a_key_ends_at_its_moment(expires: date, last_good: datetime, first_bad: datetime) -> None:
    ring = keyring(expires=expires)
    assert found(ring, now=last_good).name == "team"
    assert refused(ring, now=first_bad) == "expired"


# --- the same connection again ---------------------------------------------------------------------


def again(ring: Keyring, before: KnownKey | None, key: bytes = BEARER, now: datetime = NOW) -> KnownKey:
    return ring.known([(b"authorization", key)], {b"authorization": key}, now.timestamp, before)


def test_the_same_key_again_needs_no_digest() -> None:
    ring = keyring()
    before = again(ring, None)
    with mock.patch("gateway.tenancy.keys.sha256", side_effect=AssertionError):
        assert again(ring, before) is before


@pytest.mark.parametrize("key", [b"Bearer sk-12345679", b"Bearer sk-1234567", b"Bearer sk-123456789"])
def test_another_key_on_the_same_connection_is_as_new(key: bytes) -> None:
    ring = keyring()
    with pytest.raises(Unauthorized, match="API key"):
        again(ring, again(ring, None), key)


def test_each_key_of_a_connection_has_its_own_tenant() -> None:
    keys = [KeySettings.model_validate({"name": name, "key": f"sk-{name}-12345678"}) for name in ("a", "b")]
    ring = Keyring(keys)
    before: KnownKey | None = None
    for name in "abba":
        before = again(ring, before, f"Bearer sk-{name}-12345678".encode())
        assert before.tenant.name == name


def test_a_key_that_was_known_ends_at_its_moment_too() -> None:
    ring = keyring(expires=date(2026, 6, 15))
    before = again(ring, None)
    with pytest.raises(Unauthorized) as caught:
        again(ring, before, now=NOW + timedelta(days=1))
    assert caught.value.reason == "expired"


def test_what_another_ring_knew_counts_for_nothing() -> None:
    before = again(keyring(), None)
    with pytest.raises(Unauthorized):
        again(Keyring([KeySettings.model_validate({"name": "team", "key": "sk-87654321"})]), before)


def test_a_known_key_is_not_shown() -> None:
    assert "sk-12345678" not in repr(again(keyring(), None))


def test_the_ring_keeps_no_key() -> None:
    assert b"sk-12345678" not in repr(vars(keyring())).encode()


# --- tenants ---------------------------------------------------------------------------------------


def test_a_tenant_without_a_list_sees_everything() -> None:
    assert ANONYMOUS.sees("anything")
    ANONYMOUS.require("anything", "anything")


def test_a_tenant_sees_the_models_of_its_key() -> None:
    tenant = found(keyring(models=["m"]))
    tenant.require("m", "alias")
    with pytest.raises(ModelNotAllowed, match="'alias'") as caught:
        tenant.require("other", "alias")
    assert caught.value.param == "model"


def test_a_tenant_with_an_empty_list_sees_nothing() -> None:
    assert not found(keyring(models=[])).sees("m")
