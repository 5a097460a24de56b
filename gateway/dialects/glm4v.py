"""GLM-4V behind its own `glm4v_server.py`: questions with images.

The server knows no system role and requires alternating turns. Its streams have neither a finish reason nor
an end mark: they end with an empty delta and a clean close. Its token counts can be negative. Images are
URLs, which the server opens, not the gateway. Source: THUDM/GLM-4 `basic_demo/glm4v_server.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget, pictures
from gateway.dialects.shared.counting import count_messages
from gateway.dialects.shared.fitting import Sent, messages_to_fit
from gateway.dialects.shared.folding import AGREED, JOINT, told
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.openai_like import (
    ChunkDecoder,
    only_choice,
    read_object,
    required_text,
    sampling,
)
from gateway.dialects.shared.prompt_history import refuse_tools
from gateway.errors import BadRequest, UpstreamTruncated
from gateway.formats import jsontext
from gateway.formats.events import Delta, Event, Finish
from gateway.formats.openai import ChatRequest, Message, text_of

Content: TypeAlias = str | list[dict[str, Any]]
"""A text, or content parts as the client sent them."""

_SENT = frozenset({"temperature", "top_p", "max_tokens", "max_completion_tokens"})
_PARTS = ("text", "image_url")


class GLM4VDialect(Dialect):
    """A server for one request at a time. A generation cannot be cancelled."""

    name = "glm4v"
    context: ClassVar[int] = 8192
    ranges = allowed.NATIVE

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        kept, prompt_tokens = messages_to_fit(
            _plain_messages(request),
            profile,
            context,
            lambda sent: count_messages([_text(turn["content"]) for turn in _turns(sent, profile)]),
        )
        wanted = budget.wanted_output(request, profile, prompt_tokens)
        most = budget.clamped(wanted, prompt_tokens, context)
        body = {
            "model": profile.model,
            "messages": _answered(_turns(kept, profile)),
            "max_tokens": most,
            **allowed.greedy(sampling(request, profile)),
            **({"stream": True} if stream else {}),
        }
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(body, large=request.large),
            streams=stream,
            prompt=prompt_tokens,
            budget=most,
            ignored=lost(request, profile, _SENT, refuse_tools(request, profile)),
            abandon="drain",  # not "probe": the server answers probes while it generates
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:  # noqa: ARG002 - no facts of the request are needed
        _, message = only_choice(read_object(body))
        text = required_text(message)
        said: list[Event] = [Delta(text)] if text else []
        return [*said, Finish("stop")]

    def decoder(self, outgoing: Outgoing) -> Decoder:  # noqa: ARG002 - no facts of the request are needed
        return _GLM4VDecoder()


class _GLM4VDecoder(ChunkDecoder):
    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def delta(self, choice: dict[str, Any], delta: dict[str, Any], index: int) -> Delta:
        self._closing = not delta
        return super().delta(choice, delta, index)

    @property
    def finished(self) -> bool:
        return self.begun and (self._closing or None not in self.reasons)

    def end(self, *, clean: bool) -> list[Event]:
        if self.done or None not in self.reasons:
            return super().end(clean=clean)
        if not (clean and self._closing):
            raise UpstreamTruncated("The backend's answer broke off.")
        self.done = True
        return [Finish("stop")]

    def done_expected(self) -> bool:
        return False


# --- messages --------------------------------------------------------------------------------------


def _plain_messages(request: ChatRequest) -> list[Sent]:
    """Return every message as a role and a content, with calls and tool results as text."""
    names: dict[str, str] = {}
    plain: list[Sent] = []
    for place, message in enumerate(request.messages):
        raw = request.body["messages"][place].get("content")
        plain.append(_plain(message, raw, f"messages[{place}]", names))
        names.update((call.id, call.function.name) for call in message.calls if call.id)
    if plain[-1]["role"] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    return plain


def _plain(message: Message, raw: Any, where: str, names: dict[str, str]) -> Sent:
    if message.role in ("system", "developer"):
        return {"role": "system", "content": text_of(message, where)}
    if message.role == "assistant":
        return {"role": "assistant", "content": told(message, where)}
    if message.role in ("tool", "function"):
        name = names.get(message.tool_call_id or "") or message.name or "tool"
        return {"role": "user", "content": f"Tool {name} returned: {text_of(message, where)}"}
    if message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    return {"role": "user", "content": _content(message, raw, where)}


def _content(message: Message, raw: Any, where: str) -> Content:
    """Return the content parts unchanged if one of them is an image, else their text."""
    parts = message.content if isinstance(message.content, list) else []
    for place, part in enumerate(parts):
        if part.type not in _PARTS:
            raise BadRequest(
                f"This model reads texts and images, not a content part of type {part.type[:32]!r}.",
                param=f"{where}.content[{place}].type",
            )
    if any(part.type != "text" for part in parts):
        return [_checked(part, f"{where}.content[{place}]") for place, part in enumerate(raw)]
    return text_of(message, where)


def _checked(part: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a content part that the server can read.

    Raises `BadRequest` for a text part without text, and for an invalid picture.
    """
    if part["type"] == "image_url":
        return pictures.checked_part(part, where)
    if not isinstance(part.get("text"), str):
        raise BadRequest(f"{where}.text is required.", param=f"{where}.text")
    return dict(part)


