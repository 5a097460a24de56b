"""The events of an answer: produced by every dialect, written by every door.

A generation is a sequence of `Delta`s, one `Finish` for each choice, and at most one `Usage`, in this
order. A complete (not streamed) answer is the same sequence, read at once. Events are named tuples because
these are the cheapest immutable values, and a stream has thousands of them.
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
    """A piece of a tool call. Its first piece has `id` and `name`; the arguments may be cut anywhere."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class Delta(NamedTuple):
    """A piece of one choice.

    `extras` are members of an OpenAI-like backend's delta that the gateway does not interpret (reasoning,
    refusal and others); they are passed on. So is `logprobs`.
    """

    text: str = ""
    tools: tuple[ToolPiece, ...] = ()
    choice: int = 0
    extras: Mapping[str, Any] = NO_EXTRAS
    logprobs: Any = None

    @property
    def empty(self) -> bool:
        """True if nothing of the delta would reach the client."""
        return not (self.text or self.tools or self.extras or self.logprobs)

    @property
    def counted(self) -> list[str]:
        """The texts that count as tokens. Reasoning counts once, even if two members hold it."""
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
    """The number of tokens of the whole generation, and the source of the count."""

    prompt: int
    completion: int
    source: UsageSource
    details: Mapping[str, Any] = NO_EXTRAS


class Repair(NamedTuple):
    """A fault of the backend that has been repaired. It is counted, and not shown to the client.

    A `note` is logged once for each backend.
    """

    what: str
    note: str = ""


class Passed(NamedTuple):
    """Bytes of an OpenAI-like backend that are passed on unchanged: events of a stream, or a complete answer.

    They include a usage chunk that the client asked for, but not `[DONE]`. `finish` is the finish reason in
    these bytes, if there is one. `content` is False if they hold nothing of the answer.
    """

    data: bytes
    finish: FinishReason | None = None
    content: bool = True


Event: TypeAlias = Delta | Finish | Usage | Repair | Passed
