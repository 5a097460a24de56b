"""GLM-4 behind its own `glm_server.py` (vLLM), with tools, streams and several requests at once.

Faults of the server that are repaired here:
- An assistant message with null content causes a 500.
- With tools, the system text is dropped.
- Pieces of a streamed call have null ids and names.
- A stream that ends in a call has no `[DONE]`.
- An answer is read as a call, whatever follows, if its first line is the name of a function or one of two
  built-in names (`glm4_calls`).
- An empty answer with tools is a stream without events.
- Editions before July 2024 have unusable streams.

Faults that are not repaired: without tools, the server shows a system text to the model twice, and a
multi-line answer in the history becomes one message for each line (`glm4_join` replaces the newlines by
blanks). Source: THUDM/GLM-4 `basic_demo/glm_server.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import AskWhole, Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget, glm4_calls
from gateway.dialects.shared.calls import calls_in, whole_calls
from gateway.dialects.shared.counting import count_messages
from gateway.dialects.shared.finish_reasons import reason_of
from gateway.dialects.shared.fitting import Sent, messages_to_fit
from gateway.dialects.shared.folding import JOINT
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.openai_like import (
    ChunkDecoder,
    choice_name,
    offered_tools,
    only_choice,
    read_object,
    sampling,
    text_of,
    tool_names,
    usage_of,
)
from gateway.errors import BadRequest
from gateway.formats import jsontext, openai, sse, token_counts
from gateway.formats.events import Delta, Event, Finish, FinishReason, ToolPiece
from gateway.formats.openai import ChatRequest, Message, ToolCall

_HONOURED = frozenset(
    {
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "repetition_penalty",
        "parallel_tool_calls",  # the server makes at most one call
    }
)
_ROLES = {"developer": "system", "function": "tool"}


class GLM4Dialect(Dialect):
    """GLM-4's own server. It stops streams whose client has left, but not complete answers."""

    name = "glm4"
    context: ClassVar[int] = 8192
    probe = "/health"
    ranges = allowed.VLLM
    honours = frozenset({"tools", "named_tool"})

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
        streams = stream and profile.glm4_stream == "native"
        body = {
            "model": profile.model,
            "messages": _shaped(kept, tools),
            "max_tokens": most,
            **sampling(request, profile),
            **_more(request, tools, streams),
        }
        forced = request.tool_mode == "required" and _named(request, tools) is None
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(body, large=request.large),
            streams=streams,
            prompt=prompt_tokens,
            budget=most,
            tool_names=tool_names(tools),
            ignored=lost(request, profile, _HONOURED, (choice_name(request),) if forced else ()),
            abandon="close" if streams else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        answer = read_object(body)
        choice, message = only_choice(answer)
        usage = usage_of(answer)
        text = text_of(message).removeprefix("\n")
        pieces = whole_calls(message)
        calls = glm4_calls.offered(pieces, outgoing.tool_names)
        calls = calls or glm4_calls.written_call(text, outgoing.tool_names)
        counts: list[Event] = [usage] if usage else []
        if calls:
            return [Delta(tools=calls), Finish("tool_calls"), *counts]
        text = text or glm4_calls.as_text(pieces)
        counted = usage.completion if usage else token_counts.estimate(text, self.cjk)
        reason = _limited(reason_of(choice.get("finish_reason")) or "stop", counted, outgoing)
        said: list[Event] = [Delta(text)] if text else []
        return [*said, Finish(reason), *counts]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _GLM4Decoder(outgoing, self.cjk)


