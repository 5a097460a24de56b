"""ChatGLM3-6B behind any edition of its own `openai_api_demo/api_server.py` (rules V1 to V7).

The server uses OpenAI's format of mid-2023: functions instead of tools, no nulls, text content only.
Streams are repaired by `v3_stream`. Requests with tools are never streamed, because the server's streams
lose the call. Source: ChatGLM3 at 2023-11-05 (`openai_api.py`), 2024-01-05 and from 2024-05 on.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget, v3_messages, v3_tools
from gateway.dialects.shared.counting import count_messages
from gateway.dialects.shared.fitting import messages_to_fit
from gateway.dialects.shared.leading_whitespace import without_lead
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.prompt_history import refuse_tools
from gateway.dialects.shared.v3_messages import V3Message
from gateway.dialects.shared.v3_stream import V3Decoder, finish_reason
from gateway.errors import UpstreamGarbled
from gateway.formats import jsontext, token_counts
from gateway.formats.events import Delta, Event, Finish, ToolPiece, Usage
from gateway.formats.openai import ChatRequest, FunctionDefinition

_SENT = frozenset({"temperature", "top_p", "max_tokens", "max_completion_tokens", "repetition_penalty"})
# The server makes at most one call, so a client that forbids parallel calls loses nothing.
_HONOURED = _SENT | {"parallel_tool_calls"}


class ChatGLM3Dialect(Dialect):
    """ChatGLM3's own server: one slot. A stream stops with its client, a complete answer does not."""

    name = "chatglm3"
    context: ClassVar[int] = 8192
    probe = "/health"
    ranges = allowed.TRANSFORMERS
    honours = frozenset({"tools"})

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        functions, losses = _offered(request, profile)
        tools = _tools(functions, profile)
        messages, prompt_tokens = _fitting(request, profile, tools, context)
        wanted = budget.clamped(budget.wanted_output(request, profile, prompt_tokens), prompt_tokens, context)
        streams = stream and not tools and profile.v3_stream == "native"
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(
                {
                    "model": profile.model,
                    "messages": messages,
                    "stream": streams,
                    "max_tokens": wanted,
                    **_sampling(request, profile),
                    **tools,
                },
                large=request.large,
            ),
            streams=streams,
            prompt=prompt_tokens,
            budget=wanted,
            tool_names=frozenset(function.name for function in functions),
            ignored=lost(request, profile, _HONOURED, losses),
            abandon="close" if streams else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        answer, message = _read(body)
        text = without_lead(message.get("content") or "")
        usage = _usage(answer.get("usage"))
        ending: list[Event] = [usage] if usage else []
        call = _call(message, text, outgoing.tool_names)
        if call:
            return [Delta(tools=(call,)), Finish("tool_calls"), *ending]
        counted = usage.completion if usage else token_counts.estimate(text, self.cjk)
        said: list[Event] = [Delta(text)] if text else []
        return [*said, Finish(finish_reason(counted, outgoing.budget)), *ending]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return V3Decoder(outgoing.budget)


def _offered(request: ChatRequest, profile: Profile) -> tuple[list[FunctionDefinition], tuple[str, ...]]:
    """Return the functions to offer, and the parameters that are lost.

    The edition of 2024-05-08 replaces the client's tools by its own, and uses those only if `agent` is set.
    """
    if profile.variant == "2024-05-08":
        return [], refuse_tools(request, profile)
    return v3_tools.offered(request), _forced(request)


def _tools(functions: list[FunctionDefinition], profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """Return the members that offer the functions.

    The edition of 2023-11 reads `functions` and ignores `tools`; later editions do the opposite. If the
    edition is not configured, both are sent.
    """
    if not functions:
        return {}
    shape = v3_tools.nested if profile.v3_tools == "nested" else v3_tools.flat
    members = {
        "tools": [shape(function) for function in functions],
        "functions": [v3_tools.flat(function) for function in functions],
    }
    if profile.variant == "auto":
        return members
    name = "functions" if profile.variant == "2023-11" else "tools"
    return {name: members[name]}


def _fitting(
    request: ChatRequest, profile: Profile, tools: dict[str, list[dict[str, Any]]], context: int
) -> tuple[list[V3Message], int]:
    """Return the messages to send and their token count. Raises `ContextExceeded` if they do not fit."""
    offered = next(iter(tools.values()), None)

    def shaped(messages: list[V3Message]) -> list[V3Message]:
        return _with_system(messages, profile) if tools else messages

    def count(messages: list[V3Message]) -> int:
        return count_messages([message["content"] for message in shaped(messages)], offered)

    kept, prompt_tokens = messages_to_fit(v3_messages.translated(request), profile, context, count)
    return shaped(kept), prompt_tokens


def _with_system(messages: list[V3Message], profile: Profile) -> list[V3Message]:
    """Keep the system texts: with tools, the server drops the first system message (rule V5)."""
    if profile.v3_system == "merge":
        return v3_messages.folded(messages)
    return [{"role": "system", "content": ""}, *messages]


def _sampling(request: ChatRequest, profile: Profile) -> dict[str, float]:
    """Return the sampling parameters. Temperature 0 is sent: it means greedy decoding (rules V1, T12)."""
    sampling: dict[str, float] = {}
    if request.temperature is not None:
        sampling["temperature"] = min(request.temperature, profile.max_temperature or request.temperature)
    if request.top_p is not None:
        sampling["top_p"] = request.top_p or 0.01
    if request.repetition_penalty is not None:
        sampling["repetition_penalty"] = request.repetition_penalty
    return allowed.greedy(sampling)


def _forced(request: ChatRequest) -> tuple[str, ...]:
    """Return the name of a parameter that demands a call: the server cannot enforce it (rule V4)."""
    if request.tool_mode != "required":
        return ()
    return ("function_call" if request.legacy_functions else "tool_choice",)


def _read(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the answer and its message. Raises `UpstreamGarbled` if they have wrong types."""
    try:
        answer = jsontext.read_lenient(body)
    except ValueError:
        raise UpstreamGarbled("The backend's answer is not JSON.") from None
    match answer:
        case {"choices": [{"message": {"content": str()} as message}, *_]}:
            return answer, message
        case {"choices": [{"message": {"content": None, "function_call": dict()} as message}, *_]}:
            return answer, message
    raise UpstreamGarbled("The backend's answer has no text.")


def _call(message: dict[str, Any], text: str, names: frozenset[str]) -> ToolPiece | None:
    """Return the call in an answer: the server's own, if it is valid, else the one in the text (rule V7)."""
    match message.get("function_call"):
        case {"name": str() as name, "arguments": str() as arguments} if name in names:
            if v3_tools.arguments_object(arguments) is not None:
                return ToolPiece(0, arguments, name=name)
    return v3_tools.read_call(text, names)


def _usage(usage: Any) -> Usage | None:
    match usage:
        case {"prompt_tokens": prompt, "completion_tokens": completion}:
            if token_counts.plausible(prompt) and token_counts.plausible(completion):
                return Usage(prompt, completion, "backend")
    return None
