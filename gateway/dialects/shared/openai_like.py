"""Reads the answers of OpenAI-like servers, which often differ from OpenAI's format.

The functions from `read_object` to `usage_of` read single values. `ChunkDecoder` reads a stream and handles
all known ways in which a stream ends. A missing, repeated or wrongly typed value results in a repair or an
error, never in a wrong answer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import Decoder, Profile
from gateway.dialects.shared.calls import ToolCallAssembler, calls_in
from gateway.dialects.shared.finish_reasons import reason_of
from gateway.dialects.shared.refusals import report_of, reported, told_in
from gateway.errors import (
    UnsupportedParameter,
    UpstreamEmpty,
    UpstreamGarbled,
    UpstreamTruncated,
)
from gateway.formats import jsontext, sse, token_counts
from gateway.formats.events import NO_EXTRAS, Delta, Event, Finish, FinishReason, Repair, ToolPiece, Usage
from gateway.formats.openai import ChatRequest

DONE = "[DONE]"
"""The data of the last event of a complete stream."""

_COUNTED = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
"""The members of a usage that the gateway reads. All other members are passed on unchanged."""

_NAMES_OF_COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
_LONGEST_COUNT = 9

# --- requests --------------------------------------------------------------------------------------


def sampling(request: ChatRequest, profile: Profile) -> dict[str, Any]:
    """Return temperature and top_p for servers that decode greedily at temperature 0.

    A top_p of 0 is sent as 0.01, which keeps only the most likely token. chatglm.cpp would read 0 as "off",
    and vLLM refuses it.
    """
    sampling: dict[str, Any] = {}
    if request.temperature is not None:
        sampling["temperature"] = min(request.temperature, profile.max_temperature or request.temperature)
    if request.top_p is not None:
        sampling["top_p"] = request.top_p or 0.01
    return sampling


def offered_tools(request: ChatRequest, **defaults: Any) -> list[dict[str, Any]]:
    """Return the offered functions in the current form, with only the members that these servers know.

    `defaults` are the values of members that the client left out. Raises `UnsupportedParameter` for a tool
    that is not a function.
    """
    offered: list[dict[str, Any]] = []
    for place, tool in enumerate(request.offered):
        if tool.function is None:
            raise UnsupportedParameter(
                "This model's tools are functions; leave other types out.", param=f"tools[{place}].type"
            )
        given = tool.function.model_dump(include={"name", "description", "parameters"}, exclude_none=True)
        offered.append({"type": "function", "function": {**defaults, **given}})
    return offered


def tool_names(offered: list[dict[str, Any]]) -> frozenset[str]:
    """Return the names of the offered functions."""
    return frozenset(tool["function"]["name"] for tool in offered)


def choice_name(request: ChatRequest) -> str:
    """Return the name of the parameter in which the client sent its choice of tools."""
    return "function_call" if request.legacy_functions else "tool_choice"


# --- answers ---------------------------------------------------------------------------------------


def read_object(raw: bytes | str) -> dict[str, Any]:
    """Parse one JSON object from a backend.

    Raises `UpstreamGarbled` if `raw` is anything else. If `raw` is an error report, raises the error that
    `refusals` derives from it.
    """
    try:
        value = jsontext.read_lenient(raw)
        if isinstance(value, str):  # GLM-4's server of June 2024 encodes its first chunk twice
            raw = value
            value = jsontext.read_lenient(value)
    except ValueError:
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        raise told_in(text) or UpstreamGarbled("The backend's answer is not JSON.") from None
    error = reported(value)
    if error is not None:
        raise error
    if not isinstance(value, dict):
        raise UpstreamGarbled("The backend's answer is not a JSON object.")
    return value


def choices_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of an answer or chunk. Raises `UpstreamGarbled` if they are no list of objects."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamGarbled("The backend's answer has no list of choices.")
    return choices


def message_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a choice of a complete answer. Raises `UpstreamGarbled`."""
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UpstreamGarbled("The backend's answer has no message.")
    return message


