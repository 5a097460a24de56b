"""Reads for how long a busy backend asks to be left alone: in its headers, and in its report.

Source: RFC 9110 (Retry-After), OpenAI (`retry-after-ms`, `x-ratelimit-reset-requests: 6m0s`, "Please try
again in 1.5s"), Azure ("Please retry after 6 seconds"), Gemini (`retryDelay`), RateLimit fields of the IETF.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

Field: TypeAlias = Callable[[str], str | None]
"""Gives the value of a header field by its name in small letters."""

LONGEST_WAIT = 60.0
"""Most seconds a backend may tell us to stay away."""

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
"""Numbers from here on are moments, not times to wait."""


def no_field(name: str) -> str | None:  # noqa: ARG001 - the form of a `Field`
    """The headers of an answer that has none to read."""
    return None


def rest(field: Field, stated: float | None = None, words: str = "") -> float | None:
    """Seconds for which a busy backend asks to be left alone, `LONGEST_WAIT` at most; None if it is silent.

    The most precise place counts: `retry-after-ms`, `retry-after`, then its report (`stated` in a member of
    its own, or in `words`), then the headers that tell when a limit ends.
    """
    for wait in (asked(field), stated, in_words(words), _reset(field)):
        if wait is not None:
            return min(max(wait, 0.0), LONGEST_WAIT)
    return None


def asked(field: Field) -> float | None:
    """What `retry-after-ms` or `retry-after` say, in seconds between 0 and `LONGEST_WAIT`."""
    in_ms = _duration(field("retry-after-ms"), "ms")
    return seconds(field("retry-after"), field("date")) if in_ms is None else min(in_ms, LONGEST_WAIT)


def seconds(header: str | None, date: str | None = None) -> float | None:
    """Retry-After in seconds, between 0 and `LONGEST_WAIT`; None for what is no number, duration or date.

    A moment is held against the server's own clock, which is what its `date` header shows; without one the
    longest wait is the only one that is surely not too short.
    """
    wait = _duration(header, "s")
    if wait is not None and wait < _EPOCH:
        return min(wait, LONGEST_WAIT)
    then, now = _moment(header) if wait is None else _at(wait), _moment(date)
    if then is None:
        return None
    return LONGEST_WAIT if now is None else min(max((then - now).total_seconds(), 0.0), LONGEST_WAIT)


def in_words(words: str) -> float | None:
    """The seconds of a text such as "Please try again in 1m30s"; a number without a unit counts seconds."""
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
    """The seconds that a report states in a member of its own; names are in small letters."""
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
    """A time such as `20`, `20s`, `1m0s` or `500ms`; a bare number has `unit`."""
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
    """When a limit ends: of several kinds of limits the last of those that are used up."""
    general = field("x-ratelimit-reset") or field("ratelimit-reset")
    if general is not None:
        return seconds(general, field("date"))
    waits = {kind: seconds(field(f"x-ratelimit-reset-{kind}"), field("date")) for kind in _KINDS}
    told = {kind: wait for kind, wait in waits.items() if wait is not None}
    used_up = [wait for kind, wait in told.items() if field(f"x-ratelimit-remaining-{kind}") == "0"]
    return max(used_up or told.values(), default=None)


def _moment(header: str | None) -> datetime | None:
    """A date of HTTP or ISO 8601; None for anything else. One without a zone is in none we know."""
    text = (header or "").strip(" \t")
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text.replace("Z", "+00:00") if text[:4].isdecimal() else text)
        except (ValueError, OverflowError):
            continue
        return moment if moment.tzinfo is not None else None
    return None


def _at(epoch: float) -> datetime | None:
    """A moment as seconds or milliseconds since 1970."""
    try:
        return datetime.fromtimestamp(epoch / 1000 if epoch >= _EPOCH * 100 else epoch, UTC)
    except (ValueError, OverflowError, OSError):
        return None