class _GLM4Decoder(ChunkDecoder):
    counts = True

    def __init__(self, outgoing: Outgoing, cjk: int) -> None:
        super().__init__()
        self._outgoing = outgoing
        self._cjk = cjk
        self._texts: list[str] = []
        self._calls = glm4_calls.GLM4CallReader()

    def feed(self, event: sse.SseEvent) -> list[Event]:
        if sse.is_mark(event.data.strip()) and self._lost:
            raise AskWhole("short_stream")
        events = super().feed(event)
        return [ready for one in events for ready in self._settled(one)] if self._calls else events

    def end(self, *, clean: bool) -> list[Event]:
        if clean and not self.done and self._lost:
            raise AskWhole("short_stream")
        return super().end(clean=clean)

    @property
    def _lost(self) -> bool:
        """True if nothing has come although tools were offered: the server loses an empty answer."""
        return not self.begun and bool(self._outgoing.tool_names)

    def calls(self, delta: dict[str, Any], index: int) -> tuple[ToolPiece, ...]:
        if given := calls_in(delta):
            self._calls.note(given)
        return super().calls(delta, index)

    def pieces(self, delta: Delta) -> list[Event]:
        text = delta.text if self._texts else delta.text.removeprefix("\n")
        if text and not self._texts and glm4_calls.is_chunk(text):
            raise AskWhole("no_stream", remember=True)
        if delta.text:
            self._texts.append(text)
        if delta.tools:
            self._calls.add(delta.tools)
        same = text is delta.text and not delta.tools
        return super().pieces(delta if same else delta._replace(text=text, tools=()))

    def reason(self, reason: FinishReason) -> FinishReason:
        if self._calls and self._calls.offered(self._outgoing.tool_names):
            return "tool_calls"
        if self._calls:
            self._texts.append(self._calls.text)
        return _limited(reason, token_counts.estimate("".join(self._texts), self._cjk), self._outgoing)

    def done_expected(self) -> bool:
        return not self._calls

    def _settled(self, event: Event) -> list[Event]:
        """Return the end of the answer, after the call or the text that the server took for a call."""
        if not isinstance(event, Finish):
            return [event]
        if event.reason == "tool_calls":
            return [Delta(tools=self._calls.offered(self._outgoing.tool_names)), event]
        return [Delta(self._calls.text), event]


def _tools(request: ChatRequest) -> list[dict[str, Any]]:
    """Return the tools to offer: none if `tool_choice` is "none"."""
    if request.tool_mode == "none":
        return []
    allowed.check_functions(request)
    return offered_tools(request)


def _limited(reason: FinishReason, counted: int, outgoing: Outgoing) -> FinishReason:
    """Return `length` if the answer was cut at its limit: the server says "stop" then (rule T11).

    The length is an estimate if the server has not counted. A "tool_calls" without a call is a "stop".
    """
    if reason not in ("stop", "tool_calls"):
        return reason
    return budget.finish_reason(counted, outgoing.budget, outgoing.prompt_tokens, None)


def _more(request: ChatRequest, tools: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
    """Return the members that are sent only if they are needed."""
    members: dict[str, Any] = {}
    if request.repetition_penalty is not None:
        members["repetition_penalty"] = request.repetition_penalty
    if tools:
        members |= {"tools": tools, "tool_choice": _choice(request, tools)}
    return members | {"stream": True} if stream else members


def _named(request: ChatRequest, tools: list[dict[str, Any]]) -> str | None:
    """Return the name of the function that must be called: the server takes "required" for "auto"."""
    if request.tool_mode == "required" and request.named_tool is None and len(tools) == 1:
        return str(tools[0]["function"]["name"])
    return request.named_tool


def _choice(request: ChatRequest, tools: list[dict[str, Any]]) -> str | dict[str, Any]:
    name = _named(request, tools)
    return request.tool_mode if name is None else {"type": "function", "function": {"name": name}}


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
        calls = [_call(call, f"call_{place}") for place, call in enumerate(message.calls)]
        return {"role": role, **said, "tool_calls": calls}
    if role == "user" and message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    if role == "assistant" and profile.glm4_join:
        text = text.replace("\n", " ")
    answers = {"tool_call_id": message.tool_call_id} if role == "tool" and message.tool_call_id else {}
    return {"role": role, "content": text, **answers}


def _call(call: ToolCall, name: str) -> dict[str, Any]:
    """Return a call of the history. `name` is used as its id if it has none, because the server needs one."""
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id or name, "type": "function", "function": function}


def _shaped(messages: list[Sent], tools: list[dict[str, Any]]) -> list[Sent]:
    """Put all system texts before the first user turn if tools are offered: else the server drops them."""
    if not tools:
        return messages
    system = [
        message["content"] for message in messages if message["role"] == "system" and message["content"]
    ]
    others = [message for message in messages if message["role"] != "system"]
    question: list[Sent] = []
    if not others or others[-1]["role"] == "assistant":  # the last system text becomes the question
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
