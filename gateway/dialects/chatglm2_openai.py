"""ChatGLM2-6B behind its own `openai_api.py`, which uses OpenAI's format but few of its parameters.

The server pairs earlier messages by position, and drops all of them if their number is odd. It prepends a
system text to the question. It accepts temperature, top_p and max_length, but uses none of them. With
pydantic 2, each of its streams has status 200 and is closed without a byte. Source: THUDM/ChatGLM2-6B
`openai_api.py`.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.dialects.base import AskWhole, Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget
from gateway.dialects.shared.budget_cutter import BudgetCutter
from gateway.dialects.shared.counting import count_rounds
from gateway.dialects.shared.fitting import as_messages, fold_to_fit
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.openai_like import ChunkDecoder, only_choice, read_object, required_text
from gateway.dialects.shared.prompt_history import refuse_tools
from gateway.formats import jsontext
from gateway.formats.events import Delta, Event, Finish, FinishReason
from gateway.formats.openai import ChatRequest


class ChatGLM2OpenAIDialect(Dialect):
    """Sends a list of messages that the server accepts, and cuts the answer at its token budget."""

    name = "chatglm2-openai"
    context: ClassVar[int] = 8192
    ranges = allowed.NATIVE

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        folded, prompt_tokens = fold_to_fit(
            request, profile, context, lambda folded: count_rounds(folded, self.cjk)
        )
        streaming = {"stream": True} if stream else {}
        body = {"model": profile.model, "messages": as_messages(folded), **streaming}
        return Outgoing(
            path="/v1/chat/completions",
            body=jsontext.write(body, large=request.large),
            streams=stream,
            prompt=prompt_tokens,
            budget=budget.wanted_output(request, profile, prompt_tokens),
            total=context,  # not sent: the server's own limit
            ignored=lost(request, profile, frozenset(), refuse_tools(request, profile)),
            abandon="probe" if stream else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        _, message = only_choice(read_object(body))
        cutter = BudgetCutter(outgoing.budget, self.cjk)
        text = cutter.take(required_text(message))
        said: list[Event] = [Delta(text)] if text else []
        return [*said, Finish(_reason(cutter, outgoing))]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _ChatGLM2OpenAIDecoder(outgoing, BudgetCutter(outgoing.budget, self.cjk))


class _ChatGLM2OpenAIDecoder(ChunkDecoder):
    def __init__(self, outgoing: Outgoing, cutter: BudgetCutter) -> None:
        super().__init__()
        self._outgoing = outgoing
        self._cutter = cutter

    def pieces(self, delta: Delta) -> list[Event]:
        text = self._cutter.take(delta.text)
        said: list[Event] = [Delta(text)] if text else []
        if not self._cutter.full:
            return said
        self.done = self.cut = True
        return [*said, Finish("length")]

    def reason(self, reason: FinishReason) -> FinishReason:  # noqa: ARG002 - the server always says "stop"
        return _reason(self._cutter, self._outgoing)

    def end(self, *, clean: bool) -> list[Event]:
        if not self.begun and not self.done:
            raise AskWhole("no_stream", remember=True)
        return super().end(clean=clean)


def _reason(cutter: BudgetCutter, outgoing: Outgoing) -> FinishReason:
    if cutter.full:
        return "length"
    return budget.finish_reason(cutter.counted, outgoing.budget, outgoing.prompt_tokens, outgoing.total)
