"""What stands in one event, or in one body, of a server that frames its answers in its own way.

Most events hold one JSON object. Some hold several side by side, or in a list, or a ping; some begin with a
second `data:`; some servers cut a character of several bytes in two.
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
"""Most objects of one event, or of one body that is no single object."""

MOST_BROKEN = 64
"""Broken characters of one event that are looked at one by one: each costs a copy of the event."""

_PREFIX = b"data:"
_LONGEST_MARK = 16
_LONGEST_CHARACTER = 4
_PINGS = frozenset({"ping", "keepalive", "keep-alive", "keep_alive", "heartbeat"})
_HEAD = frozenset({"id", "object", "created", "model", "system_fingerprint", "provider", "service_tier"})
_raw_decode = json.JSONDecoder().raw_decode


def is_end(data: bytes) -> bool:
    """Whether an event's data is the mark that ends a stream."""
    return len(data) <= _LONGEST_MARK and sse.is_mark(data.decode("utf-8", "replace"))


def is_ping(kind: str) -> bool:
    """Whether events of this type only keep a connection open."""
    return kind.lower() in _PINGS


def says_nothing(chunk: dict[str, Any]) -> bool:
    """Whether an object without choices is a ping, and no answer nor part of one."""
    if not chunk:
        return True
    for name in ("type", "object", "event"):
        kind = chunk.get(name)
        if isinstance(kind, str) and is_ping(kind):
            return True
    return chunk.get("object") == "chat.completion.chunk" and _HEAD.issuperset(chunk)


def objects_in(data: bytes) -> list[dict[str, Any]]:
    """The objects of an event or a body: one, or several side by side or in a list.

    Raises `UpstreamGarbled` where it is anything else, and what `refusals` makes of the report of an error.
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
    """JSON values with nothing or blanks between them; a mark at their end is left out."""
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
    """Puts characters together whose bytes a server has cut in two events. One per stream.

    Half a character that is never completed is left out.
    """

    def __init__(self) -> None:
        self._half = b""

    def whole(self, data: bytes) -> bytes:
        """The data of an event that may not be UTF-8, as UTF-8."""
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
    """The data without a second `data:` before it."""
    return data[len(_PREFIX) :].strip() if data.startswith(_PREFIX) else data
