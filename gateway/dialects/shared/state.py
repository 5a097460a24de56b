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
"""Two names of one member: servers send either, clients read either."""
MOST_CHOICES = 256
"""Maximum number of choices of one answer."""

_READ = frozenset({"role", "content", "tool_calls", "function_call"})
"""Members of a message or delta that have their own fields in `Delta`."""
_CALLS = ("tool_calls", "function_call")
_TWIN = {REASONING[0]: REASONING[1], REASONING[1]: REASONING[0]}


class ChunkMeaning(NamedTuple):
    """What a chunk adds to the choice with the index `place`. `members` is its delta as received."""

    place: int
    delta: Delta
    members: dict[str, Any]
    choice: dict[str, Any]


def says(delta: Delta) -> bool:
    """Return True if a delta holds content; a call without arguments is not content yet."""
    return bool(delta.text) or any(piece.arguments for piece in delta.tools) or any(delta.extras.values())


class _ChoiceState:
    """The state of one choice.

    `said` are the members that deltas have filled. `reopened` is True if something came after the finish
    reason, and `wrong` if that has ever happened. `doubtful` is True if the finish reason came in a chunk
    with content, as with servers that send one in every chunk.
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
        """Return the text of a member, preceded by half a surrogate pair from the end of the piece before."""
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
        """Return the part of a final complete message that the deltas before it did not contain."""
        return {name: value for name, value in members.items() if name not in self.said}

    def finish(self) -> FinishReason:
        """The finish reason to send."""
        reason = self.reason or "stop"
        if reason in ("stop", "tool_calls"):
            return "tool_calls" if len(self.calls) else "stop"
        return reason


class AnswerState:
    """The state of all choices of one answer.

    With `single`, one choice was asked for: the first choice of each chunk is it, whatever its index.
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
        """True if every choice that has begun has a finish reason, and nothing came after it."""
        choices = self._choices.values()
        return bool(choices) and all(one.reason is not None and not one.reopened for one in choices)

    @property
    def doubtful(self) -> bool:
        """True if content may still come although every choice has a finish reason."""
        return any(one.doubtful or one.wrong for one in self._choices.values())

    @property
    def ending(self) -> bool:
        """True once any choice has had a finish reason."""
        return any(one.reason is not None for one in self._choices.values())

    @property
    def halved(self) -> bool:
        """True while half a surrogate pair waits for its other half."""
        return any(one.halves for one in self._choices.values())

    def take(self, chunk: dict[str, Any]) -> list[ChunkMeaning]:
        """Read one chunk. Raises `UpstreamGarbled`, and `UpstreamError` if the chunk reports a failure."""
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
        """Return True if a choice has begun for the client."""
        return self._choices[index].opened

    def opens(self, index: int) -> bool:
        """Mark a choice as begun for the client; return True if it had not begun."""
        state = self._choices[index]
        opens, state.opened = not state.opened, True
        return opens

    def rest(self) -> list[Delta]:
        """Return what was held back: half characters, and empty arguments for calls without any."""
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
        """Return the finish of each choice, and the repairs that were needed.

        `done` is True if the server said that the answer is complete; `clean` if the body ended as its
        framing says. Raises `UpstreamTruncated` and `UpstreamEmpty`.
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
    """Raise `UpstreamGarbled` for a complete answer without a choice, or with a choice without a message."""
    if not said:
        raise UpstreamGarbled("The backend's answer has no choice.")
    if not all(any(name in one.choice for name in ("message", "delta", "text")) for one in said):
        raise UpstreamGarbled("The backend's answer has no message.")


def _members(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the delta of a choice, or the message that is in its place."""
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
    """Return the members with reasoning under the name that clients know.

    Ollama sends it as `thinking`, Mistral as parts of the content.
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
