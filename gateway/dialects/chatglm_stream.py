"""ChatGLM-6B behind the community's web-stream-demo.

`POST /chat` returns a complete answer, `POST /stream` a stream of events. The server accepts a query and a
history of pairs, and no other parameters. It keeps only the last five pairs. A system text before those
pairs is moved to the oldest pair that is kept, and the loss of the other pairs is reported. Errors have
status 200 and `success` false. Each event repeats the whole text so far. Source: the `web-stream-demo`
server of ChatGLM-6B's community (read).
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget
from gateway.dialects.shared.budget_cutter import BudgetCutter
from gateway.dialects.shared.counting import count_bare
from gateway.dialects.shared.fitting import fold_to_fit
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.openai_like import read_object
from gateway.dialects.shared.prompt_history import refuse_tools
from gateway.errors import UpstreamEmpty, UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.formats import jsontext, sse, token_counts
from gateway.formats.events import Delta, Event, Finish
from gateway.formats.openai import ChatRequest

_UNFINISHED = "\ufffd"
"""The character that the tokenizer returns while only some bytes of a character have been generated."""


WINDOW = 5
"""Number of pairs of a history that the server keeps."""


class ChatGLMStreamDialect(Dialect):
    """ChatGLM-6B with streaming.

    The answer is cut at its budget here, because the server accepts no limit.
    """

    name = "chatglm-stream"
    context: ClassVar[int] = 2048
    cjk = token_counts.V1_CJK
    probe = "/"
    pairs = True
    ranges = allowed.NATIVE

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        folded, prompt_tokens = fold_to_fit(
            request, profile, context, lambda folded: count_bare(folded, self.cjk)
        )
        dropped = max(0, len(folded.pairs) - WINDOW)
        if dropped:
            folded = folded.without_oldest(dropped)
            prompt_tokens = count_bare(folded, self.cjk)
        losses = (*refuse_tools(request, profile), *(("messages",) if dropped else ()))
        return Outgoing(
            path="/stream" if stream else "/chat",
            body=jsontext.write(
                {"query": folded.prompt.text, "history": folded.history}, large=request.large
            ),
            streams=stream,
            prompt=prompt_tokens,
            budget=budget.wanted_output(request, profile, prompt_tokens),
            total=context,  # not sent: the model's own limit
            ignored=lost(request, profile, frozenset(), losses),
            abandon="probe" if stream else "drain",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        cutter = BudgetCutter(outgoing.budget, self.cjk)
        text = cutter.take(_response(read_object(body)))
        said: list[Event] = [Delta(text)] if text else []
        return [*said, _finish(cutter, outgoing)]

    def decoder(self, outgoing: Outgoing) -> Decoder:
        return _ChatGLMStreamDecoder(outgoing, BudgetCutter(outgoing.budget, self.cjk))


class _ChatGLMStreamDecoder(Decoder):
    def __init__(self, outgoing: Outgoing, cutter: BudgetCutter) -> None:
        self._outgoing = outgoing
        self._cutter = cutter
        self._taken = 0

    def feed(self, event: sse.SseEvent) -> list[Event]:
        if self.done or not event.data.strip():
            return []
        update = read_object(event.data)
        response = _response(update)
        self.done = update.get("finished") is True
        text = self._cutter.take(self._new(response if self.done else response.rstrip(_UNFINISHED)))
        said: list[Event] = [Delta(text)] if text else []
        self.cut = self._cutter.full and not self.done
        self.done = self.done or self.cut
        return [*said, _finish(self._cutter, self._outgoing)] if self.done else said

    def end(self, *, clean: bool) -> list[Event]:  # noqa: ARG002 - the last event is marked
        if not self.done:
            raise UpstreamTruncated("The backend's answer broke off.")
        return []

    def _new(self, response: str) -> str:
        # Compared by length: the model changes punctuation that it has already sent, so the start may differ.
        new = response[self._taken :]
        self._taken = max(self._taken, len(response))
        return new


def _response(answer: dict[str, Any]) -> str:
    if answer.get("success") is False:
        raise UpstreamError("The backend reported an error instead of an answer.")
    response = answer.get("response")
    if not isinstance(response, str):
        raise UpstreamGarbled("The backend's answer has no text in `response`.")
    return response


def _finish(cutter: BudgetCutter, outgoing: Outgoing) -> Finish:
    if cutter.full:
        return Finish("length")
    counted = cutter.counted
    if not counted and outgoing.total is not None and outgoing.prompt_tokens * 10 < outgoing.total * 9:
        raise UpstreamEmpty("The backend gave an empty answer.")
    if not counted:
        return Finish("length")
    return Finish(budget.finish_reason(counted, outgoing.budget, outgoing.prompt_tokens, outgoing.total))
