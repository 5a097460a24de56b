"""chatglm.cpp behind its own `openai_api.py`.

`max_tokens` includes the prompt, as in ChatGLM's native format. Of a longer prompt, the server keeps and
counts only 512 tokens. A `max_tokens` above the model's own length is an error. Models of the third and
fourth generation write a newline before their answer, which the server removes from complete answers only.
The only roles are system, user and assistant. The messages for models of the first two generations must
strictly alternate. Tool calls have no id, and occur in complete answers only. Source: li-plus/chatglm.cpp
`chatglm_cpp/openai_api.py`, `chatglm.cpp`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget
from gateway.dialects.shared.calls import whole_calls
from gateway.dialects.shared.counting import count_bare, count_messages, count_rounds
from gateway.dialects.shared.fitting import Sent, as_messages, fold_to_fit, messages_to_fit
from gateway.dialects.shared.folding import FoldedConversation, plain_messages
from gateway.dialects.shared.leading_whitespace import LeadingWhitespace, without_lead
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.openai_like import (
    ChunkDecoder,
    choice_name,
    offered_tools,
    only_choice,
    parses_to_object,
    read_object,
    sampling,
    text_of,
    tool_names,
    usage_of,
)
from gateway.dialects.shared.prompt_history import refuse_tools
from gateway.errors import BadRequest
from gateway.formats import jsontext, token_counts
from gateway.formats.events import Delta, Event, Finish, FinishReason, ToolPiece, Usage
from gateway.formats.openai import ChatRequest

SEEN = 510
"""Prompt tokens in the server's usage from which on the prompt was longer than the server keeps (512)."""

_SENT = frozenset({"temperature", "top_p", "max_tokens", "max_completion_tokens"})
_NO_PARAMETERS = {"type": "object", "properties": {}}


class ChatGLMCppDialect(Dialect):
    """A model of any generation, which `family` in the profile names."""

    name = "chatglm-cpp"
    context: ClassVar[int] = 4096
    ranges = allowed.NATIVE

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        tools, losses = _tools(request, profile)
        messages, prompt_tokens = _messages(request, profile, context, tools)
        wanted = budget.wanted_output(request, profile, prompt_tokens)
        total = budget.total_length(request, prompt_tokens, wanted, context, profile.prompt_window)
        streams = stream and not tools
        body = {
            "model": profile.model,
            "messages": messages,
            "max_tokens": total,
            **sampling(request, profile),
            **({"tools": tools} if tools else {}),
            **({"stream": True} if streams else {}),
        }
        # The server makes at most one call, so a client that forbids parallel calls loses nothing.
        honoured = _SENT | {"parallel_tool_calls"} if tools else _SENT
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(body, large=request.large),
            streams=streams,
            prompt=prompt_tokens,
            budget=wanted,
            total=total,
            tool_names=tool_names(tools),
            ignored=lost(request, profile, honoured, losses),
            notes=("prompt_window",) if prompt_tokens > profile.prompt_window else (),
            abandon="probe" if streams else "drain",
            kept=min(prompt_tokens, profile.prompt_window),
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        answer = read_object(body)
        _, message = only_choice(answer)
        text = without_lead(text_of(message))
        counts = usage_of(answer)
        usage = _usage(counts, outgoing)
        counted: list[Event] = [usage] if usage else []
        if calls := _calls(message, outgoing):
            return [Delta(tools=calls), Finish("tool_calls"), *counted]
        said: list[Event] = [Delta(text)] if text else []
        if counts is None:
            reason = _reason(token_counts.estimate(text, self.cjk), outgoing)
        else:  # the server compares its own count of the prompt with the limit
            reason = budget.finish_reason(counts.completion, outgoing.budget, counts.prompt, outgoing.total)
        return [*said, Finish(reason), *counted]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _ChatGLMCppDecoder(outgoing, self.cjk)


class _ChatGLMCppDecoder(ChunkDecoder):
    def __init__(self, outgoing: Outgoing, cjk: int) -> None:
        super().__init__()
        self._outgoing = outgoing
        self._cjk = cjk
        self._lead = LeadingWhitespace()
        self._texts: list[str] = []

    def pieces(self, delta: Delta) -> list[Event]:
        text = self._lead.strip(delta.text)
        if delta.text:
            self._texts.append(text)
        return super().pieces(delta if text is delta.text else delta._replace(text=text))

    def reason(self, reason: FinishReason) -> FinishReason:  # noqa: ARG002 - the server always says "stop"
        counted = token_counts.estimate("".join(self._texts), self._cjk)
        return _reason(max(counted, len(self._texts)), self._outgoing)  # every event is at least one token

    def done_expected(self) -> bool:
        return False


def _tools(request: ChatRequest, profile: Profile) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the tools to send, and the parameters that are lost: a call cannot be demanded."""
    if profile.family in ("chatglm", "chatglm2"):
        return [], refuse_tools(request, profile)
    if request.tool_mode == "none":
        return [], ()
    allowed.check_functions(request)
    tools = offered_tools(request, parameters=_NO_PARAMETERS)
    if request.named_tool is not None:
        tools = [tool for tool in tools if tool["function"]["name"] == request.named_tool]
    return tools, (choice_name(request),) if request.tool_mode == "required" else ()


def _messages(
    request: ChatRequest, profile: Profile, context: int, tools: list[dict[str, Any]]
) -> tuple[list[Sent], int]:
    """Return the messages in the roles that the model's generation supports, and P."""
    if profile.family in ("chatglm", "chatglm2"):
        folded, prompt_tokens = fold_to_fit(
            request, profile, context, lambda folded: _count_rounds(folded, profile)
        )
        return as_messages(folded), prompt_tokens
    plain: list[Sent] = [{"role": role, "content": text} for role, text in plain_messages(request)]
    if plain[-1]["role"] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    return messages_to_fit(
        plain, profile, context, lambda sent: count_messages([one["content"] for one in sent], tools)
    )


def _count_rounds(folded: FoldedConversation, profile: Profile) -> int:
    if profile.family == "chatglm":
        return count_bare(folded, token_counts.V1_CJK)
    return count_rounds(folded, token_counts.CJK)


def _calls(message: dict[str, Any], outgoing: Outgoing) -> tuple[ToolPiece, ...]:
    """Return the calls if all are valid and of offered functions.

    Else return none: the text is the answer.
    """
    calls = whole_calls(message)
    good = all(call.name in outgoing.tool_names and parses_to_object(call.arguments) for call in calls)
    return calls if good else ()


def _usage(usage: Usage | None, outgoing: Outgoing) -> Usage | None:
    """Return the usage to report.

    The server counts the prompt after shortening it. If it was shortened, the gateway's estimate is closer.
    """
    if usage is None or usage.prompt < SEEN:
        return usage
    return Usage(outgoing.prompt_tokens, usage.completion, "estimate")


def _reason(counted: int, outgoing: Outgoing) -> FinishReason:
    return budget.finish_reason(counted, outgoing.budget, outgoing.kept_tokens, outgoing.total)
