"""Event streams: an incremental parser for what backends send, and the framing of what we send.

Source: WHATWG HTML, server-sent events. Lines end in CRLF, LF or CR; several data lines join with a
newline; comments (`: ping`) and fields we do not use are skipped; one blank after the colon goes.

Beyond it, for servers that frame their events otherwise: a data line that is a JSON object by itself, before
another data line, is an event by itself (no blank line between events); so is a line that is a JSON object
(JSON lines), and a bare `[DONE]`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from gateway.formats import jsontext

MAX_EVENT = 1 << 20
"""The longest event in characters that is kept; a longer one raises `ValueError`."""

LONGEST_WHOLE = 16 * 1024 * 1024
"""The longest JSON body that is read where a stream was asked for, in bytes."""
DONE = b"data: [DONE]\n\n"
_LAST = (b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STARTS = (b"data:", b":", b"event:", b"id:", b"retry:", b"error:")
"""How the first line of a stream may begin."""
_LONGEST_MARK = 16
_AROUND_MARK = str.maketrans("", "", " \t\"'")
_MARKS = frozenset({"[DONE]", "DONE"})
_LINE_END = re.compile(r"\r\n|\n|\r")


def says_done(chunk: bytes) -> bool:
    """Whether the bytes end with the event that ends a stream; if that came in slices, they do not tell."""
    return chunk.endswith(_LAST)


def is_mark(data: str) -> bool:
    """Whether an event's data says that the stream is over: `[DONE]`, also in other letters, or as JSON."""
    return len(data) <= _LONGEST_MARK and data.translate(_AROUND_MARK).upper() in _MARKS


def is_stream(body: bytes) -> bool:
    """Whether a body is an event stream, by its first bytes."""
    return body[:64].removeprefix(BYTE_ORDER_MARK).lstrip().startswith(STARTS)


def begins_lines(line: bytes) -> bool:
    """Whether the first line of a body that begins as JSON is one chunk of several: JSON lines."""
    try:
        value = jsontext.read_lenient(line)
    except ValueError:
        return False
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices:
        return False
    return all(isinstance(one, dict) and "message" not in one for one in choices)


class Opening:
    """Tells by its beginning whether a body is a stream, whose bytes go on, or JSON, which is kept.

    One per body. `lines` tells that it is JSON lines: a stream whose events are lines.
    """

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self._decided = self._json = self._seen_line = False
        self.lines = False

    @property
    def json(self) -> bytes | None:
        """The body, without blanks before it, if it begins as JSON; None for a stream."""
        return b"".join(self._kept) if self._json else None

    def take(self, chunk: bytes) -> bytes:
        """The bytes that go on as a stream's. Raises ValueError for JSON over `LONGEST_WHOLE`."""
        if self._decided:
            return chunk
        if not self._json:
            return self._first(b"".join((*self._kept, chunk)))
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._size > LONGEST_WHOLE:
            raise ValueError("a body is too long")
        return b"" if self._seen_line or b"\n" not in chunk else self._line()

    def _first(self, body: bytes) -> bytes:
        cut = len(body) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(body)
        begin = body if cut else body.removeprefix(BYTE_ORDER_MARK).lstrip()
        self._kept = [begin]
        self._size = len(begin)
        if cut or not begin:
            return b""
        if begin[0] in b'{["<':
            self._json = True
            return self._line()
        self._decided = True
        return begin

    def _line(self) -> bytes:
        body = b"".join(self._kept)
        line, self._seen_line = body.partition(b"\n")[0], b"\n" in body
        if not (self._seen_line and begins_lines(line)):
            return b""
        self._decided = self.lines = True
        self._json = False
        self._kept.clear()
        return body


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its data lines joined, and its type (`message` unless the stream says otherwise)."""

    data: str
    type: str = "message"


class SseParser:
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
        self._by_line = False  # no blank line stands between events

    @property
    def rest(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._pending or self._data)

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that end in `chunk`. Raises ValueError for an event over `MAX_EVENT`."""
        text = self._decoder.decode(chunk)
        events: list[SseEvent] = []
        if "\n" in text or "\r" in text or (self._pending and self._pending[-1].endswith("\r")):
            text = "".join((*self._pending, text))
            # A CR at the very end may be half of a CRLF: wait for the next bytes.
            held = "\r" if text.endswith("\r") else ""
            lines = _LINE_END.split(text[: len(text) - len(held)])
            text = lines.pop() + held
            self._pending, self._length = [], 0
            for line in lines:
                self._line(line, events)
        if text:  # looked at once: a line that comes in many pieces is not searched again with each
            self._pending.append(text)
            self._length += len(text)
        if self._length + self._size > MAX_EVENT:
            raise ValueError("an event is too long")
        return events

    def _line(self, line: str, events: list[SseEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            if len(self._data) == 1 and _is_object(self._data[0]):
                self._by_line = True
                self._dispatch(events)
            self._data.append(value)
            self._size += len(value) + 1
            if self._by_line:
                self._dispatch(events)
        elif (line[0] == "{" and line.rstrip()[-1] == "}") or (line[0] == "[" and is_mark(line)):
            self._dispatch(events)
            events.append(SseEvent(line))
        elif name == "event":
            self._type = value
        elif name == "error":  # llama.cpp until 2025: `error: {...}`, a field of its own
            self._data.append(value)
            self._size += len(value) + 1
            self._type = "error"

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            events.append(SseEvent("\n".join(self._data), self._type or "message"))
        self._data, self._type, self._size = [], "", 0


def _is_object(data: str) -> bool:
    """Whether a line is a JSON object by itself."""
    if not (data.startswith("{") and data.rstrip().endswith("}")):
        return False
    try:
        return isinstance(jsontext.read_lenient(data), dict)
    except ValueError:
        return False


def frame(payload: bytes, event_type: str = "") -> bytes:
    """One event, of a type if one is given, around a payload without newlines (JSON of ours has none)."""
    named = f"event: {event_type}\n".encode() if event_type else b""
    return named + b"data: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """A comment, which every client skips; newlines become blanks."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"
