"""A whole answer, `chat.completion`: choices put together from events, and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.formats import jsontext
from gateway.formats.events import Delta, Event, Finish, FinishReason, ToolPiece, Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """The `usage` member."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        **usage.details,
    }


def write_usage(usage: Usage) -> bytes:
    """The `usage` member as JSON."""
    if usage.details:
        return jsontext.write(usage_object(usage))
    prompt, completion = usage.prompt, usage.completion
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        prompt, completion, prompt + completion
    )  # fmt: skip


class AnswerChoice:
    """One choice of a whole answer, put together from its deltas."""

    __slots__ = ("calls", "extras", "finish", "logprobs", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.extras: dict[str, Any] = {}
        self.logprobs: Any = None
        self.finish: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        """Take one more piece."""
        if delta.text:
            self.texts.append(delta.text)
        for piece in delta.tools:
            self._add_tool(piece)
        for name, value in delta.extras.items():
            known = self.extras.get(name)
            self.extras[name] = known + value if isinstance(known, str) and isinstance(value, str) else value
        if delta.logprobs is not None:
            self.logprobs = _joined(self.logprobs, delta.logprobs)

    def _add_tool(self, piece: ToolPiece) -> None:
        call = self.calls.setdefault(
            piece.index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = piece.id or call["id"]
        call["function"]["name"] = piece.name or call["function"]["name"]
        call["function"]["arguments"] += piece.arguments

    @property
    def text(self) -> str:
        """All the text so far."""
        return "".join(self.texts)

    def message(self, legacy: bool) -> dict[str, Any]:
        """The `message` member; `legacy` gives the first call as `function_call`."""
        calls = [self.calls[index] for index in sorted(self.calls)]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if calls and not self.texts else self.text,
            "refusal": None,
            **self.extras,
        }
        if calls and legacy:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        return message

    def object(self, index: int, legacy: bool) -> dict[str, Any]:
        """The member of `choices`."""
        return {
            "index": index,
            "message": self.message(legacy),
            "logprobs": self.logprobs,
            "finish_reason": reason_for(self.finish or "stop", legacy),
        }

    def written(self, index: int, legacy: bool) -> bytes:
        """The same as JSON. Of most answers nothing differs but a text and how it ended."""
        if self.calls or self.extras or self.logprobs is not None:
            return jsontext.write(self.object(index, legacy))
        reason = reason_for(self.finish or "stop", legacy)
        return _PLAIN_CHOICE % (index, jsontext.write(self.text), reason.encode())


def _joined(before: Any, more: Any) -> Any:
    """The logprobs of two pieces as those of both."""
    if not (isinstance(before, dict) and isinstance(more, dict)):
        return more
    return {
        name: before[name] + value
        if isinstance(value, list) and isinstance(before.get(name), list)
        else value
        for name, value in more.items()
    }


_PLAIN_CHOICE = (
    b'{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null},'
    b'"logprobs":null,"finish_reason":"%b"}'
)


def reason_for(reason: FinishReason, legacy: bool) -> FinishReason:
    """The finish reason in the form the client speaks."""
    return "function_call" if legacy and reason == "tool_calls" else reason


def write_text(events: Sequence[Event]) -> tuple[bytes, Usage] | None:
    """The one choice of an answer that is a text and nothing else, as most are, and its usage; else None."""
    if len(events) != 3:
        return None
    delta, finish, usage = events
    if not (type(delta) is Delta and type(finish) is Finish and type(usage) is Usage):
        return None
    if delta.tools or delta.extras or delta.logprobs or delta.choice != finish.choice:
        return None
    return _PLAIN_CHOICE % (delta.choice, jsontext.write(delta.text), finish.reason.encode()), usage


def write_choices(choices: dict[int, AnswerChoice], legacy: bool) -> bytes:
    """All choices of a whole answer."""
    return b",".join([choices[index].written(index, legacy) for index in sorted(choices)])


def write_completion(*, answer_id: str, created: int, model: bytes, choices: bytes, usage: Usage) -> bytes:
    """A whole `chat.completion`. `model` and `choices` are JSON; the id, one of ours, needs no escapes."""
    return b'{"id":"%b","object":"chat.completion","created":%d,"model":%b,"choices":[%b],"usage":%b}' % (
        answer_id.encode(),
        created,
        model,
        choices,
        write_usage(usage),
    )
