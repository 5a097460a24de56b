"""Reads how long a busy backend asks clients to wait.

The time is in the headers of the backend's answer, or in its report of the failure.

Source: RFC 9110 (Retry-After), OpenAI (`retry-after-ms`, `x-ratelimit-reset-requests: 6m0s`, "Please try
again in 1.5s"), Azure ("Please retry after 6 seconds"), Gemini (`retryDelay`), RateLimit fields of the
IETF.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

Field: TypeAlias = Callable[[str], str | None]
"""Returns the value of a header field by its lower-case name; None if it is absent."""

LONGEST_WAIT = 60.0
"""Maximum number of seconds to wait, whatever the backend asks for."""

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?) ?(?:(ms|millis|毫秒)|(h|小时)|(m|分)|(s|秒))(?:[a-z]{0,10}|钟)",
    re.IGNORECASE | re.ASCII,
)
_AFTER = re.compile(
    r"(?:(?:try|retry) ?(?:again |your request |the request )?(?:in|after)|wait(?: for)?(?: at least)?|"
    r"请在|请等待)"
    r"[: ]{0,2}(?:about )?(?=\d)",
    re.IGNORECASE,
)
_MEMBERS = (("retry_after", ""), ("retry_after_seconds", "s"), ("retrydelay", ""), ("retry_after_ms", "ms"))
_KINDS = ("requests", "tokens")
_EPOCH = 10**9
"""Smallest number that is read as a point in time (Unix time) and not as a duration."""


def no_field(name: str) -> str | None:  # noqa: ARG001 - the signature of a `Field`
    """Return None: a `Field` for reports without headers."""
    return None


def rest(field: Field, stated: float | None = None, words: str = "") -> float | None:
    """Return the seconds for which a busy backend asks clients to wait; None if it does not say.

    The result is between 0 and `LONGEST_WAIT`. The most precise source is used: `retry-after-ms`, then
    `retry-after`, then the report (`stated` from a member, or a time in `words`), then the headers that say
    when a rate limit is reset.
    """
    for wait in (asked(field), stated, in_words(words), _reset(field)):
        if wait is not None:
            return min(max(wait, 0.0), LONGEST_WAIT)
    return None


def asked(field: Field) -> float | None:
    """Return the seconds in `retry-after-ms` or `retry-after`, between 0 and `LONGEST_WAIT`."""
    in_ms = _duration(field("retry-after-ms"), "ms")
    return seconds(field("retry-after"), field("date")) if in_ms is None else min(in_ms, LONGEST_WAIT)


def seconds(header: str | None, date: str | None = None) -> float | None:
    """Return a Retry-After value in seconds, between 0 and `LONGEST_WAIT`; None if it is malformed.

    A point in time is compared with the server's own clock, which its `date` header shows. Without a `date`
    header the result is `LONGEST_WAIT`, the only value that is certainly not too short.
    """
    wait = _duration(header, "s")
    if wait is not None and wait < _EPOCH:
        return min(wait, LONGEST_WAIT)
    then, now = _moment(header) if wait is None else _at(wait), _moment(date)
    if then is None:
        return None
    return LONGEST_WAIT if now is None else min(max((then - now).total_seconds(), 0.0), LONGEST_WAIT)


def in_words(words: str) -> float | None:
    """Return the seconds in a text such as "Please try again in 1m30s".

    A number without a unit is in seconds.
    """
    found = _AFTER.search(words)
    if found is None:
        return None
    parts, end = 0.0, found.end()
    while part := _PART.match(words, end):
        parts, end = parts + _seconds_of(part), part.end()
    if end > found.end():
        return parts
    number = _NUMBER.match(words, end)
    return float(number[0]) if number else None


def in_members(value: dict[str, Any]) -> float | None:
    """Return the seconds that a report states in a member. Member names are in lower case."""
    for name, unit in _MEMBERS:
        given = value.get(name)
        if isinstance(given, int | float) and not isinstance(given, bool):
            given = str(given)
        if isinstance(given, str) and (wait := _duration(given, unit or "s")) is not None:
            return wait
    details = value.get("details")
    for one in details[:8] if isinstance(details, list) else ():
        if isinstance(one, dict) and isinstance(delay := one.get("retryDelay"), str):
            return _duration(delay, "s")
    return None


def _duration(text: str | None, unit: str) -> float | None:
    """Return the seconds of a duration such as `20`, `20s`, `1m0s` or `500ms`. A bare number is in `unit`."""
    text = "" if text is None else text.strip(" \t")
    if _NUMBER.fullmatch(text):
        return max(float(text), 0.0) * _UNITS[unit]
    whole, end = 0.0, 0
    while part := _PART.match(text, end):
        whole, end = whole + _seconds_of(part), part.end()
        while text[end : end + 1] in (" ", ",") and end < len(text):
            end += 1
    return whole if end and end == len(text) else None


def _seconds_of(part: re.Match[str]) -> float:
    unit = "ms" if part[2] else "h" if part[3] else "m" if part[4] else "s"
    return float(part[1]) * _UNITS[unit]


def _reset(field: Field) -> float | None:
    """Return the seconds until the rate limit is reset.

    If there are several kinds of limits, this is the latest reset among the exhausted limits, or among all
    limits if none is marked as exhausted.
    """
    general = field("x-ratelimit-reset") or field("ratelimit-reset")
    if general is not None:
        return seconds(general, field("date"))
    waits = {kind: seconds(field(f"x-ratelimit-reset-{kind}"), field("date")) for kind in _KINDS}
    told = {kind: wait for kind, wait in waits.items() if wait is not None}
    used_up = [wait for kind, wait in told.items() if field(f"x-ratelimit-remaining-{kind}") == "0"]
    return max(used_up or told.values(), default=None)


def _moment(header: str | None) -> datetime | None:
    """Parse an HTTP date or an ISO 8601 date; return None for anything else.

    A date without a time zone is not used, because its zone is unknown.
    """
    text = (header or "").strip(" \t")
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text.replace("Z", "+00:00") if text[:4].isdecimal() else text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo is not None else None
    return None


def _at(epoch: float) -> datetime | None:
    """Convert seconds or milliseconds since 1970 to a point in time."""
    try:
        return datetime.fromtimestamp(epoch / 1000 if epoch >= _EPOCH * 100 else epoch, UTC)
    except (ValueError, OverflowError, OSError):
        return None
