"""THE path of a request, from the moment it is understood to the last piece of its answer.

    plan        model -> backends that can take this request, translated for each (planning.py)
    answer      one generation, or `n` of them side by side; read it piece by piece, close it to leave
    Generation  waits for a slot, tries, and is the only retry loop: another backend, then another model, both
                before the first content
    _Try        one try on one backend: ask, decode, give what the backend lacks, note it on the receipt

A client that leaves cancels whichever of these is waiting, and closes the answer. Its slot goes back at
once where the server stops by itself; where the card works on, it stays taken until the card is free.

Everything here is read in batches, one for each piece that a backend's answer came in: what came
together goes on together, and costs one way through these calls. Bytes that pass and need no look do not
even take that way: they `flow`, from connection to connection in one step, until something has to be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from gateway import config
from gateway.abilities import usage
from gateway.abilities.base import Ability, Pipeline
from gateway.abilities.pieces import AnswerSplitter
from gateway.abilities.stop import StopSequences
from gateway.background import Background
from gateway.dialects.base import (
    DOUBTFUL,
    AskWhole,
    ByteDecoder,
    Dialect,
    Outgoing,
    Stamp,
    unstamped,
)
from gateway.dialects.shared.state import says
from gateway.dispatch.dispatcher import Lease, SlotSource
from gateway.errors import (
    TABLE,
    GatewayError,
    NoBackend,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamError,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTruncated,
    forget_trace,
)
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.formats.openai import ChatRequest
from gateway.path.answer import Answer, ByteSink, ParallelChoices
from gateway.path.routing import Plan, RoutingTable
from gateway.scheduling.deadlines import Deadlines
from gateway.scheduling.retry import Failure, RetryBudget, decide
from gateway.scheduling.slot_request import SlotRequest, Ticket
from gateway.telemetry.receipt import AttemptRecord, Receipt
from gateway.upstream.backend import Backend
from gateway.upstream.connection import HEARD, REFUSED, Taken
from gateway.upstream.exchange import Exchange

GRACE = 0.25
"""Seconds that a stream may take to end after its last event, while nobody waits for it."""

MOST_NOTES = 32
"""Most different notes of one backend that are logged."""

PAUSE = 0.25
"""Seconds before the same backend is asked once more, where no other can answer; less by chance, to half."""

Waiting = Callable[[Ticket], None]
"""Is told the ticket of a request that has to wait."""


Watch: TypeAlias = Callable[[Answer, Plan, Receipt], Answer]
"""Gives an answer, begun, as its reader shall have it."""


class Relay:
    """Takes requests to backends and their answers back.

    `chance` gives random numbers from 0 up to 1. `shadow` is shown the answers of models that have one.
    """

    shadow: Watch | None = None
    stamp: Stamp = staticmethod(unstamped)
    """Gives ids and the time to answers whose backend left them out."""
    crash: Callable[[str, BaseException], None] | None = None
    """Is told of exceptions that nobody expected, with the request's id."""

    def __init__(
        self,
        settings: config.Config,
        fleet: Mapping[str, Backend],
        dispatcher: SlotSource,
        background: Background,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
        chance: Callable[[], float],
    ) -> None:
        self.routing = RoutingTable(settings, fleet, chance)
        self.dispatcher = dispatcher
        self.background = background
        self.clock = clock
        self.budget = RetryBudget(settings.retries.budget, settings.retries.least)
        self._note = note
        self.chance = chance

    def reconfigure(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        """Go by other settings. Tries that have begun end by the old ones; who waits is planned anew."""
        self.routing = RoutingTable(settings, fleet, self.chance)
        self.budget.reconfigure(settings.retries.budget, settings.retries.least)

    # --- answer ------------------------------------------------------------------------------------

    def answer(self, plan: Plan, receipt: Receipt, waiting: Waiting) -> Answer:
        """Begin the answer to a request; nothing happens before it is read."""
        self.budget.earn(self.clock())
        receipt.ignored = plan.ignored
        if plan.instead:
            receipt.answered = plan.model.name
        if plan.canary is not None:
            receipt.canary = plan.canary.told
        answer: Answer = Generation(self, plan, receipt, waiting)
        if not plan.alone:
            choices = [answer, *(Generation(self, plan, receipt, waiting) for _ in range(plan.request.n - 1))]
            answer = ParallelChoices(choices, receipt, self.background)
        if plan.model.shadow is not None and self.shadow is not None:
            return self.shadow(answer, plan, receipt)
        return answer

    def unexpected(self, error: Exception, receipt: Receipt) -> GatewayError:
        """What an exception means that reading a backend's answer raised: no code expects such an answer.

        Raises what cannot be the answer's doing.
        """
        if isinstance(error, MemoryError | OSError):
            raise error
        if self.crash is not None:
            self.crash(receipt.request_id, error)
        return UpstreamGarbled("The backend's answer cannot be understood.")

    def tell_notes(self, backend: Backend, outgoing: Outgoing) -> None:
        """Log what the dialect noted of this backend, once."""
        for what in outgoing.notes:
            self.tell_note(backend, what)

    def tell_note(self, backend: Backend, what: str) -> None:
        """Log what was noted of a backend, once; of what a server may say in many ways, only some."""
        if what not in backend.noted and len(backend.noted) < MOST_NOTES:
            backend.noted.add(what)
            self._note(backend.name, what)

    def tell_doubt(self, backend: Backend, doubt: str) -> None:
        """Log, once, that a backend may be another than configured: it answers all requests but this kind."""
        if "" in backend.answered and doubt not in backend.answered | backend.noted:
            backend.noted.add(doubt)
            self._note(backend.name, doubt)

    def tell_fault(self, backend: Backend, outgoing: Outgoing, error: UpstreamMisconfigured) -> None:
        """Log that a backend's configuration does not fit it, once until it has answered well."""
        fault = f"POST {backend.settings.calls.url(outgoing.path)} {error.hint}"
        if backend.fault != fault:
            backend.fault = fault
            self._note(backend.name, fault)


class Generation(Answer):
    """One generation: the loop over its tries."""

    def __init__(self, relay: Relay, plan: Plan, receipt: Receipt, waiting: Waiting) -> None:
        self._relay = relay
        self._plan = plan
        self._receipt = receipt
        self._waiting = waiting
        self._backends = plan.backends
        self._routing = plan.routing  # those that the latest planning went by, successful or not
        self.done = self._content_sent = False
        self._try: Attempt | None = None
        self._tries = 0
        self._waited = 0.0
        self._failed: GatewayError | None = None  # what is told if nobody can answer: of the model asked for
        self._again = ""  # why the next try is one more on the same model
        self._here = ""  # the backend that may be asked once more where no other can answer
        self._repeated = False
        self._others: list[Plan] | None = None  # the models that are left to ask; None: not known yet

    async def read(self) -> list[Event]:
        while True:
            try:
                current = self._try
                if current is None:
                    queued, slot_request = self._relay.clock(), self._slot_request()
                    lease = self._relay.dispatcher.seize(slot_request) if slot_request else None
                    current = (
                        self._start_try(lease, queued)
                        if lease
                        else await self._wait_try(slot_request, queued)
                    )
                try:
                    events = current.noted(await current.read())
                except GatewayError:
                    raise
                except Exception as error:  # noqa: BLE001 - logged, and becomes the backend's failure
                    raise self._relay.unexpected(error, self._receipt) from None
                if current.over:
                    if current.is_open():
                        await current.close()
                    self.done = True
                    if current.settle("ok"):  # somebody who waited has got its slot
                        await asyncio.sleep(0)
            except GatewayError as error:
                await self._end_try(error)
                forget_trace(error)
                continue
            if not (self._content_sent or self.done):
                self._content_sent = any(not isinstance(event, Repair) for event in events)
            return events

    async def flow(self, sink: ByteSink) -> None:
        current = self._try
        if current is not None and self._content_sent:
            await current.flow(sink)

    def _slot_request(self) -> SlotRequest | None:
        """What the next try needs; None where another model has to answer."""
        changed = self._plan.routing is not self._relay.routing
        if changed and (self._backends or self._others is None):
            self._replan()
        here = self._backends or self._others is None
        return self._plan.slot_request(self._backends, self._waited) if here else None

    async def _wait_try(self, slot_request: SlotRequest | None, queued: float) -> Attempt:
        relay, receipt = self._relay, self._receipt
        try:
            if slot_request is not None:
                lease = await relay.dispatcher.lease(slot_request, self._waiting)
            else:
                lease = await self._lease_elsewhere(self._others or [])
            if self._plan.routing is not relay.routing:  # the configuration has changed while it waited
                lease = await self._replanned(lease)
        finally:
            granted = relay.clock()
            self._waited += granted - queued
            receipt.queue_seconds += granted - queued
        return self._start_try(lease, granted)

    def _start_try(self, lease: Lease, granted: float) -> Attempt:
        receipt = self._receipt
        receipt.granted = granted
        self._tries += 1
        if self._again:
            receipt.retries += (self._again,)
            self._again = ""
        try:
            self._try = current = Attempt(self._relay, self._plan, lease, receipt, granted)
        except BaseException:  # nobody else holds the slot yet
            lease.end()
            raise
        return current

    async def _lease_elsewhere(self, plans: list[Plan]) -> Lease:
        """A slot for another model: the first that has one free, else whichever has one first.

        From then on the request is that model's.
        """
        self._others = []  # whoever waits here waits for all of them; nobody is left after that
        while True:
            routing, plans = self._relay.routing, self._of_now(plans)
            try:
                lease = await self._lease_any(plans)
            except NoBackend:
                if self._relay.routing is routing:
                    raise
                continue  # those it waited for are gone; there may be others
            try:  # a reload while it waited may have granted it a backend that none of the plans knew
                plans = self._of_now(plans)
                plan = next((one for one in plans if lease.backend in one.outgoing), None)
            except BaseException:
                lease.end()
                raise
            if plan is not None:
                break
            lease.end()
        self._others = [one for one in plans if one is not plan]
        self._receipt.answered = plan.model.name
        self._plan, self._backends, self._tries = plan, plan.backends, 0
        return lease

    async def _lease_any(self, plans: list[Plan]) -> Lease:
        dispatcher, waited = self._relay.dispatcher, self._waited
        for plan in plans:
            if (lease := dispatcher.seize(plan.slot_request(plan.backends, waited))) is not None:
                return lease
        slot_request = plans[0].slot_request(plans[0].backends, waited)
        slot_request.backends = tuple(dict.fromkeys(name for plan in plans for name in plan.backends))
        return await dispatcher.lease(slot_request, self._waiting)

    def _of_now(self, plans: list[Plan]) -> list[Plan]:
        """These plans by the terms of now. Raises `NoBackend` where none is left."""
        routing = self._relay.routing
        if all(plan.routing is routing for plan in plans):
            return plans
        renewed: dict[str, Plan] = {}
        for plan in plans:
            with suppress(GatewayError):
                one = routing.renewed(plan)
                if one.backends and one.alone:
                    renewed.setdefault(one.model.name, one)
        if not renewed:
            raise NoBackend("No backend of this model can be reached.", retry_after=1.0)
        return list(renewed.values())

    async def _replanned(self, lease: Lease) -> Lease:
        """A lease that fits a plan by the terms of now: this one, if its backend still does."""
        while self._plan.routing is not self._relay.routing:
            try:
                plan = self._replan()
                fits = lease.backend in plan.outgoing
            except BaseException:
                lease.end()
                raise
            if not fits:
                lease.end()
                slot_request = plan.slot_request(self._backends, self._waited)
                lease = await self._relay.dispatcher.lease(slot_request, self._waiting)
        return lease

    def _replan(self) -> Plan:
        routing = self._routing = self._relay.routing
        plan = self._plan = routing.renewed(self._plan)
        if plan.instead:
            self._receipt.answered = plan.model.name
        tried = {attempt.backend for attempt in self._receipt.attempts}
        self._backends = tuple(name for name in plan.backends if name not in tried) or plan.backends
        return plan

    async def _end_try(self, error: GatewayError) -> None:
        """Give up, or leave the rest of the loop another backend to try, or another model."""
        current, self._try = self._try, None
        relay, plan = self._relay, self._plan
        waited = current is None and self._others is None
        if waited and isinstance(error, NoBackend) and self._routing is not relay.routing:
            return  # the backends it waited for are gone; by the configuration of now there may be others
        if current is not None:
            await current.fail(error)
            if self._others is None:  # what another model says of a request that was not its own is no news
                self._failed = error
            # Who is busy told us when to come again, and is left alone till then.
            if not isinstance(error, UpstreamBusy):
                self._backends = tuple(name for name in self._backends if name != current.backend.name)
            self._here = current.backend.name if self._worth_repeating(error) else ""
            failure = Failure(error.row.retryable, self._content_sent, self._tries)
            # A new configuration may have backends that were not there when this was planned.
            somebody = self._backends or (plan.routing is not relay.routing and self._others is None)
            candidates = somebody or self._here
            if candidates and decide(failure, plan.routing.attempts, relay.budget, relay.clock()) == "retry":
                self._again = error.row.outcome
                if not somebody:
                    await self._pause()
                return
        elif self._here and self._others is None and isinstance(error, NoBackend):  # the others are all out
            await self._pause()
            return
        if plan.canary is not None and not self._content_sent and self._has_returned(error):
            return
        # Where nobody was free for a second try, the first failure is the truth.
        failed = self._failed = self._failed or error
        if self._content_sent:
            raise error
        if self._others is None:
            self._others = self._elsewhere(error)
        if not self._others:
            raise failed
        self._backends, self._again = (), ""

    def _worth_repeating(self, error: GatewayError) -> bool:
        """Whether the backend that failed so may be asked once more: it answered with a 5xx."""
        failed = isinstance(error, UpstreamError) and error.status >= 500
        if not failed or self._repeated or self._plan.canary is not None:
            return False
        plan, name = self._plan, self._receipt.backend
        total = plan.routing.limits[plan.model.name, name].total
        return self._relay.clock() + PAUSE - self._receipt.received < total

    async def _pause(self) -> None:
        """Have the backend that failed asked once more, a little later."""
        self._backends, self._here, self._repeated = (self._here,), "", True
        seconds = PAUSE * (1 - 0.5 * self._relay.chance())
        self._waited += seconds
        await asyncio.sleep(seconds)

    def _has_returned(self, error: GatewayError) -> bool:
        """Begin anew with the model that was asked, as its canary has failed; false where that cannot be."""
        receipt, asked = self._receipt, self._relay.routing.returned(self._plan, error)
        if asked is None or asked.canary is None:
            return False
        tried = {attempt.backend for attempt in receipt.attempts}
        self._plan, self._tries, self._failed, self._again = asked, 0, None, ""
        self._backends = tuple(name for name in asked.backends if name not in tried) or asked.backends
        receipt.canary, receipt.answered = asked.canary.told, asked.model.name if asked.instead else ""
        return True

    def _elsewhere(self, error: GatewayError) -> list[Plan]:
        """The models that may answer now; none for one choice of several, as they must all be one model's."""
        plan = self._plan
        if not plan.alone:
            return []
        failed = plan.canary.told.model if plan.canary is not None else ""  # or it could not have taken this
        plans = self._relay.routing.elsewhere(plan.call, plan.model, error)
        return [one for one in plans if one.alone and one.model.name != failed]

    async def aclose(self) -> None:
        if self._try is not None and not self.done:
            await self._try.leave()


class Attempt:
    """One try on one backend, from the slot to the last piece; `over` tells that this has come.

    A slot that somebody waits for is handed on as soon as the card is free, and the next request leaves
    before anything else is done with the answer: until then a card idles.
    """

    def __init__(self, relay: Relay, plan: Plan, lease: Lease, receipt: Receipt, began: float) -> None:
        self.backend = backend = plan.routing.fleet[lease.backend]
        self._relay = relay
        self._plan = plan
        self._lease = lease
        self._receipt = receipt
        self._began = began
        self.over = False
        self._row: Pipeline | None = None
        self._passing = False  # bytes go on as they come
        self._begun = False  # content has come
        self._finished: float | None = None  # when the finish reason came
        self._exchange: Exchange | None = None
        self._reader: ByteDecoder | None = None
        outgoing = plan.outgoing[backend.name]
        outgoing.stamp = relay.stamp
        receipt.backend, receipt.dialect, receipt.ignored = (
            backend.name,
            backend.dialect.name,
            outgoing.ignored,
        )
        if outgoing.streams and backend.no_streams:
            outgoing = plan.asked_whole(backend.name)
        if outgoing.notes:
            relay.tell_notes(backend, outgoing)
        self._outgoing = outgoing
        limits = plan.routing.limits[plan.model.name, backend.name]
        self._deadlines = Deadlines(limits, began, outgoing.streams)

    @property
    def _may_move(self) -> bool:
        """Whether somebody else could still answer, if this try fails before there is content."""
        plan = self._plan
        others = plan.instead or plan.routing.fallbacks.get((plan.model.name, "outage"))
        return len(plan.backends) > 1 or bool(others)

    # --- reading -----------------------------------------------------------------------------------

    def read(self) -> Coroutine[Any, Any, list[Event]]:
        """The next pieces as the dialect reads them.

        Raises every way in which a try can fail; then `fail` must be called.
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
                    if self._begun and sse.says_done(chunk):  # without content it may be asked once more
                        await self._free_card()
                    events = reader.feed(chunk)
                    if reader.done:
                        return events + await self._done(exchange, reader)
                    self._look_ahead(exchange)
                    return events
            except (UpstreamTruncated, StallTimeout, TotalTimeout) as error:
                self.over = True
                return _broken_off(reader, error)
            if chunk is None:
                return self._silent(exchange, reader)
            await self._close(exchange, ended=True)
            self.over = True
            return reader.end(clean=True)
        except AskWhole as instruction:
            return [await self._begin_anew(instruction)]

    def _look_ahead(self, exchange: Exchange) -> None:
        """See to it that a card that somebody waits for need not idle while a connection to it is opened."""
        if exchange.last and self._relay.dispatcher.queue_depth(self._plan.model.name):
            exchange.prepare()

    async def flow(self, sink: ByteSink) -> None:
        """Let bytes go on in the step in which they come: nobody is woken for what needs no look."""
        exchange, reader = self._exchange, self._reader
        if exchange is None or reader is None or not (self._passing and self._begun) or reader.finished:
            return
        receipt, clock = self._receipt, self._relay.clock

        def take(piece: bytes) -> Taken:
            try:
                if not sink.flows or (passed := reader.passed(piece)) is None:
                    return REFUSED
            except Exception:  # noqa: BLE001 - raised again, and told, when the piece is read
                return REFUSED
            self._look_ahead(exchange)
            sink.pour(passed)
            receipt.last_token = clock()
            return HEARD

        await exchange.flow(take)

    async def _read_whole(self, outgoing: Outgoing) -> list[Event]:
        if (self.backend.abandon_whole or outgoing.abandon) == "drain":
            body = await self._whole_in_any_case(outgoing)
        else:
            body = await self.backend.client.whole(outgoing, self._deadlines, self._may_repeat)
        self.over = True
        if self._lease.end():  # as `_free_card`, without a coroutine where nobody waits
            await asyncio.sleep(0)
        events = self.backend.dialect.read(outgoing, body)
        self.backend.answered.add(outgoing.doubt)
        return events

    async def _free_card(self) -> None:
        """Hand the slot on: the card is free, whatever it has said and whenever its stream ends."""
        if self._lease.end():
            await asyncio.sleep(0)

    async def _whole_in_any_case(self, outgoing: Outgoing) -> bytes:
        """The answer of a card that works on whatever happens here: it is awaited even if nobody wants it."""
        exchange = self.backend.client.exchange(
            outgoing, self._deadlines, whole=True, lasting=True, again=self._may_repeat
        )
        try:
            return await exchange.wait_whole()
        except BaseException as error:
            if isinstance(error, TotalTimeout | asyncio.CancelledError) and exchange.underway:
                self._linger(exchange.outlast())
            else:
                await exchange.aclose()
            raise

    async def _begin_stream(self) -> tuple[Exchange, ByteDecoder]:
        drains = (self.backend.abandon_stream or self._outgoing.abandon) == "drain"
        exchange = self._exchange = self.backend.client.exchange(
            self._outgoing, self._deadlines, lasting=drains, again=self._may_repeat
        )
        try:
            await exchange.begin()
        except GatewayError as error:
            if not isinstance(error, UpstreamTimeout):  # whoever did not take the request does not work on it
                await self._close(exchange, ended=True)
            if self._outgoing.tool_names and error.no_tool_streams:
                raise AskWhole("no_tool_stream") from None
            raise
        reader = self._reader = self.backend.dialect.reader(self._outgoing)
        reader.holds = self._may_move
        return exchange, reader

    async def _next(self, exchange: Exchange, reader: ByteDecoder) -> bytes | None:
        """The next bytes, b"" at the end; None where a stream stays open after its finish reason."""
        if not reader.finished:
            self._finished = None
            return await exchange.read(begun=self._begun)
        now = self._relay.clock()
        if self._finished is None:
            self._finished = now
        several = self._plan.alone and self._plan.request.n > 1  # one that has not begun may still come
        left = self._finished + (max(reader.late, DOUBTFUL) if several else reader.late) - now
        for seconds in (max(0.0, left), 0.0):  # once more for what has come while nothing could be read
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await exchange.read(begun=True)
        return None

    async def _done(self, exchange: Exchange, reader: ByteDecoder) -> list[Event]:
        """The end of a stream that has said all it had to say. What is left is read behind the client."""
        events = reader.end(clean=True)
        self.over = True
        if reader.cut:  # the card works on: to be left as any answer that nobody wants
            return events
        await self._free_card()
        self._exchange = None
        if exchange.ended:
            await exchange.aclose()
        else:
            self._behind(_wait_end(exchange))
        return events

    def _silent(self, exchange: Exchange, reader: ByteDecoder) -> list[Event]:
        """The end of a stream that is still open although its finish reason has come.

        Whether its end mark is missing is not known then.
        """
        events = [event for event in reader.end(clean=True) if type(event) is not Repair]
        self.over, self._exchange = True, None
        self._lease.linger(self._behind(_wait_mark(exchange, self._relay.background, self.backend.name)))
        return events

    def _behind(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._relay.background.start(work, f"end of {self.backend.name}'s stream")

    async def _begin_anew(self, instruction: AskWhole) -> Event:
        self.backend.no_streams = self.backend.no_streams or instruction.remember
        self.over = False
        if self._exchange is not None:
            await self._close(self._exchange, ended=True)  # only streams without an answer come here
        self._outgoing = self._plan.asked_whole(self.backend.name)
        self._outgoing.stamp = self._relay.stamp
        return Repair(instruction.repair)

    # --- what came ---------------------------------------------------------------------------------

    def noted(self, events: list[Event]) -> list[Event]:
        """Write on the receipt what came; give it with what the backend lacks added."""
        receipt = self._receipt
        for event in events:
            if type(event) is Passed:
                self._passing = True
                if not event.content:
                    continue
            elif type(event) is not Delta or not (event.text or says(event)):
                continue
            self._begun = True  # as the backend gave it: pieces of our own are no tokens
            self._deadlines.content()
            receipt.last_token = now = self._relay.clock()
            if receipt.first_token is None:
                receipt.first_token = now
            break
        else:
            if not self.over:
                self._deadlines.nothing(self._relay.clock(), begun=self._begun)
        ready = events if self._passing else self._completed(events)  # bytes that pass lack nothing
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
                    self._relay.tell_note(self.backend, event.note)
        return ready

    def _completed(self, events: list[Event]) -> list[Event]:
        row = self._row
        if row is None and not self._outgoing.streams and not self._lacks(events[-1]):
            return events
        if row is None:
            row = self._row = _abilities(self._plan.request, self.backend.dialect, self._outgoing)
        ready = [out for event in events for out in row.feed(event)]
        if row.done:
            self.over = True
        return ready + row.flush() if self.over else ready

    def _lacks(self, last: Event) -> bool:
        """Whether a whole answer has to be cut, to come in pieces, or to be counted."""
        request, honours = self._plan.request, self.backend.dialect.honours
        uncut = request.stop is None or "stop" in honours
        return not (uncut and isinstance(last, Usage)) or request.stream

    # --- ends --------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Whether a stream is left to `close` before the try is settled."""
        return self._exchange is not None

    async def close(self) -> None:
        """Leave a stream whose last piece has come."""
        if self._exchange is not None:
            await self._close(self._exchange, ended=False)

    async def fail(self, error: GatewayError) -> None:
        """End a try that has failed."""
        # Told while the slot is still held, so that it is not handed on before the backend rests. Only where
        # the end of an answer cannot be read its card was freed before: at most one more request goes there.
        try:
            if not self.backend.retired:
                if isinstance(error, UpstreamMisconfigured):
                    self._relay.tell_fault(self.backend, self._outgoing, error)
                if self._outgoing.doubt and type(error) is UpstreamError:
                    self._relay.tell_doubt(self.backend, self._outgoing.doubt)
                self._tell(error)
        finally:
            await self._leave(error.row.outcome, works_on=isinstance(error, UpstreamTimeout))

    def _tell(self, error: GatewayError) -> None:
        tenant = self._plan.call.tenant.name
        self._relay.dispatcher.tried(self.backend.name, error, hash(self._outgoing.body), tenant)

    async def leave(self) -> None:
        """End a try that nobody waits for any more."""
        await self._leave("client_gone", works_on=True)

    async def _leave(self, outcome: str, *, works_on: bool) -> None:
        try:
            if self._exchange is not None:
                await self._close(self._exchange, ended=False)
            elif (
                works_on
                and not (self.over or self._outgoing.streams)
                and self.backend.abandon_whole == "probe"
            ):
                self._linger(_until_free(self.backend, self._deadlines.total))
        finally:
            self.settle(outcome)

    def _may_repeat(self) -> bool:
        """Note a sending that met a connection just being closed; true if there may be one more.

        An attempt like any other, but for the limit of `retries.attempts`: that is for other backends.
        """
        if self._plan.routing.attempts == 1:
            return False
        now, receipt, outcome = self._relay.clock(), self._receipt, TABLE[UpstreamReset].outcome
        seconds, self._began = now - self._began, now
        receipt.upstream_seconds += seconds
        receipt.attempts += (AttemptRecord(self.backend.name, outcome, seconds),)
        receipt.retries += (outcome,)
        if not self.backend.retired:
            self._relay.dispatcher.repeated(self.backend.name)
        return True

    def settle(self, outcome: str) -> bool:
        """Note how the try has ended, and give its slot back; true if somebody who waited has got it."""
        dispatcher, receipt, name = self._relay.dispatcher, self._receipt, self.backend.name
        try:
            seconds = self._relay.clock() - self._began
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
        self._exchange = None
        how = "close" if ended else self.backend.abandon_stream or self._outgoing.abandon
        if how == "drain" and self._reader is not None:
            self._linger(_drained(exchange, self._deadlines.total))
            return
        if how == "drain" and exchange.underway:  # its answer has still to begin
            self._linger(exchange.outlast())
            return
        if how != "close":  # what has not begun cannot be read to its end
            self._linger(_until_free(self.backend, self._deadlines.total))
        await exchange.aclose()

    def _linger(self, until: Coroutine[None, None, None]) -> None:
        self._lease.linger(self._relay.background.start(until, f"end of {self.backend.name}'s answer"))


# What stays when the request is over. None of it holds the request: its memory has been given back.


async def _wait_mark(exchange: Exchange, background: Background, name: str) -> None:
    """Keep the slot until a server that has finished its answer says so, but not for long."""
    try:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(GRACE):
                while (chunk := await exchange.read(begun=True)) and not sse.says_done(chunk):
                    pass
    except BaseException:
        await exchange.aclose()
        raise
    background.start(_wait_end(exchange), f"end of {name}'s stream")


async def _wait_end(exchange: Exchange) -> None:
    """Read the rest of a stream that is over, so that its connection can serve again; or close it."""
    await _drained(exchange, GRACE)


async def _drained(exchange: Exchange, seconds: float) -> None:
    """Read a stream that nobody wants to its end, for so long at most."""
    try:
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await exchange.read(begun=True):
                    pass
    finally:
        await exchange.aclose()


async def _until_free(backend: Backend, seconds: float) -> None:
    # These servers answer nothing while they generate: the first answer tells that the card is free.
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(seconds):
            await backend.client.probe(backend.probe)


def _abilities(request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Pipeline:
    stages: list[Ability] = []
    if request.stops and "stop" not in dialect.honours:
        stages.append(StopSequences(request.stops))
    if request.stream and not outgoing.streams:
        stages.append(AnswerSplitter())
    stages.append(usage.UsageCounter(outgoing.prompt_tokens, dialect.cjk))
    return Pipeline(*stages)


def _broken_off(reader: ByteDecoder, error: GatewayError) -> list[Event]:
    """The end of a stream that broke: a good one, if the answer was complete."""
    try:
        return reader.end(clean=False)
    except UpstreamTruncated:
        raise error from None
