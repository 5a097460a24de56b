"""Folds a modern conversation into question-and-answer pairs, losing nothing (rules T1 to T7).

ChatGLM-6B and ChatGLM2-6B know neither system messages nor tools, and want strict turns. Here every
message becomes text: parts are joined, calls and tool results are told in words, system texts stand
before the next question, runs of one role are merged, a leading assistant gets an empty question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

from gateway.errors import BadRequest
from gateway.wire.openai import ChatRequest, Message, text_of

JOINT = "\n\n"
AGREED = "好的。"
"""What the model is made to say to a system text under `system = "pair"`."""


class Turn(NamedTuple):
    """What one side said in a row. System texts are kept apart, so that trimming never loses them."""

    role: Literal["user", "assistant"]
    texts: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole text, empty pieces left out."""
        return JOINT.join(filter(None, self.order))


class Folded(NamedTuple):
    """A conversation as pairs and a last question."""

    pairs: tuple[tuple[Turn, Turn], ...]
    prompt: Turn

    @property
    def history(self) -> list[tuple[str, str]]:
        """The pairs as texts."""
        return [(question.text, answer.text) for question, answer in self.pairs]

    def without_oldest(self, count: int = 1) -> Folded:
        """The same without its `count` oldest pairs, whose system texts move to the next question."""
        system = tuple(text for question, _ in self.pairs[:count] for text in question.system)
        pairs = self.pairs[count:]
        if not system:
            return self._replace(pairs=pairs)
        if pairs:
            (following, answer), *later = pairs
            return self._replace(pairs=((_before(system, following), answer), *later))
        return Folded((), _before(system, self.prompt))


@dataclass(slots=True)
class Plain:
    """A message reduced to a text; `system` are the system texts that stand before it."""

    role: Literal["system", "user", "assistant"]
    text: str
    system: list[str] = field(default_factory=list)


def fold(
    request: ChatRequest,
    *,
    system: Literal["merge", "pair"] = "merge",
    leading_assistant: Literal["pair", "fold"] = "pair",
) -> Folded:
    """Fold the request's messages. Raises `BadRequest` that names the message."""
    messages = plain_messages(request)
    if messages[-1].role == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    opening = _lift_system(messages) if system == "pair" else None
    turns = _merge(_place_system(messages))
    if leading_assistant == "fold" and len(turns) > 1 and turns[0].role == "assistant":
        turns = [_after(turns[0].text, turns[1]), *turns[2:]]
    folded = _pair(turns)
    if opening:
        first = (Turn("user", system=(opening,), order=(opening,)), Turn("assistant", order=(AGREED,)))
        return folded._replace(pairs=(first, *folded.pairs))
    return folded


def plain_messages(request: ChatRequest) -> list[Plain]:
    """Every message as a role and a text (T5 history, T6, T7)."""
    names: dict[str, str] = {}
    plain: list[Plain] = []
    for place, message in enumerate(request.messages):
        if message.role == "user" and isinstance(message.content, str):
            plain.append(Plain("user", message.content))
            continue
        names.update((call.id, call.function.name) for call in message.calls if call.id)
        plain.append(_plain_one(message, f"messages[{place}]", names))
    return plain


def _plain_one(message: Message, where: str, names: dict[str, str]) -> Plain:
    if message.role in ("system", "developer"):
        return Plain("system", text_of(message, where))
    if message.role == "assistant":
        return Plain("assistant", told(message, where))
    if message.role in ("tool", "function"):
        name = names.get(message.tool_call_id or "") or message.name or "tool"
        return Plain("user", f"Tool {name} returned: {text_of(message, where)}")
    if message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    return Plain("user", text_of(message, where))


def told(message: Message, where: str) -> str:
    """Tell what an assistant message said, its calls in words."""
    lines = [f"Called {call.function.name} with {call.function.arguments}" for call in message.calls]
    text = text_of(message, where)
    return "\n".join([text, *lines] if text else lines)


def _lift_system(messages: list[Plain]) -> str:
    texts = [message.text for message in messages if message.role == "system" and message.text]
    others = [message for message in messages if message.role != "system"]
    if not others or others[-1].role == "assistant":
        return ""  # a system text that is itself the question stays where it is
    messages[:] = others
    return JOINT.join(texts)


def _place_system(messages: list[Plain]) -> list[Plain]:
    """Give each run of system texts to the next user message; a trailing one to the last question."""
    placed: list[Plain] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.text)
            continue
        if message.role == "user":
            message.system, waiting = waiting, []
        placed.append(message)
    if not waiting:
        return placed
    if placed and placed[-1].role == "user":
        placed[-1].system += waiting
    else:
        placed.append(Plain("user", "", waiting))
    return placed


def _merge(messages: list[Plain]) -> list[Turn]:
    return [
        _turn("assistant" if answers else "user", list(run))
        for answers, run in groupby(messages, key=lambda message: message.role == "assistant")
    ]


def _turn(role: Literal["user", "assistant"], run: list[Plain]) -> Turn:
    if len(run) == 1:
        (one,) = run
        return Turn(role, (one.text,), tuple(one.system), (*one.system, one.text))
    system = tuple(text for message in run for text in message.system)
    order = tuple(text for message in run for text in (*message.system, message.text))
    return Turn(role, tuple(message.text for message in run), system, order)


def _pair(turns: list[Turn]) -> Folded:
    if turns[0].role == "assistant":
        turns = [Turn("user"), *turns]
    pairs = tuple(zip(turns[0:-1:2], turns[1:-1:2], strict=True))
    return Folded(pairs, turns[-1])


def _before(system: tuple[str, ...], turn: Turn) -> Turn:
    return turn._replace(system=system + turn.system, order=system + turn.order)


def _after(text: str, turn: Turn) -> Turn:
    return turn._replace(texts=(text, *turn.texts), order=(text, *turn.order))
