"""Reads the objects in one event, or in one body, of servers with unusual framing.

Most events hold one JSON object. Some hold several objects in a row or in a list, or a keep-alive ping.
Some begin with a second `data:`. Some servers split the bytes of one character across two events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.dialects.shared.openai_like import read_object
from gateway.dialects.shared.refusals import reported
from gateway.errors import UpstreamGarbled
from gateway.formats import sse

MOST_OBJECTS = 4096
"""Maximum number of objects in one event, or in one body that is not a single object."""

MOST_BROKEN = 64
"""Maximum number of invalid characters of one event that are repaired one by one.

Each repair costs a copy of the event.
"""

_PREFIX = b"data:"
_LONGEST_MARK = 16
_LONGEST_CHARACTER = 4
_PINGS = frozenset({"ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"})
_HEAD = frozenset({"id", "object", "created", "model", "system_fingerprint", "provider", "service_tier"})
_raw_decode = json.JSONDecoder().raw_decode


def is_end(data: bytes) -> bool:
    """Return True if the data of an event is the mark that ends a stream."""
    return len(data) <= _LONGEST_MARK and sse.is_mark(data.decode("utf-8", "replace"))


def is_ping(kind: str) -> bool:
    """Return True if events of this type only keep the connection open."""
    return kind.lower() in _PINGS


def says_nothing(chunk: dict[str, Any]) -> bool:
    """Return True if an object without choices is a keep-alive ping, and not part of an answer."""
    if not chunk:
        return True
    for name in ("type", "object", "event"):
        kind = chunk.get(name)
        if isinstance(kind, str) and is_ping(kind):
            return True
    return chunk.get("object") == "chat.completion.chunk" and _HEAD.issuperset(chunk)


def objects_in(data: bytes) -> list[dict[str, Any]]:
    """Return the objects of an event or a body: one object, or several in a row or in a list.

    Raises `UpstreamGarbled` for anything else. If an object is an error report, raises the error that
    `refusals` derives from it.
    """
    try:
        return [read_object(data)]
    except UpstreamGarbled:
        if data[:1] not in (b"{", b"[") and data != b"null":
            raise
    objects: list[dict[str, Any]] = []
    seen = 0
    for value in _side_by_side(data):
        several = value if isinstance(value, list) else [value]
        seen += 1 + len(several)
        objects += [_object(one) for one in several[: MOST_OBJECTS + 1] if one is not None]
        if seen > 2 * MOST_OBJECTS or len(objects) > MOST_OBJECTS:
            raise UpstreamGarbled("An event of the backend's stream holds too many objects.")
    return objects


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UpstreamGarbled("The backend's answer is not a JSON object.")
    error = reported(value)
    if error is not None:
        raise error
    return value


def _side_by_side(data: bytes) -> Iterator[Any]:
    """Yield JSON values that follow one another, with or without blanks.

    An end mark after them is skipped.
    """
    text = data.decode("utf-8", "replace")
    at, end = 0, len(text)
    try:
        while at < end:
            value, at = _raw_decode(text, at)
            yield value
            while at < end and text[at].isspace():
                at += 1
            if sse.is_mark(text[at : at + 2 * _LONGEST_MARK]):
                return
    except (ValueError, RecursionError):
        raise UpstreamGarbled("The backend's answer is not JSON.") from None


class Characters:
    """Rejoins characters whose bytes a server has split across two events. One per stream.

    Half a character that is never completed is dropped.
    """

    def __init__(self) -> None:
        self._half = b""

    def whole(self, data: bytes) -> bytes:
        """Return the data of an event as valid UTF-8. Invalid bytes become U+FFFD."""
        half, self._half = self._half, b""
        out: list[bytes] = []
        for _ in range(MOST_BROKEN):
            try:
                data.decode()
            except UnicodeDecodeError as error:
                out.append(data[: error.start])
                bad, data = data[error.start : error.end], data[error.end :]
                while bad[0] < 0xC0 and data and 0x80 <= data[0] < 0xC0 and len(bad) < _LONGEST_CHARACTER:
                    bad, data = bad + data[:1], data[1:]
                if bad[0] >= 0xC0 and data.startswith(b'"'):
                    self._half = bad
                else:
                    out.append((half + bad).decode("utf-8", "replace").encode())
                    half = b""
            else:
                return b"".join((*out, data))
        return b"".join((*out, data.decode("utf-8", "replace").encode()))


def undoubled(data: bytes) -> bytes:
    """Return the data of an event without a second `data:` prefix."""
    return data[len(_PREFIX) :].strip() if data.startswith(_PREFIX) else data
