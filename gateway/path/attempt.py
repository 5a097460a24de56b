"""One try on one backend: ask, decode, emulate what the backend lacks, note the outcome on the receipt.

States (`AttemptState`) and transitions:

    STARTING    nothing of the answer has come
        -> OPEN       the head of a stream has come
        -> OVER       a whole answer has come
    OPEN        pieces of a stream are read
        -> FINISHED   its finish reason has come, its end mark has not
        -> OVER       it has ended, broken off behind a complete answer, or a stop sequence has cut it
        -> STARTING   it holds no answer, and the request is sent again as one for a whole answer
    FINISHED    waits a moment for what may follow a finish reason: usage, the end mark
        -> OVER
    OVER        the last piece has been given; `close` and `settle` are left to do

An attempt that fails or is left ends in any state: by `fail`, `leave` or `settle`, exactly one of them.
Each gives the slot back, or hands it to a background task where the server works on.

A slot that another request waits for is released as soon as the GPU is free, before anything else is done
with the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any

from gateway.abilities.base import AskAgain, Pipeline
from gateway.abilities.registry import pipeline as pipeline_of
from gateway.dialects.base import DOUBTFUL, AskWhole, ByteDecoder, Outgoing
from gateway.dialects.shared.state import says
from gateway.dispatch.dispatcher import Lease
from gateway.errors import (
    TABLE,
    GatewayError,
    StallTimeout,
    TotalTimeout,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.formats.openai import ChatRequest
from gateway.path.answer import ByteSink
from gateway.path.context import PathContext
from gateway.path.routing import Plan
from gateway.path.unfinished import wait_drained, wait_end, wait_end_mark, wait_probe_answered
from gateway.scheduling.deadlines import Deadlines
from gateway.telemetry.receipt import AttemptRecord, Receipt
from gateway.upstream.connection import HEARD, REFUSED, Taken
from gateway.upstream.exchange import Exchange


class AttemptState(Enum):
    """How far an attempt is; the transitions are in the module's docstring."""

    STARTING = "starting"
    OPEN = "open"
    FINISHED = "finished"
    OVER = "over"


_OVER = AttemptState.OVER


def _never() -> bool:
    return False


