"""The chunks of a streamed answer, `chat.completion.chunk`."""

from __future__ import annotations

from typing import Any

from gateway.formats import jsontext
from gateway.formats.events import Delta, FinishReason, ToolPiece, Usage
from gateway.formats.openai.answer import reason_for, write_usage

_AFTER_TEXT = b'},"logprobs":null,"finish_reason":null}]'


class ChunkWriter:
    """Writes the chunks of one stream. One per stream; keeps which choices have begun.

    Head and tail never change within a stream and are encoded once.
    """

    def __init__(
        self, *, answer_id: str, created: int, model: str, include_usage: bool, legacy: bool
    ) -> None:
        head = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: " + jsontext.write(head)[:-1]
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._legacy = legacy
        self._begun: set[int] = set()

    def delta(self, piece: Delta) -> bytes:
        """The chunks of one piece: the first of a choice is preceded by its role."""
        opening = b"" if piece.choice in self._begun else self._open(piece)
        if piece.text and not (piece.tools or piece.extras or piece.logprobs):
            return opening + self._text(piece.choice, piece.text)
        delta: dict[str, Any] = dict(piece.extras)
        if piece.text:
            delta["content"] = piece.text
        if piece.tools:
            self._add_tools(delta, piece.tools)
        if not delta and piece.logprobs is None:
            return opening
        return opening + self._chunk(piece.choice, delta, None, piece.logprobs)

    def _text(self, choice: int, text: str) -> bytes:
        # All but the text stays the same through the stream: encode the text alone.
        return b'%s,"choices":[{"index":%d,"delta":{"content":%s%s%s' % (
            self._head,
            choice,
            jsontext.write(text),
            _AFTER_TEXT,
            self._tail,
        )

    def finish(self, reason: FinishReason, choice: int = 0) -> bytes:
        """The last chunk of a choice."""
        opening = b"" if choice in self._begun else self._open(Delta(choice=choice))
        return opening + self._chunk(choice, {}, reason_for(reason, self._legacy), None)

    def usage(self, usage: Usage) -> bytes:
        """The usage chunk, which has no choices."""
        return self._head + b',"choices":[],"usage":' + write_usage(usage) + b"}\n\n"

    def _open(self, piece: Delta) -> bytes:
        self._begun.add(piece.choice)
        content = None if piece.tools and not piece.text else ""
        return self._chunk(piece.choice, {"role": "assistant", "content": content}, None, None)

    def _add_tools(self, delta: dict[str, Any], pieces: tuple[ToolPiece, ...]) -> None:
        if self._legacy:
            for piece in pieces:
                if piece.index == 0:  # the old form has one call
                    name = {} if piece.name is None else {"name": piece.name}
                    delta["function_call"] = {**name, "arguments": piece.arguments}
        else:
            delta["tool_calls"] = [tool_object(piece) for piece in pieces]

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None, logprobs: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._head + b',"choices":[' + jsontext.write(choice) + b"]" + self._tail


def tool_object(piece: ToolPiece) -> dict[str, Any]:
    """A piece of a call, as a member of a delta's `tool_calls`."""
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name is None:
        return {"index": piece.index, "function": function}
    return {
        "index": piece.index,
        "id": piece.id,
        "type": "function",
        "function": {"name": piece.name, **function},
    }
