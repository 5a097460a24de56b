"""The meaning of the chunks of an answer. Shared by the reader of typed events and the pass-through of bytes.

An `AnswerState` reads each chunk as a parsed object and returns what the chunk adds to each choice. At the
end it returns the finish reason of each choice. A complete answer is read as one chunk whose deltas are
whole messages.

Rules:
- A finish reason is stored and reported once, at the end, because some servers send a finish reason with
  every chunk or before the last content.
- If the server sent `[DONE]` or a complete answer without a finish reason, the reason is "stop". A stream
  that ends with neither `[DONE]` nor a finish reason is truncated.
- In a choice with tool calls, "stop" becomes "tool_calls". In a choice without them, "tool_calls" becomes
  "stop".
- If an answer holds several usages, the last plausible usage is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.dialects.shared.calls import ToolCallAssembler, calls_in, join_halves
from gateway.dialects.shared.finish_reasons import reason_of, unknown_word
from gateway.dialects.shared.openai_like import choices_of, index_of, text_of, usage_of
from gateway.dialects.shared.refusals import reported
from gateway.errors import UpstreamEmpty, UpstreamGarbled, UpstreamTruncated
from gateway.formats.events import NO_EXTRAS, Delta, Event, Finish, FinishReason, Repair, Usage

REASONING = ("reasoning_content", "reasoning")
"""The two names under which servers send reasoning text. Clients read one name or the other."""
MOST_CHOICES = 256
"""Maximum number of choices in one answer."""

_READ = frozenset({"role", "content", "tool_calls", "function_call"})
"""Members of a message or delta that `Delta` has fields for. All other members become `extras`."""
_CALLS = ("tool_calls", "function_call")
_TWIN = {REASONING[0]: REASONING[1], REASONING[1]: REASONING[0]}


class ChunkMeaning(NamedTuple):
    """What one chunk adds to one choice.

    Attributes:
        place: the index of the choice in the answer.
        delta: the added content.
        members: the delta or message object as the server sent it, with reasoning under the standard name.
        choice: the whole choice object as the server sent it.
    """

    place: int
    delta: Delta
    members: dict[str, Any]
    choice: dict[str, Any]


def says(delta: Delta) -> bool:
    """Return True if a delta holds text, arguments or extras.

    The start of a tool call alone does not count.
    """
    return bool(delta.text) or any(piece.arguments for piece in delta.tools) or any(delta.extras.values())


class _ChoiceState:
    """The state of one choice. Lives as long as its `AnswerState`.

    Attributes:
        calls: the tool calls of the choice.
        halves: for each text member, half a surrogate pair that waits for its other half.
        opened: True once a chunk of the choice has been sent to the client.
        said: names of the members that deltas have filled.
        reason: the finish reason so far.
        reopened: True if content arrived after the latest finish reason.
        wrong: True if content has ever arrived after a finish reason.
        doubtful: True if the finish reason came in a chunk with content, as in a stream where every chunk
            has a finish reason.
    """

    __slots__ = ("calls", "doubtful", "halves", "opened", "reason", "reopened", "said", "wrong")

    def __init__(self) -> None:
        self.calls = ToolCallAssembler()
        self.halves: dict[str, str] = {}
        self.opened = False
        self.said: set[str] = set()
        self.reason: FinishReason | None = None
        self.reopened = self.wrong = self.doubtful = False

    def joined(self, name: str, text: str) -> str:
        """Return a member's text, joined with half a surrogate pair that ended the previous piece.

        Half a surrogate pair at the end of `text` is kept for the next call.
        """
        half = self.halves.pop(name, "")
        if not (half or (text and "\ud800" <= text[-1] <= "\udbff")):
            return text
        text, half = join_halves(half, text)
        if half:
            self.halves[name] = half
        return text

    def note(self, delta: Delta) -> None:
        """Record which members a delta has filled."""
        if delta.text:
            self.said.add("content")
        if delta.tools:
            self.said.update(_CALLS)
        self.said.update(delta.extras)

    def unsaid(self, members: dict[str, Any]) -> dict[str, Any]:
        """Return the members of a whole message that the deltas before it have not filled.

        Some servers end a stream of deltas with the whole message.
        """
        return {name: value for name, value in members.items() if name not in self.said}

    def finish(self) -> FinishReason:
        """Return the finish reason to report. It depends on whether the choice has tool calls."""
        reason = self.reason or "stop"
        if reason in ("stop", "tool_calls"):
            return "tool_calls" if len(self.calls) else "stop"
        return reason


class AnswerState:
    """The state of all choices of one answer. One per answer.

    `usage` is the last plausible usage so far. With `single`, the client asked for one choice: the first
    choice of each chunk is read as choice 0, and further choices are ignored.
    """

    def __init__(self, *, single: bool = False) -> None:
        self._single = single
        self._choices: dict[int, _ChoiceState] = {}
        self.usage: Usage | None = None
        self._unknown = ""

    @property
    def begun(self) -> bool:
        """True once any choice has begun."""
        return bool(self._choices)

    @property
    def finished(self) -> bool:
        """True if each choice that has begun has a finish reason and no content arrived after that reason."""
        choices = self._choices.values()
        return bool(choices) and all(one.reason is not None and not one.reopened for one in choices)

    @property
    def doubtful(self) -> bool:
        """True if content may still arrive although each choice has a finish reason."""
        return any(one.doubtful or one.wrong for one in self._choices.values())

    @property
    def ending(self) -> bool:
        """True once any choice has a finish reason."""
        return any(one.reason is not None for one in self._choices.values())

    @property
    def halved(self) -> bool:
        """True if half a surrogate pair waits for its other half."""
        return any(one.halves for one in self._choices.values())

    def take(self, chunk: dict[str, Any]) -> list[ChunkMeaning]:
        """Read one chunk; return what it adds to each of its choices.

        Raises `UpstreamGarbled` if the chunk is malformed, and the error that `refusals` derives if the
        chunk reports a failure.
        """
        self.usage = usage_of(chunk) or self.usage
        if "x_groq" in chunk and isinstance(groq := chunk["x_groq"], dict):
            self.usage = usage_of(groq) or self.usage
        if chunk.get("choices") is None:
            if "choices" in chunk or "usage" in chunk:
                return []
            raise UpstreamGarbled("A chunk of the backend's answer has no choices.")
        choices = choices_of(chunk)
        if self._single and len(choices) > 1:
            choices = choices[:1]
        return [self._choice(choice, place) for place, choice in enumerate(choices)]

    def _choice(self, choice: dict[str, Any], place: int) -> ChunkMeaning:
        if (error := choice.get("error")) and (told := reported({"error": error})) is not None:  # OpenRouter
            raise told
        index = 0 if self._single else index_of(choice, place)
        state = self._choices.get(index)
        if state is None:
            if len(self._choices) >= MOST_CHOICES:
                raise UpstreamGarbled("The backend's answer has too many choices.")
            state = self._choices[index] = _ChoiceState()
        members = _members(choice)
        if state.said and choice.get("delta") is None and "message" in choice:
            members = state.unsaid(members)
        delta = self._delta(state, members, choice.get("logprobs"), index)
        if state.reason is not None and not delta.empty:
            state.reopened = state.wrong = True
        if "usage" in choice:  # Moonshot puts usage in the choice of the last chunk
            self.usage = usage_of(choice) or self.usage
        new = delta.tools or delta.extras or (delta.text and "content" not in state.said)
        if new and "delta" in choice:
            state.note(delta)
        if (word := choice.get("finish_reason")) is not None and (reason := reason_of(word)) is not None:
            self._unknown = self._unknown or unknown_word(word)
            state.reopened, state.doubtful = False, not delta.empty
            if state.reason is None or reason != "stop":
                state.reason = reason
        return ChunkMeaning(index, delta, members, choice)

    def _delta(self, state: _ChoiceState, members: dict[str, Any], logprobs: Any, index: int) -> Delta:
        text = state.joined("content", text_of(members))
        given = calls_in(members)
        tools = state.calls.take(given) if given else ()
        extras = NO_EXTRAS if _READ.issuperset(members) else _extras(state, members)
        return Delta(text, tools, index, extras, logprobs)

    def opened(self, index: int) -> bool:
        """Return True if a chunk of this choice has been sent to the client."""
        return self._choices[index].opened

    def opens(self, index: int) -> bool:
        """Mark a choice as opened. Return True if no chunk of the choice had been sent to the client."""
        state = self._choices[index]
        opens, state.opened = not state.opened, True
        return opens

    def rest(self) -> list[Delta]:
        """Return the deltas that were held back, at the end of the answer.

        They hold U+FFFD for half a surrogate pair, and an empty object as the arguments of a call without
        arguments.
        """
        rests: list[Delta] = []
        for index, state in sorted(self._choices.items()):
            text = state.halves.pop("content", "")
            extras = dict.fromkeys(REASONING, "\ufffd") if state.halves else NO_EXTRAS
            state.halves = {}
            delta = Delta("\ufffd" if text else "", state.calls.rest(), index, extras)
            if not delta.empty:
                rests.append(delta)
        return rests

    def finishes(self, *, done: bool, clean: bool = True) -> list[Event]:
        """Return the `Finish` of each choice, preceded by a `Repair` for each fault that was corrected.

        Args:
            done: True if the server sent its end mark, or a complete answer.
            clean: True if the body ended as its HTTP framing says.

        Raises `UpstreamTruncated` if the answer is incomplete, `UpstreamEmpty` if the stream ended without
        any choice.
        """
        if not self._choices:
            if done:
                raise UpstreamEmpty("The backend ended its stream without an answer.")
            raise UpstreamTruncated("The backend's answer broke off.")
        doubtful = not clean and any(state.wrong for state in self._choices.values())
        if not done and (doubtful or not self.finished):
            raise UpstreamTruncated("The backend's answer broke off.")
        events: list[Event] = []
        if any(state.reason is None for state in self._choices.values()):
            events.append(Repair("no_finish"))
        if self._unknown:
            events.append(Repair("unknown_finish", f"unknown finish reason: {self._unknown}"))
        return [*events, *(Finish(state.finish(), index) for index, state in sorted(self._choices.items()))]


def require_messages(said: list[ChunkMeaning]) -> None:
    """Raise `UpstreamGarbled` if a complete answer has no choice, or has a choice without a message."""
    if not said:
        raise UpstreamGarbled("The backend's answer has no choice.")
    if not all(any(name in one.choice for name in ("message", "delta", "text")) for one in said):
        raise UpstreamGarbled("The backend's answer has no message.")


def _members(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the delta of a choice. Without a delta, return its message, or its `text` as the content."""
    members = choice.get("delta")
    if members is None:
        members = choice.get("message")
    if members is None:
        text = choice.get("text")
        return {"content": text} if isinstance(text, str) else {}
    if not isinstance(members, dict):
        if members in ([], "") and "delta" in choice:  # PHP encodes an empty object as a list
            return {}
        raise UpstreamGarbled("A choice of the backend's answer has neither a delta nor a message.")
    if "thinking" in members or isinstance(members.get("content"), list):
        return _with_reasoning(members)
    return members


def _with_reasoning(members: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the members with reasoning text as `reasoning_content`.

    Ollama sends reasoning as `thinking`. Mistral sends it among the parts of the content.
    """
    thoughts, content = members.get("thinking"), members.get("content")
    if isinstance(content, list):
        thoughts = "".join(_thought(part) for part in content) or thoughts
        parts = [part for part in content if not (isinstance(part, dict) and part.get("type") == "thinking")]
        members = {**members, "content": parts or None}
    if isinstance(thoughts, str) and thoughts and not any(map(members.get, REASONING)):
        members = {**members, REASONING[0]: thoughts}
    return members


def _thought(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "thinking":
        return ""
    thinking = part.get("thinking")
    return text_of({"content": thinking}) if isinstance(thinking, str | list) and thinking else ""


def _extras(state: _ChoiceState, members: dict[str, Any]) -> dict[str, Any]:
    extras = {
        name: value
        for name, value in members.items()
        if name not in _READ and value is not None and value != ""
    }
    for name in REASONING:
        if isinstance(given := extras.get(name), str):
            text = state.joined("reasoning", given)
            if extras.get(_TWIN[name], given) == given:
                extras[_TWIN[name]] = text
            extras[name] = text
            break
    return extras