def only_choice(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first choice of a complete answer and its message. Raises `UpstreamGarbled`."""
    choices = choices_of(answer)
    if not choices:
        raise UpstreamGarbled("The backend's answer has no choice.")
    return choices[0], message_of(choices[0])


def index_of(choice: dict[str, Any], place: int) -> int:
    """Return the index of a choice. Without a valid index, return `place`, its position in the list.

    chatglm.cpp sends no index.
    """
    index = choice.get("index")
    return index if token_counts.plausible(index) else place


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message or delta; "" if it has none. Raises `UpstreamGarbled` for other types."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, list) and content:  # a list of content parts, in the form that requests use
        return "".join(map(_text_of_part, content))
    if not isinstance(content, str):
        raise UpstreamGarbled("The content of the backend's answer is not text.")
    return content


def _text_of_part(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        raise UpstreamGarbled("The content of the backend's answer is not text.")
    return text


def required_text(message: dict[str, Any]) -> str:
    """Return the text of a message that must have content. Raises `UpstreamGarbled`."""
    if message.get("content") is None:
        raise UpstreamGarbled("The backend's answer has no content.")
    return text_of(message)


def usage_of(answer: dict[str, Any]) -> Usage | None:
    """Return the usage that the backend counted, or None if it is missing or implausible."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not token_counts.both_plausible(prompt, completion):
        prompt, completion = _respelt(usage)
    if prompt is None or completion is None:
        return None
    if len(usage) == len(_COUNTED) and "total_tokens" in usage:
        return Usage(prompt, completion, "backend", NO_EXTRAS)
    details = {
        name: _counts_in(value) if isinstance(value, dict) else value
        for name, value in usage.items()
        if name not in _COUNTED and (type(value) is not int or token_counts.plausible(value))
    }
    return Usage(prompt, completion, "backend", details)


def _respelt(usage: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the prompt and completion counts of a usage with other member names or types than OpenAI's.

    If one of the two counts is missing, it is computed from the total.
    """
    prompt, completion = (_count_of(usage, names) for names in _NAMES_OF_COUNTS)
    total = _count_of(usage, ("total_tokens",))
    told = [any(usage.get(name) is not None for name in names) for names in _NAMES_OF_COUNTS]
    if total is None or all(told) or not any(told):
        return prompt, completion
    known = completion if prompt is None else prompt
    if known is None or known > total:
        return None, None
    return (total - known, known) if prompt is None else (known, total - known)


def _count_of(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    given: Any = next((usage[name] for name in names if usage.get(name) is not None), None)
    digits = isinstance(given, str) and given.isdecimal() and len(given) <= _LONGEST_COUNT
    if digits or (isinstance(given, float) and given.is_integer()):
        given = int(given)
    return given if token_counts.plausible(given) else None


def _counts_in(details: dict[str, Any]) -> dict[str, int | None]:
    """Return the members of a usage's details that are counts or null."""
    return {name: value for name, value in details.items() if value is None or token_counts.plausible(value)}


def parses_to_object(text: str) -> bool:
    """Return True if the arguments of a call are the JSON text of an object, without NaN or infinity."""
    try:
        return isinstance(jsontext.read_finite(text), dict)
    except ValueError:
        return False


# --- streams ---------------------------------------------------------------------------------------


class ChunkDecoder(Decoder):
    """Reads a stream of `chat.completion.chunk` objects. One per stream. Subclasses override single steps.

    A choice ends with its first finish reason. Content that arrives for the choice after that is dropped.
    `[DONE]` without a finish reason, and a finish reason without `[DONE]`, are repaired. A stream that ends
    with neither is truncated. `counts` is True if usage in the chunks is trusted.
    """

    counts: ClassVar[bool] = False

    def __init__(self) -> None:
        self._reasons: dict[int, FinishReason | None] = {}
        self._normal: dict[int, ToolCallAssembler] = {}
        self._called: set[int] = set()
        self._usage: Usage | None = None

    # Steps that dialects override.

    def delta(
        self,
        choice: dict[str, Any],  # noqa: ARG002 - a default
        delta: dict[str, Any],
        index: int,
    ) -> Delta:
        """Return the content of one delta object."""
        return Delta(text_of(delta), self.calls(delta, index), index)

    def calls(self, delta: dict[str, Any], index: int) -> tuple[ToolPiece, ...]:
        """Return the pieces of calls in one delta object."""
        given = calls_in(delta)
        return self._normal.setdefault(index, ToolCallAssembler()).take(given) if given else ()

    def pieces(self, delta: Delta) -> list[Event]:
        """Return the events to pass on for a delta. A `Finish` at the end of the list ends the choice."""
        return [] if delta.empty else [delta]

    def reason(self, reason: FinishReason) -> FinishReason:
        """Return the finish reason to report for the backend's finish reason."""
        return reason

    def done_expected(self) -> bool:
        """Return True if the stream is incomplete without `[DONE]`, so that a repair is reported."""
        return True

    # Steps that are the same for all dialects.

    @property
    def finished(self) -> bool:
        return self.begun and None not in self._reasons.values()

    @property
    def begun(self) -> bool:
        """True once any chunk with a choice has arrived."""
        return bool(self._reasons)

    @property
    def reasons(self) -> list[FinishReason | None]:
        """The finish reason of each choice that has begun; None while it has not ended."""
        return list(self._reasons.values())

    def feed(self, event: sse.SseEvent) -> list[Event]:
        data = event.data.strip()
        if self.done or not data:
            return []
        if sse.is_mark(data):
            return self._finish_all()
        if event.type == "error":
            raise report_of(data)
        chunk = read_object(data)
        usage = usage_of(chunk) if self.counts else None
        self._usage = usage or self._usage
        if usage is not None and chunk.get("choices") is None:
            return []
        choices = choices_of(chunk)
        return [event for place, choice in enumerate(choices) for event in self._choice(choice, place)]

    def end(self, *, clean: bool) -> list[Event]:  # noqa: ARG002 - for dialects whose streams have no end mark
        if self.done:
            return []
        if not self._reasons or None in self._reasons.values():
            raise UpstreamTruncated("The backend's answer broke off.")
        self.done = True
        return [*([Repair("missing_done")] if self.done_expected() else []), *self._counted()]

    def _choice(self, choice: dict[str, Any], place: int) -> list[Event]:
        index = index_of(choice, place)
        if self._reasons.setdefault(index, None) is not None:
            return []
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise UpstreamGarbled("A chunk of the backend's answer has no delta.")
        events = self.pieces(self.delta(choice, delta, index))
        if any(isinstance(event, Delta) and event.tools for event in events):
            self._called.add(index)
        if events and isinstance(events[-1], Finish):
            self._reasons[index] = events[-1].reason
        elif reason := reason_of(choice.get("finish_reason")):
            events += self._finish(index, reason)
        return events

    def _finish(self, index: int, reason: FinishReason) -> list[Event]:
        """Return the end of a choice, preceded by the rest of its calls.

        In a choice with calls, "stop" becomes "tool_calls". In a choice without calls, "tool_calls" becomes
        "stop".
        """
        left = self._normal[index].rest(fill=False) if index in self._normal else ()
        events = self.pieces(Delta(tools=left, choice=index)) if left else []
        if reason in ("stop", "tool_calls"):
            reason = "tool_calls" if index in self._called else "stop"
        given = self._reasons[index] = self.reason(reason)
        return [*events, Finish(given, index)]

    def _finish_all(self) -> list[Event]:
        if not self._reasons:
            raise UpstreamEmpty("The backend ended its stream without an answer.")
        self.done = True
        left = [index for index, reason in self._reasons.items() if reason is None]
        finishes = [event for index in left for event in self._finish(index, "stop")]
        return [*([Repair("no_finish")] if left else []), *finishes, *self._counted()]

    def _counted(self) -> list[Event]:
        return [self._usage] if self._usage else []
