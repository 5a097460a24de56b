"""Folds a conversation into question-and-answer pairs without losing text (rules T1 to T7).

ChatGLM-6B and ChatGLM2-6B have neither system messages nor tools, and need strictly alternating turns. So
every message becomes text: the parts of a message are joined, calls and tool results are described in
words, system texts are put before the next question, successive messages of one role are merged, and an
assistant message at the beginning gets an empty question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from gateway.errors import BadRequest
from gateway.formats.openai import ChatRequest, Message, text_of

JOINT = "\n\n"
AGREED = "好的。"
"""The model's answer to a system text, with `system = "pair"`."""


Side: TypeAlias = Literal["user", "assistant"]
Spoken: TypeAlias = tuple[Literal["system", "user", "assistant"], str]
"""A message as a role and a text."""


class Turn(NamedTuple):
    """Successive messages of one side. `order` holds all texts in order.

    `system` holds the system texts among them, because trimming a conversation must keep these.
    """

    role: Side
    order: tuple[str, ...]
    system: tuple[str, ...]
    text: str
    """All texts joined, without the empty ones."""


class FoldedConversation(NamedTuple):
    """A conversation as pairs of question and answer, and a last question."""

    pairs: tuple[tuple[Turn, Turn], ...]
    prompt: Turn

    @property
    def history(self) -> list[tuple[str, str]]:
        """The pairs as texts."""
        return [(question.text, answer.text) for question, answer in self.pairs]

    def without_oldest(self, count: int = 1) -> FoldedConversation:
        """Return the conversation without its `count` oldest pairs, but with their system texts."""
        system = tuple(text for question, _ in self.pairs[:count] for text in question.system)
        pairs = self.pairs[count:]
        if not system:
            return self._replace(pairs=pairs)
        if pairs:
            (following, answer), *later = pairs
            return self._replace(pairs=((_before(system, following), answer), *later))
        return FoldedConversation((), _before(system, self.prompt))


def fold(
    request: ChatRequest,
    *,
    system: Literal["merge", "pair"] = "merge",
    leading_assistant: Literal["pair", "fold"] = "pair",
) -> FoldedConversation:
    """Fold the messages of a request. Raises `BadRequest` that names the message."""
    spoken = plain_messages(request)
    if spoken[-1][0] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    opening = ""
    if system == "pair":
        opening, spoken = _lift_system(spoken)
    turns = _turns(spoken)
    if leading_assistant == "fold" and len(turns) > 1 and turns[0].role == "assistant":
        turns = [_after(turns[0].text, turns[1]), *turns[2:]]
    folded = _pair(turns)
    if opening:
        first = (_turn("user", (opening,), (opening,)), _turn("assistant", (AGREED,)))
        return folded._replace(pairs=(first, *folded.pairs))
    return folded


def plain_messages(request: ChatRequest) -> list[Spoken]:
    """Return every message as a role and a text (rules T5 for history, T6, T7)."""
    names: dict[str, str] = {}
    spoken: list[Spoken] = []
    for place, message in enumerate(request.messages):
        role, content = message.role, message.content
        if (role == "user" or role == "system") and isinstance(content, str):
            spoken.append((role, content))
            continue
        names.update((call.id, call.function.name) for call in message.calls if call.id)
        spoken.append(_plain(message, f"messages[{place}]", names))
    return spoken


def _plain(message: Message, where: str, names: dict[str, str]) -> Spoken:
    if message.role in ("system", "developer"):
        return "system", text_of(message, where)
    if message.role == "assistant":
        return "assistant", told(message, where)
    if message.role in ("tool", "function"):
        name = names.get(message.tool_call_id or "") or message.name or "tool"
        return "user", f"Tool {name} returned: {text_of(message, where)}"
    if message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    return "user", text_of(message, where)


def told(message: Message, where: str) -> str:
    """Return the text of an assistant message, with its calls in words."""
    lines = [f"Called {call.function.name} with {call.function.arguments}" for call in message.calls]
    text = text_of(message, where)
    return "\n".join([text, *lines] if text else lines)


def _lift_system(spoken: list[Spoken]) -> tuple[str, list[Spoken]]:
    """Return the system texts joined, and the other messages; "" if a system text is itself the question."""
    others = [one for one in spoken if one[0] != "system"]
    if not others or others[-1][0] == "assistant":
        return "", spoken
    return JOINT.join(text for role, text in spoken if role == "system" and text), others


def _turns(spoken: list[Spoken]) -> list[Turn]:
    """Return the turns. System texts join the next user turn; those at the end join the last question."""
    turns: list[Turn] = []
    side: Side = "user"
    order: list[str] = []
    system: list[str] = []
    waiting: list[str] = []
    for role, text in _question_last(spoken):
        if role == "system":
            waiting.append(text)
            continue
        if role != side:
            if order:
                turns.append(_turn(side, order, system))
            side, order, system = role, [], []
        if waiting and role == "user":
            system += waiting
            order += waiting
            waiting = []
        order.append(text)
    return [*turns, _turn(side, order, system)]


def _turn(role: Side, order: Sequence[str], system: Sequence[str] = ()) -> Turn:
    text = order[0] if len(order) == 1 else JOINT.join(filter(None, order))
    return Turn(role, tuple(order), tuple(system), text)


def _question_last(spoken: list[Spoken]) -> list[Spoken]:
    """Return the messages with a user message at the end.

    If only system texts follow the last user message, it moves behind them; else an empty one is added.
    """
    if spoken[-1][0] != "system":
        return spoken
    end = len(spoken)
    while end and spoken[end - 1][0] == "system":
        end -= 1
    if end and spoken[end - 1][0] == "user":
        return [*spoken[: end - 1], *spoken[end:], spoken[end - 1]]
    return [*spoken, ("user", "")]


def _pair(turns: list[Turn]) -> FoldedConversation:
    if len(turns) == 1:
        return FoldedConversation((), turns[0])
    if turns[0].role == "assistant":
        turns = [_turn("user", ()), *turns]
    pairs = tuple(zip(turns[0:-1:2], turns[1:-1:2], strict=True))
    return FoldedConversation(pairs, turns[-1])


def _before(system: tuple[str, ...], turn: Turn) -> Turn:
    return _turn(turn.role, system + turn.order, system + turn.system)


def _after(text: str, turn: Turn) -> Turn:
    return _turn(turn.role, (text, *turn.order), turn.system)
