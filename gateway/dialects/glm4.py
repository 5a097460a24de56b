"""GLM-4 behind its own `glm_server.py` (vLLM): tools and streams of its own, several requests at once.

Known faults, mended here: an assistant message of null is a 500; with tools the system text is dropped;
pieces of a streamed call carry null ids and names; a stream that ends in a call has no `[DONE]`.
Not mended: without tools the server shows a system text to the model twice, and a multi-line answer in
the history becomes a message a line (`glm4_join` makes the newlines blanks).
Source: THUDM/GLM-4 `basic_demo/glm_server.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects import allowed, budget
from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.counting import count_messages
from gateway.dialects.fitting import Sent, messages_to_fit
from gateway.dialects.folding import JOINT
from gateway.dialects.losses import lost
from gateway.dialects.openai_like import (
    ChunkDecoder,
    choice_name,
    offered_tools,
    only_choice,
    read_object,
    reason_of,
    sampling,
    text_of,
    tool_names,
    tool_pieces,
    usage_of,
)
from gateway.errors import BadRequest
from gateway.wire import jsontext, openai, tokens
from gateway.wire.events import Delta, Event, Finish, FinishReason
from gateway.wire.openai import ChatRequest, Message, ToolCall

_HONOURED = frozenset(
    {
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "repetition_penalty",
        "parallel_tool_calls",  # at most one call comes
    }
)
_ROLES = {"developer": "system", "function": "tool"}


class GLM4(Dialect):
    """GLM-4's own server. Its streams stop when their client leaves, its whole answers do not."""

    name = "glm4"
    slots = 8
    context: ClassVar[int] = 8192
    probe = "/health"
    ranges = allowed.VLLM
    honours = frozenset({"tools"})

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        tools = _tools(request)
        kept, prompt_tokens = messages_to_fit(
            _messages(request, profile),
            profile,
            context,
            lambda sent: count_messages(map(_counted_text, _shaped(sent, tools)), tools),
        )
        wanted = budget.wanted_output(request, profile, prompt_tokens)
        most = budget.clamped(wanted, prompt_tokens, context)
        body = {
            "model": profile.model,
            "messages": _shaped(kept, tools),
            "max_tokens": most,
            **sampling(request, profile),
            **_more(request, tools, stream),
        }
        forced = request.tool_mode == "required" and request.named_tool is None
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(body),
            streams=stream,
            prompt=prompt_tokens,
            budget=most,
            tool_names=tool_names(tools),
            ignored=lost(request, profile, _HONOURED, (choice_name(request),) if forced else ()),
            abandon="close" if stream else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        answer = read_object(body)
        choice, message = only_choice(answer)
        usage = usage_of(answer)
        text = text_of(message).removeprefix("\n")
        piece = Delta(text, tool_pieces(message))
        counted = usage.completion if usage else tokens.estimate(text, self.cjk)
        reason = _limited(reason_of(choice.get("finish_reason")) or "stop", counted, outgoing)
        events: list[Event] = [] if piece.empty else [piece]
        return [*events, Finish(reason), *([usage] if usage else [])]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _Decoder(outgoing, self.cjk)


class _Decoder(ChunkDecoder):
    counts = True

    def __init__(self, outgoing: Outgoing, cjk: int) -> None:
        super().__init__()
        self._outgoing = outgoing
        self._cjk = cjk
        self._texts: list[str] = []

    def pieces(self, delta: Delta) -> list[Event]:
        text = delta.text if self._texts else delta.text.removeprefix("\n")
        if delta.text:
            self._texts.append(text)
        return super().pieces(delta._replace(text=text))

    def reason(self, reason: FinishReason) -> FinishReason:
        return _limited(reason, tokens.estimate("".join(self._texts), self._cjk), self._outgoing)

    def done_expected(self) -> bool:
        return "tool_calls" not in self.reasons


def _tools(request: ChatRequest) -> list[dict[str, Any]]:
    """The tools to offer: none under `tool_choice` "none"."""
    if request.tool_mode == "none":
        return []
    allowed.check_functions(request)
    return offered_tools(request)


def _limited(reason: FinishReason, counted: int, outgoing: Outgoing) -> FinishReason:
    """The server says "stop" where the limit cut the answer; an estimate where nobody counted (T11)."""
    if reason != "stop":
        return reason
    return budget.finish_reason(counted, outgoing.budget, outgoing.prompt_tokens, None)


def _more(request: ChatRequest, tools: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
    """The members that are sent only where they are needed."""
    members: dict[str, Any] = {}
    if request.repetition_penalty is not None:
        members["repetition_penalty"] = request.repetition_penalty
    if tools:
        members |= {"tools": tools, "tool_choice": _choice(request)}
    return members | {"stream": True} if stream else members


def _choice(request: ChatRequest) -> str | dict[str, Any]:
    if request.named_tool is not None:
        return {"type": "function", "function": {"name": request.named_tool}}
    return request.tool_mode


def _messages(request: ChatRequest, profile: Profile) -> list[Sent]:
    messages = [
        _message(message, f"messages[{place}]", profile) for place, message in enumerate(request.messages)
    ]
    if messages[-1]["role"] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    return messages


def _message(message: Message, where: str, profile: Profile) -> Sent:
    role = _ROLES.get(message.role, message.role)
    text = openai.text_of(message, where)
    if role == "assistant" and message.calls:
        said = {"content": text} if text else {}
        return {"role": role, **said, "tool_calls": [_call(call) for call in message.calls]}
    if role == "user" and message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    if role == "assistant" and profile.glm4_join:
        text = text.replace("\n", " ")
    answers = {"tool_call_id": message.tool_call_id} if role == "tool" and message.tool_call_id else {}
    return {"role": role, "content": text, **answers}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    known = {"id": call.id} if call.id else {}
    return {**known, "type": "function", "function": function}


def _shaped(messages: list[Sent], tools: list[dict[str, Any]]) -> list[Sent]:
    """Put all system texts before the first user turn where tools are offered: there they would be lost."""
    if not tools:
        return messages
    system = [
        message["content"] for message in messages if message["role"] == "system" and message["content"]
    ]
    others = [message for message in messages if message["role"] != "system"]
    question: list[Sent] = []
    if not others or others[-1]["role"] == "assistant":  # nothing else asks: the last system text does
        question = [{"role": "user", "content": system.pop() if system else ""}]
    turns = [*others, *question]
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": JOINT.join(system)}, *turns] if system else turns
    text = JOINT.join(text for text in [*system, turns[first]["content"]] if text)
    return [*turns[:first], {"role": "user", "content": text}, *turns[first + 1 :]]


def _counted_text(message: Sent) -> str:
    calls = "".join(
        call["function"]["name"] + call["function"]["arguments"] for call in message.get("tool_calls", ())
    )
    return str(message.get("content", "")) + calls
