"""ChatGLM2-6B behind its own `openai_api.py`: OpenAI's shape, ChatGLM2's manners.

It pairs earlier messages by their place and forgets all of them when their number is odd, glues a system
text to the question, reads temperature, top_p and max_length and uses none of them. With pydantic 2 each of
its streams is a 200 that is cut without a byte.
Source: THUDM/ChatGLM2-6B `openai_api.py`.
"""

from __future__ import annotations

from typing import ClassVar

from gateway.dialects import allowed, budget
from gateway.dialects.base import AskWhole, Decoder, Dialect, Outgoing, Profile
from gateway.dialects.counting import count_rounds
from gateway.dialects.cutter import Cutter
from gateway.dialects.fitting import as_messages, fold_to_fit
from gateway.dialects.losses import lost
from gateway.dialects.native import refuse_tools
from gateway.dialects.openai_like import ChunkDecoder, only_choice, read_object, required_text
from gateway.wire import jsontext
from gateway.wire.events import Delta, Event, Finish, FinishReason
from gateway.wire.openai import ChatRequest


class ChatGLM2OpenAI(Dialect):
    """A legal list of messages out, the answer cut at its budget on the way back."""

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
            total=context,  # not sent, but where the server itself ends
            ignored=lost(request, profile, frozenset(), refuse_tools(request, profile)),
            abandon="probe" if stream else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        _, message = only_choice(read_object(body))
        cutter = Cutter(outgoing.budget, self.cjk)
        text = cutter.take(required_text(message))
        said: list[Event] = [Delta(text)] if text else []
        return [*said, Finish(_reason(cutter, outgoing))]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _Decoder(outgoing, Cutter(outgoing.budget, self.cjk))


class _Decoder(ChunkDecoder):
    def __init__(self, outgoing: Outgoing, cutter: Cutter) -> None:
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

    def reason(self, reason: FinishReason) -> FinishReason:  # noqa: ARG002 - it says "stop", whatever happened
        return _reason(self._cutter, self._outgoing)

    def end(self, *, clean: bool) -> list[Event]:
        if not self.begun and not self.done:
            raise AskWhole("no_stream", remember=True)
        return super().end(clean=clean)


def _reason(cutter: Cutter, outgoing: Outgoing) -> FinishReason:
    if cutter.full:
        return "length"
    return budget.finish_reason(cutter.counted, outgoing.budget, outgoing.prompt_tokens, outgoing.total)
