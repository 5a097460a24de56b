"""The pieces of an answer, spoken by every dialect and written by every door.

A generation is a sequence of `Delta`s, one `Finish` for each choice, and at most one `Usage`, in this
order. A whole (not streamed) answer is the same sequence, read at once. They are tuples: nothing that cannot
change is made in less time, and a stream makes thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
UsageSource: TypeAlias = Literal["backend", "tokenizer", "estimate"]

NO_EXTRAS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ToolPiece:
    """A piece of a tool call: `id` and `name` come with its first piece; arguments may be cut anywhere."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class Delta(NamedTuple):
    """A piece of one choice.

    `extras` are members of an OpenAI-like backend's delta that we do not know (reasoning, refusal, ...);
    they pass unread. `logprobs` likewise.
    """

    text: str = ""
    tools: tuple[ToolPiece, ...] = ()
    choice: int = 0
    extras: Mapping[str, Any] = NO_EXTRAS
    logprobs: Any = None

    @property
    def empty(self) -> bool:
        """Whether nothing of it would reach the client."""
        return not (self.text or self.tools or self.extras or self.logprobs)

    @property
    def counted(self) -> list[str]:
        """The texts that count as tokens: reasoning once, though it may stand under two names."""
        texts = [self.text, *((piece.name or "") + piece.arguments for piece in self.tools)]
        if self.extras:
            reasoning = self.extras.get("reasoning_content") or self.extras.get("reasoning")
            if isinstance(reasoning, str):
                texts.append(reasoning)
        return texts


class Finish(NamedTuple):
    """The end of one choice."""

    reason: FinishReason
    choice: int = 0


class Usage(NamedTuple):
    """Tokens of the whole generation, and who counted them."""

    prompt: int
    completion: int
    source: UsageSource
    details: Mapping[str, Any] = NO_EXTRAS


class Repair(NamedTuple):
    """A fault of the backend that was repaired on the way; counted, never shown to the client.

    A `note` is logged, once for each backend.
    """

    what: str
    note: str = ""


class Passed(NamedTuple):
    """Bytes of an OpenAI-like backend that go on as they came: whole events of a stream, or a whole answer.

    A usage chunk that the client asked for is among them; `[DONE]` is not. `finish` is the finish reason
    among them, if there is one; without `content` there is nothing of the answer among them.
    """

    data: bytes
    finish: FinishReason | None = None
    content: bool = True


Event: TypeAlias = Delta | Finish | Usage | Repair | Passed
