"""Event streams: an incremental parser for what backends send, and the framing of what we send.

Source: WHATWG HTML, server-sent events. Lines end in CRLF, LF or CR; several data lines join with a
newline; comments (`: ping`) and fields we do not use are skipped; one blank after the colon goes.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

MAX_EVENT = 1 << 20
"""The longest event in characters that is kept; a longer one raises `ValueError`."""

DONE = b"data: [DONE]\n\n"
_LAST = (b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n")
_LINE_END = re.compile(r"\r\n|\n|\r")


def says_done(chunk: bytes) -> bool:
    """Whether the bytes end with the event that ends a stream; if that came in slices, they do not tell."""
    return chunk.endswith(_LAST)


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data lines joined, and its type (`message` unless the stream says otherwise)."""

    data: str
    type: str = "message"


class Parser:
    """Bytes in, whole events out, however the bytes are sliced. One per stream.

    `feed` gives the events completed by these bytes. `rest` tells whether bytes of an unfinished event
    are left, which at the end of a stream means that it was cut.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending: list[str] = []  # the pieces of a line that has not ended
        self._length = 0
        self._data: list[str] = []
        self._type = ""
        self._size = 0

    @property
    def rest(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._pending or self._data)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in `chunk`. Raises ValueError for an event over `MAX_EVENT`."""
        text = self._decoder.decode(chunk)
        events: list[Event] = []
        if "\n" in text or "\r" in text or (self._pending and self._pending[-1].endswith("\r")):
            text = "".join((*self._pending, text))
            # A CR at the very end may be half of a CRLF: wait for the next bytes.
            held = "\r" if text.endswith("\r") else ""
            lines = _LINE_END.split(text[: len(text) - len(held)])
            text = lines.pop() + held
            self._pending, self._length = [], 0
            events = [event for line in lines if (event := self._line(line)) is not None]
        if text:  # looked at once: a line that comes in many pieces is not searched again with each
            self._pending.append(text)
            self._length += len(text)
        if self._length + self._size > MAX_EVENT:
            raise ValueError("an event is too long")
        return events

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == "event":
            self._type = value
        elif name == "error":  # llama.cpp until 2025: `error: {...}`, a field of its own
            self._data.append(value)
            self._size += len(value) + 1
            self._type = "error"
        return None

    def _dispatch(self) -> Event | None:
        event = Event("\n".join(self._data), self._type or "message") if self._data else None
        self._data, self._type, self._size = [], "", 0
        return event


def frame(payload: bytes, event_type: str = "") -> bytes:
    """One event, of a type if one is given, around a payload without newlines (JSON of ours has none)."""
    named = f"event: {event_type}\n".encode() if event_type else b""
    return named + b"data: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """A comment, which every client skips; newlines become blanks."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"
