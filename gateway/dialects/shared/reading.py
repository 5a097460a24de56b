"""Reads the event stream of an OpenAI-like server from bytes.

`EventSplitter` splits bytes into events. `StreamReader` parses the events and keeps the `AnswerState`. Its
subclasses decide what to return: typed events (`TypedReader`) or bytes (`passing`). If a stream was
requested and the body is one JSON object, the object is read as one chunk. A body of plain text is read as
an error report.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

from gateway.dialects.base import DOUBTFUL, LATE, LATE_USAGE, ByteDecoder, Outgoing
from gateway.dialects.shared.framing import (
    Characters,
    is_end,
    is_ping,
    objects_in,
    says_nothing,
    undoubled,
)
from gateway.dialects.shared.openai_like import read_object
from gateway.dialects.shared.refusals import report_of, told_in
from gateway.dialects.shared.state import AnswerState, ChunkMeaning, require_messages
from gateway.errors import UpstreamGarbled, UpstreamTruncated
from gateway.formats import jsontext, sse
from gateway.formats.events import Event, Repair

_END = b"\n\n"
_MARK = sse.BYTE_ORDER_MARK


class EventFields(NamedTuple):
    """The fields of one event.

    `raw` is the event's only line as the server sent it. It is None unless the line begins with `data: {`.
    """

    data: bytes
    type: str = "message"
    raw: bytes | None = None


class EventSplitter:
    """Splits bytes into events. The result does not depend on how the bytes are sliced. One per stream.

    Each byte is examined once. `held` is True while an event has begun and not ended. It stays True once
    the stream is read by the general parser, whose events match no template.
    """

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._size = 0
        self._parser: sse.SseParser | None = None  # set once lines do not end as OpenAI's servers end them
        self.held = False

    def feed(self, chunk: bytes) -> list[EventFields]:
        """Return the events that end in `chunk`.

        Raises `UpstreamGarbled` for an event over `sse.MAX_EVENT` bytes.
        """
        if self._parser is None and b"\r" in chunk:
            chunk, self._parser = self.rest() + chunk, sse.SseParser()
        if self._parser is not None:
            return self._parsed(self._parser, chunk)
        pending = self._pending
        ends = _END in chunk or (chunk[:1] == b"\n" and bool(pending) and pending[-1].endswith(b"\n"))
        if not ends:
            if b"\n" in chunk.strip(b"\n") or (pending and pending[-1].endswith(b"\n")):
                self._parser = sse.SseParser()  # several lines in an event, or no blank line after it
                whole = b"".join((*pending, chunk))
                pending.clear()
                return self._parsed(self._parser, whole)
            self._hold(chunk)
            return []
        whole = b"".join((*pending, chunk))
        pending.clear()
        self._size = 0
        *lines, rest = whole.split(_END)
        if len(whole) > sse.MAX_EVENT and max(map(len, lines)) > sse.MAX_EVENT:
            raise _too_long()
        found: list[EventFields] = []
        for line in lines:
            _find(line, found)
        rest = rest.lstrip(b"\n")
        if b"\n" in rest[:-1]:
            self._parser = sse.SseParser()
            return found + self._parsed(self._parser, rest)
        self._hold(rest)
        return found

    def by_line(self) -> None:
        """Switch to the general parser, for a body of JSON lines: each line may be an event."""
        self._parser = sse.SseParser()

    def rest(self) -> bytes:
        """Return the bytes of an event that has not ended, and discard them.

        The bytes are `?` if the general parser has bytes that do not form an event.
        """
        rest = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        if self._parser is not None and self._parser.rest:
            ended = self._parser.feed(_END)
            return b"data: " + ended[-1].data.encode() if ended else b"?"
        return rest

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._pending.append(piece)
            self._size += len(piece)
            if self._size > sse.MAX_EVENT:
                raise _too_long()
        self.held = bool(self._pending)

    def _parsed(self, parser: sse.SseParser, chunk: bytes) -> list[EventFields]:
        try:
            events = parser.feed(chunk)
        except ValueError:
            raise _too_long() from None
        self.held = True  # events of the general parser match no template
        return [EventFields(event.data.encode(), event.type) for event in events]


def _too_long() -> UpstreamGarbled:
    return UpstreamGarbled("An event of the backend's stream is too long.")


def _find(lines: bytes, found: list[EventFields]) -> None:
    """Append the event in `lines`, which end with LF, to `found`.

    Comments and events without data are skipped.
    """
    lines = lines.removeprefix(_MARK).lstrip(b"\n")
    if lines.startswith(b"data:") and b"\n" not in lines:
        found.append(EventFields(lines[5:].strip(), raw=lines if lines.startswith(b"data: {") else None))
    elif lines.startswith(b"{"):  # a bare JSON line: an error report, or JSON lines
        found.append(EventFields(lines))
    elif lines:
        found += [
            EventFields(event.data.encode(), event.type) for event in sse.SseParser().feed(lines + _END)
        ]


class StreamReader(ByteDecoder):
    """Base class of the readers of one stream. Subclasses implement `_take`, `_ready` and `_close`.

    A reader belongs to one stream. After `end`, it returns no more events.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self.state = AnswerState(single=not outgoing.several)
        self._outgoing = outgoing
        self._splitter = EventSplitter()
        self._characters = Characters()
        self._opening = sse.Opening()
        self._started = self._closed = False

    @property
    def finished(self) -> bool:
        return self.state.finished

    @property
    def late(self) -> float:
        if self.state.doubtful:
            return DOUBTFUL
        return LATE_USAGE if self._outgoing.usage_wanted and self.state.usage is None else LATE

    @abstractmethod
    def _take(self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes | None) -> None:
        """Process one chunk.

        Args:
            chunk: the parsed chunk.
            said: what the chunk adds to each of its choices.
            raw: the event's line as the server sent it; None if the chunk cannot be passed on as bytes.
        """

    @abstractmethod
    def _ready(self) -> list[Event]:
        """Return the events that can be sent to the client now."""

    @abstractmethod
    def _close(self, finishes: list[Event]) -> list[Event]:
        """Return the remaining events at the end of the stream.

        `finishes` are those of `AnswerState.finishes`.
        """

    def feed(self, chunk: bytes) -> list[Event]:
        if self.done:
            return []
        if not self._started and not (chunk := self._begin(chunk)):
            return []
        for found in self._splitter.feed(chunk):
            if not self.done:
                self._read(found)
        return self._ready()

    def end(self, *, clean: bool) -> list[Event]:
        if self._closed:
            return []
        self._closed = True
        repairs: list[Event] = []
        if (body := self._opening.json) is not None:
            self._read_whole(body, clean=clean)
            repairs.append(Repair("other_kind"))
        elif not self.done:
            clean = self._read_rest() and clean
            if not self.done:
                repairs.append(Repair("missing_done"))
        finishes = self.state.finishes(done=self.done, clean=clean)
        self.done = True
        return [*repairs, *self._ready(), *self._close(finishes)]

    def _begin(self, chunk: bytes) -> bytes:
        """Return the bytes that belong to the stream; b"" while the kind of the body is not known yet."""
        try:
            chunk = self._opening.take(chunk)
        except ValueError:
            raise UpstreamGarbled("The backend's answer is too large.") from None
        self._started = bool(chunk)
        if self._opening.lines:
            self._splitter.by_line()
        return chunk

    def _read(self, found: EventFields) -> None:
        if found.raw is None:
            if found.data.startswith(b"data:"):  # some proxies add a second prefix
                found = EventFields(undoubled(found.data), found.type)
            if not found.data:
                return
            if is_end(found.data):
                self.done = True
                return
        if found.type != "message":
            if found.type == "error":
                raise report_of(found.data.decode("utf-8", "replace"))
            if is_ping(found.type):
                return
        self._read_all(found)

    def _read_all(self, found: EventFields) -> None:
        """Read the chunks of an event. Nearly every event holds one chunk."""
        try:
            chunks, raw = [read_object(found.data)], found.raw
        except UpstreamGarbled:
            chunks, raw = objects_in(self._characters.whole(found.data)), None
        for chunk in chunks:
            if "choices" in chunk or not says_nothing(chunk):
                self._take(chunk, self.state.take(chunk), raw)

    def _read_rest(self) -> bool:
        """Read an event whose terminating blank line is missing at the end of the stream.

        Return False if the remaining bytes are only part of an event.
        """
        rest = self._splitter.rest().strip()
        if rest and not self.state.begun and not sse.is_stream(rest) and not is_end(rest):
            self._refuse_text(rest)
        found: list[EventFields] = []
        _find(rest, found)
        try:
            for one in found:
                self._read(one)
        except UpstreamGarbled:
            return False
        return self.done or bool(found) or not rest

    def _refuse_text(self, body: bytes) -> None:
        """Raise an error for a body of plain text, which is neither JSON nor the beginning of an event."""
        if not body.startswith(b"{") and not any(start.startswith(body) for start in sse.STARTS):
            raise told_in(body.decode("utf-8", "replace")) or UpstreamGarbled(
                "The backend's answer is not an event stream."
            )

    def _read_whole(self, body: bytes, *, clean: bool) -> None:
        if not clean and not _is_json(body):
            raise UpstreamTruncated("The backend's answer broke off.")
        answers = objects_in(body.strip())
        self.done = len(answers) == 1 or body.lstrip().startswith(b"[")
        for answer in answers:
            said = self.state.take(answer)
            if len(answers) == 1:
                require_messages(said)
            self._take(answer, said, None)


def _is_json(data: bytes) -> bool:
    try:
        jsontext.read_lenient(data)
    except ValueError:
        return False
    return True


class TypedReader(StreamReader):
    """Returns typed events, for clients that do not read the format that the server writes."""

    def __init__(self, outgoing: Outgoing) -> None:
        super().__init__(outgoing)
        self._events: list[Event] = []

    def _take(self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes | None) -> None:  # noqa: ARG002 - for readers that pass bytes
        self._events += [one.delta for one in said if not one.delta.empty]

    def _ready(self) -> list[Event]:
        ready, self._events = self._events, []
        return ready

    def _close(self, finishes: list[Event]) -> list[Event]:
        usage: list[Event] = [self.state.usage] if self.state.usage else []
        return [*self.state.rest(), *finishes, *usage]
