from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.shared.refusals import refusal, reported
from gateway.dialects.shared.waits import in_words, rest, seconds

MOMENT = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("20s", 20.0),
        ("20 s", 20.0),
        ("1m0s", 60.0),
        ("0m6s", 6.0),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("20 seconds", 20.0),
        ("1 minute", 60.0),
        ("1h2m3s", 60.0),
        ("20, 20", None),
        ("20;x", None),
        ("twenty", None),
        ("９", None),
    ],
)
def test_a_time_to_wait_may_have_units(header: str, wait: float | None) -> None:
    assert seconds(header) == wait
    for status in (429, 503, 529):
        assert refusal(status, b"", {"retry-after": header}.get).retry_after == wait


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        ("Wed, 21 Oct 2026 07:27:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:29:00 GMT", 0.0),
        ("Tue, 20 Oct 2026 07:28:00 GMT", 60.0),
        ("yesterday", 60.0),
        (None, 60.0),
    ],
)
@pytest.mark.parametrize(
    "moment", [MOMENT, "2026-10-21T07:28:00Z", "2026-10-21T09:28:00+02:00", "1792567680", "1792567680000"]
)
def test_a_moment_is_told_by_the_servers_own_clock(moment: str, date: str | None, wait: float) -> None:
    assert seconds(moment, date) == wait
    fields = {"retry-after": moment} | ({} if date is None else {"date": date})
    assert refusal(503, b"", fields.get).retry_after == wait


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "2", "x-ratelimit-reset": "9"}, 2.0),
        ({"x-ratelimit-reset": "9"}, 9.0),
        ({"ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-reset": "1792567680", "date": "Wed, 21 Oct 2026 07:27:50 GMT"}, 10.0),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 60.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "100",
            },
            1.0,
        ),
        ({}, None),
    ],
)
def test_the_most_precise_header_counts(fields: dict[str, str], wait: float | None) -> None:
    assert rest(fields.get) == wait
    assert refusal(429, b"", fields.get).retry_after == wait


@pytest.mark.parametrize(
    ("words", "wait"),
    [
        ("Rate limit reached on tokens per min (TPM): Limit 9, Used 9. Please try again in 6s. Visit", 6.0),
        ("Please try again in 120ms.", 0.12),
        ("Please try again in 1m30s.", 90.0),
        ("Please try again in 7m12.5s", 432.5),
        ("Please retry after 6 seconds.", 6.0),
        ("Please retry your request after 6 seconds", 6.0),
        ("Please retry in 19.3s", 19.3),
        ("Too many requests, please wait 10 seconds", 10.0),
        ("retry after: 5", 5.0),
        ("请在 5 秒后重试", 5.0),
        ("Try again later", None),
        ("", None),
    ],
)
def test_the_words_tell_how_long(words: str, wait: float | None) -> None:
    assert in_words(words) == (None if wait is None else pytest.approx(wait))
    capped = None if wait is None else pytest.approx(min(wait, 60.0))
    report = {"error": {"message": f"rate limit: {words}", "code": 429}}
    error = reported(report)
    assert error is not None
    assert error.retry_after == capped
    assert refusal(429, json.dumps(report).encode()).retry_after == capped
    assert refusal(429, words.encode()).retry_after == capped


@pytest.mark.parametrize(
    "member",
    [
        {"retry_after": 7},
        {"retry_after": "7s"},
        {"retry_after_seconds": 7.0},
        {"retry_after_ms": 7000},
        {"details": [{"@type": "x"}, {"retryDelay": "7s"}]},
    ],
)
def test_a_member_tells_how_long(member: dict[str, object]) -> None:
    report = json.dumps({"error": {"message": "slow down", **member}}).encode()
    assert refusal(429, report).retry_after == 7.0
    assert refusal(429, report, {"retry-after": "3", "x-ratelimit-reset": "9"}.get).retry_after == 3.0
    assert refusal(429, report, {"x-ratelimit-reset": "9"}.get).retry_after == 7.0


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_no_header_breaks_it(header: str, date: str | None) -> None:
    wait = seconds(header, date)
    assert wait is None or 0 <= wait <= 60
    fields = {"retry-after-ms": header, "x-ratelimit-reset-tokens": header} | ({"date": date} if date else {})
    wait = rest(fields.get, None, header)
    assert wait is None or 0 <= wait <= 60