class Attempt:
    """One try on one backend, from the slot to the last piece. Owned by one generation.

    Args:
        context: the collaborators of the path.
        plan: where the call may go, translated.
        lease: the slot; this attempt ends it.
        receipt: the record of the request.
        began: monotonic seconds when the slot was granted.
        may_correct: returns True if an ability may ask again; `correction` is then what is to be asked.
    """

    def __init__(
        self,
        context: PathContext,
        plan: Plan,
        lease: Lease,
        receipt: Receipt,
        began: float,
        *,
        may_correct: Callable[[], bool] = _never,
    ) -> None:
        self.backend = backend = plan.routing.fleet[lease.backend]
        self.state = AttemptState.STARTING
        self._translator = backend.dialect.translator(plan.call.operation)
        self._context = context
        self._plan = plan
        self._lease = lease
        self._receipt = receipt
        self._began = began
        self._may_correct = may_correct
        self.correction: AskAgain | None = None
        self._pipeline: Pipeline | None = None
        self._passing = False  # the answer goes on as bytes
        self._given = False  # content has been given to the generation
        self._content_came = False  # from the backend: pieces that abilities make are no tokens
        self._finished_at = 0.0  # monotonic seconds when the finish reason had come
        self._exchange: Exchange | None = None  # of a stream, until it is closed or left to the background
        self._reader: ByteDecoder | None = None
        outgoing = plan.outgoing[backend.name]
        outgoing.stamp = context.stamp
        receipt.backend, receipt.dialect = backend.name, backend.dialect.name
        receipt.ignored = outgoing.ignored
        if outgoing.streams and backend.no_streams:
            outgoing = plan.asked_whole(backend.name)
        if outgoing.notes:
            context.notes.of_request(backend, outgoing)
        self._outgoing = outgoing
        limits = plan.routing.limits[plan.model.name, backend.name]
        self._deadlines = Deadlines(limits, began, outgoing.streams)

    @property
    def _may_move(self) -> bool:
        """Whether another backend or model could answer, if this attempt fails before there is content."""
        plan = self._plan
        others = plan.instead or plan.routing.fallbacks.get((plan.model.name, "outage"))
        return len(plan.backends) > 1 or bool(others)

    # --- reading -----------------------------------------------------------------------------------

    def read(self) -> Coroutine[Any, Any, list[Event]]:
        """Return the next pieces as the dialect decodes them.

        Raises every way in which an attempt can fail; then `fail` must be called.
        """
        return self._read_piece() if self._outgoing.streams else self._read_whole(self._outgoing)

    async def _read_piece(self) -> list[Event]:
        try:
            exchange, reader = self._exchange, self._reader
            if exchange is None or reader is None:
                exchange, reader = await self._begin_stream()
            try:
                chunk = await self._next(exchange, reader)
                if chunk:
                    if self._content_came and sse.says_done(chunk):  # without content it may be asked again
                        await self._release_slot()
                    events = reader.feed(chunk)
                    if reader.done:
                        return events + await self._end_stream(exchange, reader)
                    self._open_ahead(exchange)
                    return events
            except (UpstreamTruncated, StallTimeout, TotalTimeout) as error:
                self.state = _OVER
                return _broken_off(reader, error)
            if chunk is None:
                return self._end_open_stream(exchange, reader)
            await self._close(exchange, ended=True)
            self.state = _OVER
            return reader.end(clean=True)
        except AskWhole as instruction:
            return [await self._ask_whole(instruction)]

    def _open_ahead(self, exchange: Exchange) -> None:
        """Open a connection for the next request, so that the GPU does not idle meanwhile.

        Needed where requests wait and the server will close the present connection.
        """
        if exchange.last and self._context.dispatcher.queue_depth(self._plan.model.name):
            exchange.prepare()

    async def flow(self, sink: ByteSink) -> None:
        """Pass bytes on as they come, without waking the request's task; returns when `read` is needed."""
        exchange, reader = self._exchange, self._reader
        if exchange is None or reader is None or reader.finished:
            return
        if not (self._passing and self._content_came):
            return
        receipt, clock = self._receipt, self._context.clock

        def take(piece: bytes) -> Taken:
            try:
                if not sink.flows or (passed := reader.passed(piece)) is None:
                    return REFUSED
            except Exception:  # noqa: BLE001 - raised again, and logged, when `read` decodes the piece
                return REFUSED
            self._open_ahead(exchange)
            sink.pour(passed)
            receipt.last_token = clock()
            return HEARD

        await exchange.flow(take)

    async def _read_whole(self, outgoing: Outgoing) -> list[Event]:
        if (self.backend.abandon_whole or outgoing.abandon) == "drain":
            body = await self._wait_uninterruptible(outgoing)
        else:
            body = await self.backend.client.whole(outgoing, self._deadlines, self._may_resend)
        self.state = _OVER
        if self._lease.end():  # as `_release_slot`, without a coroutine where no request waits
            await asyncio.sleep(0)
        events = self._translator.read(outgoing, body)
        self.backend.answered.add(outgoing.doubt)
        return events

    async def _release_slot(self) -> None:
        """End the lease; if a waiting request has got the slot, let it send first."""
        if self._lease.end():
            await asyncio.sleep(0)

    async def _wait_uninterruptible(self, outgoing: Outgoing) -> bytes:
        """Wait for the whole answer of a server that cannot be stopped.

        If the client leaves or the deadline passes, the answer is awaited in the background and holds the
        slot.
        """
        exchange = self.backend.client.exchange(
            outgoing, self._deadlines, whole=True, lasting=True, again=self._may_resend
        )
        try:
            return await exchange.wait_whole()
        except BaseException as error:
            if isinstance(error, TotalTimeout | asyncio.CancelledError) and exchange.underway:
                self._hold_slot(exchange.outlast())
            else:
                await exchange.aclose()
            raise

    async def _begin_stream(self) -> tuple[Exchange, ByteDecoder]:
        drains = (self.backend.abandon_stream or self._outgoing.abandon) == "drain"
        exchange = self._exchange = self.backend.client.exchange(
            self._outgoing, self._deadlines, lasting=drains, again=self._may_resend
        )
        try:
            await exchange.begin()
        except GatewayError as error:
            if not isinstance(error, UpstreamTimeout):  # one that refused the request does not work on it
                await self._close(exchange, ended=True)
            if self._outgoing.tool_names and error.no_tool_streams:
                raise AskWhole("no_tool_stream") from None
            raise
        reader = self._translator.reader(self._outgoing)
        reader.holds = self._may_move
        self._reader = reader
        self.state = AttemptState.OPEN
        return exchange, reader

    async def _next(self, exchange: Exchange, reader: ByteDecoder) -> bytes | None:
        """Return the next bytes, b"" at the end; None where a stream stays open after its finish reason."""
        if not reader.finished:
            if self.state is AttemptState.FINISHED:  # another choice has content again
                self.state = AttemptState.OPEN
            return await exchange.read(begun=self._content_came)
        now = self._context.clock()
        if self.state is not AttemptState.FINISHED:
            self.state, self._finished_at = AttemptState.FINISHED, now
        several = self._plan.alone and self._plan.request.n > 1  # a choice that has not begun may still come
        left = self._finished_at + (max(reader.late, DOUBTFUL) if several else reader.late) - now
        for seconds in (max(0.0, left), 0.0):  # a second look at what came while nothing could be read
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await exchange.read(begun=True)
        return None

    async def _end_stream(self, exchange: Exchange, reader: ByteDecoder) -> list[Event]:
        """End a stream whose end mark has come. The rest of its body is read in the background."""
        events = reader.end(clean=True)
        self.state = _OVER
        if reader.cut:  # the server works on: to be left like an answer that nobody wants
            return events
        await self._release_slot()
        self._exchange = None
        if exchange.ended:
            await exchange.aclose()
        else:
            self._run_behind(wait_end(exchange))
        return events

    def _end_open_stream(self, exchange: Exchange, reader: ByteDecoder) -> list[Event]:
        """End a stream that is still open although its finish reason has come.

        Whether its end mark is missing is not known then, so no repair is reported for it.
        """
        events = [event for event in reader.end(clean=True) if type(event) is not Repair]
        self.state, self._exchange = _OVER, None
        background, name = self._context.background, self.backend.name
        self._lease.linger(self._run_behind(wait_end_mark(exchange, background, name)))
        return events

    def _run_behind(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._context.background.start(work, f"end of {self.backend.name}'s stream")

    async def _ask_whole(self, instruction: AskWhole) -> Event:
        """Start over with a request for a whole answer, as the stream has no answer in it."""
        self.backend.no_streams = self.backend.no_streams or instruction.remember
        if self._exchange is not None:
            await self._close(self._exchange, ended=True)  # only streams without an answer come here
        self._outgoing = self._plan.asked_whole(self.backend.name)
        self._outgoing.stamp = self._context.stamp
        self.state = AttemptState.STARTING
        return Repair(instruction.repair)

    # --- what came ---------------------------------------------------------------------------------

    def noted(self, events: list[Event]) -> list[Event]:
        """Write on the receipt what came; return it with what the backend lacks added by abilities."""
        self._note_progress(events)
        ready = events if self._passing else self._completed(events)  # bytes that pass lack nothing
        receipt = self._receipt
        for event in ready:
            if type(event) is Delta:
                continue
            if type(event) is Usage:
                receipt.usage = event
            elif type(event) is Passed:
                receipt.finish = event.finish or receipt.finish
            elif type(event) is Finish:
                receipt.finish = event.reason
            elif type(event) is Repair:
                receipt.repairs += (event.what,)
                if event.note:
                    self._context.notes.note(self.backend, event.note)
        return ready

    def _note_progress(self, events: list[Event]) -> None:
        """Note the time if there is content among the events; restart or check the deadlines."""
        for event in events:
            if type(event) is Passed:
                self._passing = True
                if not event.content:
                    continue
            elif type(event) is not Delta or not (event.text or says(event)):
                continue
            receipt = self._receipt
            self._content_came = True
            self._deadlines.content()
            receipt.last_token = now = self._context.clock()
            if receipt.first_token is None:
                receipt.first_token = now
            return
        if self.state is not _OVER:
            self._deadlines.nothing(self._context.clock(), begun=self._content_came)

    def _completed(self, events: list[Event]) -> list[Event]:
        """Return the events with what the backend lacks added; none if an ability asks again instead."""
        pipeline = self._pipeline or self._begin_pipeline(events[-1] if events else None)
        if pipeline is None:
            return events
        ready = [out for event in events for out in pipeline.feed(event)]
        if pipeline.done:
            self.state = _OVER
        if self.state is _OVER:
            given = self._given or any(type(one) is not Repair for one in ready)
            ending = pipeline.finish(lambda: not given and self._may_correct())
            if isinstance(ending, AskAgain):
                self.correction = ending
            else:
                ready += ending
        self._given = self._given or any(type(one) is not Repair for one in ready)
        return ready

    def _begin_pipeline(self, last: Event | None) -> Pipeline | None:
        request, outgoing = self._plan.request, self._outgoing
        if isinstance(request, ChatRequest):  # the other operations have no abilities
            self._pipeline = pipeline_of(request, self.backend.dialect, outgoing, outgoing.abilities, last)
        return self._pipeline

    # --- ends --------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Whether a stream is left to `close` before the attempt is settled."""
        return self._exchange is not None

    async def close(self) -> None:
        """Leave a stream whose last piece has come."""
        if self._exchange is not None:
            await self._close(self._exchange, ended=False)

    async def fail(self, error: GatewayError) -> None:
        """End an attempt that has failed."""
        # Reported while the slot is still held, so that it is not granted before the backend's health has
        # changed. Only where the end of an answer cannot be decoded was the slot released before: at most one
        # more request goes there.
        try:
            if not self.backend.retired:
                self._report(error)
        finally:
            await self._leave(error.row.outcome, works_on=isinstance(error, UpstreamTimeout))

    def _report(self, error: GatewayError) -> None:
        """Tell the log and the health of the backend of a failure."""
        context, backend, outgoing = self._context, self.backend, self._outgoing
        if isinstance(error, UpstreamMisconfigured):
            context.notes.misconfigured(backend, outgoing, error)
        if outgoing.doubt and type(error) is UpstreamError:
            context.notes.doubt(backend, outgoing.doubt)
        context.dispatcher.tried(backend.name, error, hash(outgoing.body), self._plan.call.tenant.name)

    async def leave(self) -> None:
        """End an attempt whose client has left."""
        await self._leave("client_gone", works_on=True)

    async def _leave(self, outcome: str, *, works_on: bool) -> None:
        """`works_on`: the server may not have noticed that its answer is not wanted any more."""
        try:
            if self._exchange is not None:
                await self._close(self._exchange, ended=False)
            elif works_on and self._works_on_whole():
                self._hold_slot(wait_probe_answered(self.backend, self._deadlines.total))
        finally:
            self.settle(outcome)

    def _works_on_whole(self) -> bool:
        """Whether a server may still make a whole answer, and only a probe can tell when it has ended."""
        unread = self.state is not _OVER and not self._outgoing.streams
        return unread and self.backend.abandon_whole == "probe"

    def _may_resend(self) -> bool:
        """Note that the request met a connection just being closed; return whether it may be sent once more.

        Noted as an attempt like any other, but not counted against `retries.attempts`, which is for other
        backends.
        """
        if self._plan.routing.attempts == 1:
            return False
        now, receipt, outcome = self._context.clock(), self._receipt, TABLE[UpstreamReset].outcome
        seconds, self._began = now - self._began, now
        receipt.upstream_seconds += seconds
        receipt.attempts += (AttemptRecord(self.backend.name, outcome, seconds),)
        receipt.retries += (outcome,)
        if not self.backend.retired:
            self._context.dispatcher.repeated(self.backend.name)
        return True

    def settle(self, outcome: str) -> bool:
        """Note how the attempt has ended, and end its lease; true if a waiting request has got the slot."""
        dispatcher, receipt, name = self._context.dispatcher, self._receipt, self.backend.name
        try:
            seconds = self._context.clock() - self._began
            receipt.upstream_seconds += seconds
            receipt.attempts += (AttemptRecord(name, outcome, seconds),)
            if outcome == "ok" and not self.backend.retired:
                self.backend.fault = ""
                dispatcher.tried(name, None)
                dispatcher.served(self._plan.model.name, seconds, name)
        except BaseException:
            self._lease.end()
            raise
        return self._lease.end()

    async def _close(self, exchange: Exchange, *, ended: bool) -> None:
        """Leave a stream as its server needs it: closed, read to its end, or followed by a probe."""
        self._exchange = None
        how = "close" if ended else self.backend.abandon_stream or self._outgoing.abandon
        if how == "drain" and self._reader is not None:
            self._hold_slot(wait_drained(exchange, self._deadlines.total))
            return
        if how == "drain" and exchange.underway:  # its answer has still to begin
            self._hold_slot(exchange.outlast())
            return
        if how != "close":  # what has not begun cannot be read to its end
            self._hold_slot(wait_probe_answered(self.backend, self._deadlines.total))
        await exchange.aclose()

    def _hold_slot(self, until: Coroutine[None, None, None]) -> None:
        """Keep the slot until a background task has ended."""
        self._lease.linger(self._context.background.start(until, f"end of {self.backend.name}'s answer"))


def _broken_off(reader: ByteDecoder, error: GatewayError) -> list[Event]:
    """Return the end of a stream that broke off, if its answer was complete; else raise `error`."""
    try:
        return reader.end(clean=False)
    except UpstreamTruncated:
        raise error from None