def _turns(messages: list[Sent], profile: Profile) -> list[Sent]:
    """Return alternating turns that begin with a question.

    System texts are moved before the next question (T1). Consecutive turns of one role are merged (T2). A
    leading assistant turn is preceded by an empty question, or merged into the next question (T3).
    """
    turns: list[Sent] = []
    for system, message in _placed(_paired_system(messages) if profile.system == "pair" else messages):
        text = JOINT.join(text for text in system if text)
        _add(turns, message["role"], _joined(text, message["content"]))
    if turns[0]["role"] == "user":
        return turns
    if profile.leading_assistant == "fold":
        first, second, *later = turns
        return [{**second, "content": _joined(first["content"], second["content"])}, *later]
    return [{"role": "user", "content": ""}, *turns]


def _answered(turns: list[Sent]) -> list[Sent]:
    """Return the turns with a blank as the text of empty answers, if there is a picture.

    The server treats an empty last answer as a missing one, and then reads a variable that it has not set.
    """
    if not any(isinstance(turn["content"], list) for turn in turns):
        return turns
    return [
        {**turn, "content": " "} if turn["role"] == "assistant" and not turn["content"] else turn
        for turn in turns
    ]


def _placed(messages: list[Sent]) -> list[tuple[list[str], Sent]]:
    """Return every message except system messages, each with the system texts that go before it."""
    placed: list[tuple[list[str], Sent]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user":
            placed.append((waiting, message))
            waiting = []
        else:
            placed.append(([], message))
    if waiting and placed and placed[-1][1]["role"] == "user":
        placed[-1][0].extend(waiting)
    elif waiting:
        placed.append((waiting, {"role": "user", "content": ""}))
    return placed


def _add(turns: list[Sent], role: Literal["user", "assistant"], content: Content) -> None:
    if turns and turns[-1]["role"] == role:
        content = _joined(turns.pop()["content"], content)
    turns.append({"role": role, "content": content})


def _paired_system(messages: list[Sent]) -> list[Sent]:
    """Put all system texts into a first question with an agreeing answer (`system = "pair"`)."""
    texts = [message["content"] for message in messages if message["role"] == "system" and message["content"]]
    others = [message for message in messages if message["role"] != "system"]
    if not texts or not others or others[-1]["role"] == "assistant":
        return messages
    return [
        {"role": "user", "content": JOINT.join(texts)},
        {"role": "assistant", "content": AGREED},
        *others,
    ]


def _joined(before: Content, after: Content) -> Content:
    """Join two contents.

    The server joins text parts with a blank, so adjacent texts are joined into one part here.
    """
    if isinstance(before, str) and isinstance(after, str):
        return JOINT.join(text for text in (before, after) if text)
    if isinstance(before, str):
        return _with_text(list(after), before, first=True) if isinstance(after, list) and before else after
    if isinstance(after, str):
        return _with_text(list(before), after, first=False) if after else before
    text = next((part["text"] for part in after if part["type"] == "text"), "")
    rest = [part for part in after if part["type"] != "text"]
    more = [part for part in after if part["type"] == "text"][1:]
    return [*(_with_text(list(before), text, first=False) if text else before), *rest, *more]


def _with_text(parts: list[dict[str, Any]], text: str, *, first: bool) -> list[dict[str, Any]]:
    """Return the parts with a text added before their first text, or after their last text."""
    places = [place for place, part in enumerate(parts) if part["type"] == "text"]
    if not places:
        part = {"type": "text", "text": text}
        return [part, *parts] if first else [*parts, part]
    place = places[0] if first else places[-1]
    own = parts[place].get("text") or ""
    parts[place] = {**parts[place], "text": JOINT.join([text, own] if first else [own, text])}
    return parts


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or "" for part in content if part["type"] == "text")
