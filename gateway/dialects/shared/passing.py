"""Passes the stream of an OpenAI-like server to the client as bytes, changed only where a rule requires it.

The first chunks are parsed, and so is every chunk that holds more than text. Most chunks of a stream hold
one piece of text between bytes that never change (`chunk_templates`). Those chunks are passed on without
parsing. The meaning of parsed chunks is decided by `AnswerState`, which the reader of typed events uses
too.
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Outgoing
from gateway.dialects.shared.chunk_templates import ChunkTemplate, shape_of
from gateway.dialects.shared.reading import EventFields, StreamReader
from gateway.dialects.shared.rewriting import ChunkRewriter, UsageCompleter, written
from gateway.dialects.shared.state import ChunkMeaning, says
from gateway.formats import jsontext
from gateway.formats.events import Event, Finish, FinishReason, Passed, Repair, Usage

_END = b"\n\n"
_UNCOUNTED = 16_384
"""Bytes of text that are collected before their tokens are counted.

Collected text is counted only if the server sends no usage.
"""
_USELESS = 8
"""Number of consecutive templates that matched no later chunk, after which no template is made any more."""


class PassingDecoder(StreamReader):
    """Decodes one stream for a client that reads the format that the server writes. One per stream.

    If the stream cannot move to another backend (`holds` is False), a first event without content is sent
    at once, provided that its id needs no change. The client then gets its first byte as soon as the server
    sends one.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        super().__init__(outgoing)
        self._chunks = ChunkRewriter(outgoing, self.state)
        self._counter = UsageCompleter()
        self._texts: list[bytes] = []
        self._length = 0
        self._shape: ChunkTemplate | None = None
        self._passed = 0
        self._passed_before = -1
        self._useless = 0
        self._out: list[bytes] = []
        self._begun = self._said = self._early = False

    def passed(self, chunk: bytes) -> bytes | None:
        shape = self._shape
        if shape is None or self._splitter.held:
            return None
        text = shape.text(chunk)
        if text is None:
            return self._passed_many(chunk)
        self._count(text)
        return shape.written(chunk, text)

    def _passed_many(self, chunk: bytes) -> bytes | None:
        """Return the bytes to pass on for a chunk of several whole events, or None. See `passed`."""
        shape = self._shape
        if shape is None or not chunk.endswith(_END) or chunk.find(_END) == len(chunk) - len(_END):
            return None
        events = [event + _END for event in chunk[: -len(_END)].split(_END)]
        texts = [text for event in events if (text := shape.text(event)) is not None]
        if len(texts) < len(events):
            return None
        for text in texts:
            self._count(text)
        return b"".join(map(shape.written, events, texts))

    def _count(self, text: bytes) -> None:
        self._passed += 1
        self._texts.append(text)
        self._length += len(text)
        if self._length > _UNCOUNTED:
            self._count_texts()

    def _count_texts(self) -> None:
        if self._texts:
            self._counter.add(jsontext.read_lenient(b'"%b"' % b"".join(self._texts)))
            self._texts.clear()
            self._length = 0

    # --- chunks that are parsed --------------------------------------------------------------------

    def _read(self, found: EventFields) -> None:
        shape = self._shape
        if shape is not None and found.raw is not None:
            event = found.raw + _END
            if (text := shape.text(event)) is not None:
                self._count(text)
                self._said = True
                self._out.append(shape.written(event, text))
                return
        super()._read(found)

    def _take(self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes | None) -> None:
        if raw is not None and not jsontext.is_standard(raw[5:]):
            raw = None
        self._shape = None if self.state.halved or self.state.ending else self._shape
        out = self._chunks.take(chunk, said)
        self._chunks.note(chunk, said, raw, sent=out is not None)
        if out is None:
            return
        self._early = self._early or out["id"] == chunk.get("id")
        for one in said:
            self._said = self._said or says(one.delta)
            self._begun = self._begun or not one.delta.empty
            self._counter.take(one.delta)
        same = raw is not None and out == chunk
        self._out.append((raw if same and raw is not None else written(out)) + _END)
        if raw is not None and not (self.state.halved or self.state.ending):
            self._learn(chunk, said, raw, out)

    def _learn(
        self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes, out: dict[str, Any]
    ) -> None:
        if self._useless >= _USELESS:
            return
        shape = shape_of(chunk, said, raw, out)
        if shape is not None:
            self._useless = self._useless + 1 if self._passed == self._passed_before else 0
            self._passed_before = self._passed
            self._shape = shape

    def _ready(self) -> list[Event]:
        if not self._out or not (self._begun or (self._early and not self.holds)):
            return []
        return [self._flushed()]

    def _flushed(self, finish: FinishReason | None = None) -> Passed:
        data, said = b"".join(self._out), self._said or finish is not None
        self._out.clear()
        self._said = False
        return Passed(data, finish, said)

    # --- the end -----------------------------------------------------------------------------------

    def _close(self, finishes: list[Event]) -> list[Event]:
        repairs = [event for event in finishes if isinstance(event, Repair)]
        for delta in self.state.rest():
            self._counter.take(delta)
            self._out.append(written(self._chunks.rest(delta)) + _END)
        reason: FinishReason | None = None
        for finish in finishes:
            if isinstance(finish, Finish):
                reason = finish.reason
                self._add(*self._chunks.finish(finish))
        usage = self.state.usage or self._estimate()
        if self._outgoing.usage_wanted:
            self._add(*self._chunks.usage(usage))
        return [*repairs, self._flushed(reason), usage]

    def _add(self, chunk: dict[str, Any], raw: bytes | None) -> None:
        self._out.append((written(chunk) if raw is None else raw) + _END)

    def _estimate(self) -> Usage:
        self._count_texts()
        return self._counter.usage(self._outgoing)
