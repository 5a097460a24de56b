"""THE path of a request, from the moment it is understood to the last piece of its answer.

    plan        model -> backends that can take this request, translated for each (raises before waiting)
    answer      one generation, or `n` of them side by side; read it piece by piece, close it to leave
    Generation  waits for a slot, tries, and is the only retry loop: another backend, then another model, both
                before the first content
    _Try        one try on one backend: ask, decode, give what the backend lacks, note it on the receipt

A client that leaves cancels whichever of these is waiting, and closes the answer. Its slot goes back at
once where the server stops by itself; where the card works on, it stays taken until the card is free.

Everything here is read in batches, one for each piece that a backend's answer came in: what came
together goes on together, and costs one way through these calls.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from gateway import config
from gateway.abilities import usage
from gateway.abilities.pieces import Pieces
from gateway.abilities.stage import Row, Stage
from gateway.abilities.stop import Stop
from gateway.dialects.base import AskWhole, ByEvent, ByteDecoder, Dialect, Outgoing, Profile
from gateway.dispatcher import Dispatcher, Lease
from gateway.errors import (
    BadRequest,
    ContextExceeded,
    GatewayError,
    ModelNotFound,
    NoBackend,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamTimeout,
    UpstreamTruncated,
)
from gateway.scheduling import affinity
from gateway.scheduling.claim import Claim, Ticket
from gateway.scheduling.patience import Limits, Patience
from gateway.scheduling.retry import Budget, Failure, cause, decide
from gateway.telemetry.receipt import Attempt, Receipt
from gateway.tenancy.keys import ANONYMOUS, Tenant
from gateway.upstream.backend import Backend, limits
from gateway.upstream.background import Background
from gateway.upstream.exchange import Exchange
from gateway.wire.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.wire.openai import ChatRequest

GRACE = 0.25
"""Seconds that a stream may take to end after its last event."""

Waiting = Callable[[Ticket], None]
"""Is told the ticket of a request that has to wait."""


@dataclass(slots=True)
class Asking:
    """A request as clients may put it: today's form, and one without empty turns where it came as pairs.

    `session` is the client's own name for the conversation it belongs to, if a header gave one.
    """

    request: ChatRequest
    tenant: Tenant = ANONYMOUS
    lean: ChatRequest | None = None
    session: str = ""

    def for_dialect(self, dialect: Dialect) -> ChatRequest:
        """The form this dialect is translated from."""
        return self.request if dialect.pairs or self.lean is None else self.lean

    def single(self) -> Asking:
        """The same for one choice only."""
        return Asking(self.request.single(), self.tenant, self.lean and self.lean.single(), self.session)

    def of(self, model: str) -> Asking:
        """The same, asked of another model."""
        return Asking(self.request.of(model), self.tenant, self.lean and self.lean.of(model), self.session)


@dataclass(slots=True)
class Plan:
    """Where a request may go, already translated. A retry sends the same bytes.

    `backends` are those that can take it, in the order of the configuration; `ignored` is what it loses
    wherever it may go; `alone` tells that one generation makes all its choices, `instead` that the model is
    another than the client asked for; `terms` are those it was made by.
    """

    terms: Terms
    asking: Asking
    request: ChatRequest
    model: config.Model
    outgoing: Mapping[str, Outgoing]
    backends: tuple[str, ...]
    ignored: tuple[str, ...]
    alone: bool
    instead: bool = False


@dataclass(frozen=True, slots=True)
class _Alike:
    """Backends of one model that are sent the same bytes: one dialect, one set of settings."""

    dialect: Dialect
    profile: Profile
    backends: tuple[str, ...]

    def ask(self, asking: Asking, *, stream: bool) -> Outgoing:
        return self.dialect.ask(asking.for_dialect(self.dialect), self.profile, stream=stream)


class Answer(ABC):
    """An answer as it comes. Whoever reads it closes it. `done` tells that all of it has been read."""

    done: bool = False

    @abstractmethod
    async def read(self) -> list[Event]:
        """The next pieces; may be none. Raises whatever ends the answer before its time."""

    @abstractmethod
    async def aclose(self) -> None:
        """Leave. Does nothing after the end."""


class Terms:
    """What a request's way takes from the configuration: one value, which a reload replaces whole.

    A plan keeps the terms it was made by, so that a request in flight has its backend to the end.
    """

    def __init__(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        self.fleet = fleet
        self.attempts = settings.retries.attempts
        self.models = {model.name: model for model in settings.resolved_models}
        self.limits: Mapping[tuple[str, str], Limits] = {
            (model.name, backend.name): limits(settings.timeouts_for(model, backend))
            for model in settings.resolved_models
            for backend in settings.backends_of(model)
        }
        self.fallbacks = {
            (model.name, why): settings.fallbacks_of(model, why)
            for model in settings.resolved_models
            for why in ("outage", "context")
        }
        self.alikes = {model.name: self._alike(model) for model in settings.resolved_models}

    def _alike(self, model: config.Model) -> tuple[_Alike, ...]:
        names: dict[tuple[Dialect, Profile], list[str]] = {}
        for name in model.backends:
            backend = self.fleet[name]
            names.setdefault((backend.dialect, backend.profile(model)), []).append(name)
        return tuple(_Alike(dialect, profile, tuple(same)) for (dialect, profile), same in names.items())


class Relay:
    """Takes requests to backends and their answers back. One for the whole process."""

    def __init__(
        self,
        settings: config.Config,
        fleet: Mapping[str, Backend],
        dispatcher: Dispatcher,
        background: Background,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
    ) -> None:
        self.terms = Terms(settings, fleet)
        self.dispatcher = dispatcher
        self.background = background
        self.clock = clock
        self.budget = Budget(settings.retries.budget, settings.retries.least)
        self._note = note

    def reconfigure(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        """Go by other settings. Tries that have begun end by the old ones; who waits is planned anew."""
        self.terms = Terms(settings, fleet)
        self.budget.reconfigure(settings.retries.budget, settings.retries.least)

    # --- plan --------------------------------------------------------------------------------------

    def plan(self, asking: Asking, model: config.Model) -> Plan:
        """Translate the request for every backend that can take it; if it is too long for all, elsewhere.

        Raises the first backend's `BadRequest` when none can, before anything has waited.
        """
        terms = self.terms
        alikes = terms.alikes.get(model.name)
        if alikes is None:  # a reload came between the reading of the request and this
            raise ModelNotFound("There is no model of that name any more.", param="model")
        request = asking.request
        alone = request.n == 1 or all("n" in alike.dialect.honours for alike in alikes)
        if not alone and request.n > model.max_n:
            raise BadRequest(f"n: this model gives at most {model.max_n} choices.", param="n")
        try:
            one = asking if alone else asking.single()
            if len(alikes) == 1:
                alike = alikes[0]
                dialect = alike.dialect
                asked = one.request if one.lean is None else one.for_dialect(dialect)
                only = dialect.ask(asked, alike.profile, stream=request.stream)
                outgoing = dict.fromkeys(alike.backends, only)
                return Plan(terms, asking, request, model, outgoing, alike.backends, only.ignored, alone)
            outgoing = self._translated(alikes, one)
            ignored = dict.fromkeys(name for one in outgoing.values() for name in one.ignored)
            return Plan(terms, asking, request, model, outgoing, tuple(outgoing), tuple(ignored), alone)
        except ContextExceeded as error:
            plans = self.elsewhere(asking, model, error)
            if not plans:
                raise
            return plans[0]

    def _translated(self, alikes: tuple[_Alike, ...], asking: Asking) -> dict[str, Outgoing]:
        outgoing: dict[str, Outgoing] = {}
        refusal: BadRequest | None = None
        for alike in alikes:
            try:
                outgoing |= dict.fromkeys(alike.backends, alike.ask(asking, stream=asking.request.stream))
            except BadRequest as error:
                refusal = refusal or error
        if refusal is not None and not outgoing:
            raise refusal
        return outgoing

    def elsewhere(self, asking: Asking, model: config.Model, error: GatewayError) -> list[Plan]:
        """Plans for the models that may answer where this one has failed so, the nearest first.

        Those that the tenant may not use, or that cannot take the request, are left out.
        """
        plans: dict[str, Plan] = {}
        why = cause(error)
        for other in self.terms.fallbacks.get((model.name, why), ()) if why else ():
            if asking.tenant.sees(other.name):
                with suppress(BadRequest):
                    plan = self.plan(asking.of(other.name), other)
                    plan.instead = True
                    if plan.backends:  # of a model whose servers are still looked for there are none
                        plans.setdefault(plan.model.name, plan)
        plans.pop(model.name, None)
        return list(plans.values())

    def asked_whole(self, plan: Plan, backend: Backend) -> Outgoing:
        """The same request for a backend whose streams do not work."""
        asking = plan.asking if plan.alone else plan.asking.single()
        alikes = plan.terms.alikes[plan.model.name]
        alike = next(one for one in alikes if backend.name in one.backends)
        return alike.ask(asking, stream=False)

    def renewed(self, plan: Plan) -> Plan:
        """The same request planned by the terms of now. Raises `NoBackend` where its model is gone."""
        model = self.terms.models.get(plan.model.name)
        if model is None:
            raise NoBackend("No backend of this model can be reached.", retry_after=1.0)
        renewed = self.plan(plan.asking if plan.alone else plan.asking.single(), model)
        renewed.instead = renewed.instead or plan.instead
        return renewed

    # --- answer ------------------------------------------------------------------------------------

    def answer(self, plan: Plan, receipt: Receipt, waiting: Waiting) -> Answer:
        """Begin the answer to a request; nothing happens before it is read."""
        self.budget.earn(self.clock())
        receipt.ignored = plan.ignored
        if plan.instead:
            receipt.answered = plan.model.name
        if plan.alone:
            return Generation(self, plan, receipt, waiting)
        return _SideBySide(self, plan, receipt, waiting)

    def tell_notes(self, backend: Backend, outgoing: Outgoing) -> None:
        """Log what the dialect noted of this backend, once."""
        for what in outgoing.notes:
            if what not in backend.noted:
                backend.noted.add(what)
                self._note(backend.name, what)


class Generation(Answer):
    """One generation: the loop over its tries."""

    _try: _Try | None = None
    _tries = 0
    _content_sent = False
    _waited = 0.0
    _failed: GatewayError | None = None
    """What is told if nobody can answer: of the model that was asked."""
    _again = ""
    """Why the next try is one more on the same model."""
    _others: list[Plan] | None = None
    """The models that are left to ask; None as long as this is not known."""

    def __init__(self, relay: Relay, plan: Plan, receipt: Receipt, waiting: Waiting) -> None:
        self._relay = relay
        self._plan = plan
        self._receipt = receipt
        self._waiting = waiting
        self._backends = plan.backends

    async def read(self) -> list[Event]:
        while True:
            try:
                current = self._try or await self._begin()
                events = current.noted(await current.read())
                if current.over:
                    await current.end()
                    self.done = True
            except GatewayError as error:
                await self._end_try(error)
                continue
            for event in events:
                if not isinstance(event, Repair):
                    self._content_sent = True
                    break
            return events

    async def _begin(self) -> _Try:
        relay, receipt = self._relay, self._receipt
        queued = relay.clock()
        if self._plan.terms is not relay.terms and (self._backends or self._others is None):
            self._replan()
        try:
            if self._backends or self._others is None:
                claim = _claim(self._plan, self._backends, self._waited)
                lease = await relay.dispatcher.lease(claim, self._waiting)
            else:
                lease = await self._lease_elsewhere(self._others or [])
            if self._plan.terms is not relay.terms:  # the configuration has changed while it waited
                lease = await self._replanned(lease)
        finally:
            granted = relay.clock()
            self._waited += granted - queued
            receipt.queue_seconds += granted - queued
        receipt.granted = granted
        self._tries += 1
        if self._again:
            receipt.retries.append(self._again)
            self._again = ""
        try:
            self._try = current = _Try(relay, self._plan, lease, receipt, granted)
        except BaseException:  # nobody else holds the slot yet
            lease.end()
            raise
        return current

    async def _lease_elsewhere(self, plans: list[Plan]) -> Lease:
        """A slot for another model: the first that has one free, else whichever has one first.

        From then on the request is that model's.
        """
        dispatcher, waited = self._relay.dispatcher, self._waited
        self._others = []  # whoever waits here waits for all of them; nobody is left after that
        for plan in plans:
            if (lease := dispatcher.seize(_claim(plan, plan.backends, waited))) is not None:
                break
        else:
            every = tuple(dict.fromkeys(name for plan in plans for name in plan.backends))
            claim = _claim(plans[0], plans[0].backends, waited)
            claim.backends = every
            lease = await dispatcher.lease(claim, self._waiting)
            plan = next(one for one in plans if lease.backend in one.backends)
        self._others = [one for one in plans if one is not plan]
        self._receipt.answered = plan.model.name
        self._plan, self._backends, self._tries = plan, plan.backends, 0
        return lease

    async def _replanned(self, lease: Lease) -> Lease:
        """A lease that fits a plan by the terms of now: this one, if its backend still does."""
        while self._plan.terms is not self._relay.terms:
            try:
                plan = self._replan()
            except GatewayError:
                lease.end()
                raise
            if lease.backend not in plan.outgoing:
                lease.end()
                claim = _claim(plan, self._backends, self._waited)
                lease = await self._relay.dispatcher.lease(claim, self._waiting)
        return lease

    def _replan(self) -> Plan:
        plan = self._plan = self._relay.renewed(self._plan)
        tried = {attempt.backend for attempt in self._receipt.attempts}
        self._backends = tuple(name for name in plan.backends if name not in tried) or plan.backends
        return plan

    async def _end_try(self, error: GatewayError) -> None:
        """Give up, or leave the rest of the loop another backend to try, or another model."""
        current, self._try = self._try, None
        relay, plan = self._relay, self._plan
        if current is not None:
            await current.fail(error)
            if self._others is None:  # what another model says of a request that was not its own is no news
                self._failed = error
            # Who is busy told us when to come again, and is left alone till then.
            if not isinstance(error, UpstreamBusy):
                self._backends = tuple(name for name in self._backends if name != current.backend.name)
            failure = Failure(error.row.retryable, self._content_sent, self._tries)
            # A new configuration may have backends that were not there when this was planned.
            somebody = self._backends or (plan.terms is not relay.terms and self._others is None)
            if somebody and decide(failure, plan.terms.attempts, relay.budget, relay.clock()) == "retry":
                self._again = error.row.outcome
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

    def _elsewhere(self, error: GatewayError) -> list[Plan]:
        """The models that may answer now; none for one choice of several, as they must all be one model's."""
        plan = self._plan
        if not plan.alone:
            return []
        return [one for one in self._relay.elsewhere(plan.asking, plan.model, error) if one.alone]

    async def aclose(self) -> None:
        if self._try is not None and not self.done:
            await self._try.leave()


class _Try:
    """One try on one backend, from the slot to the last piece; `over` tells that this has come."""

    over = False
    _row: Row | None = None
    _passing = False
    """Bytes go on as they come."""
    _exchange: Exchange | None = None
    _reader: ByteDecoder | None = None
    _begun = False
    """Content has come."""
    _complete = False
    """The answer is whole; its stream has still to end."""

    def __init__(self, relay: Relay, plan: Plan, lease: Lease, receipt: Receipt, began: float) -> None:
        self.backend = backend = plan.terms.fleet[lease.backend]
        self._relay = relay
        self._plan = plan
        self._lease = lease
        self._receipt = receipt
        self._began = began
        outgoing = plan.outgoing[backend.name]
        receipt.backend, receipt.dialect, receipt.ignored = (
            backend.name,
            backend.dialect.name,
            outgoing.ignored,
        )
        if outgoing.streams and backend.no_streams:
            outgoing = relay.asked_whole(plan, backend)
        if outgoing.notes:
            relay.tell_notes(backend, outgoing)
        self._outgoing = outgoing
        self._patience = Patience(
            plan.terms.limits[plan.model.name, backend.name], began, streams=outgoing.streams
        )

    @property
    def _may_move(self) -> bool:
        """Whether somebody else could still answer, if this try fails before there is content."""
        plan = self._plan
        others = plan.instead or plan.terms.fallbacks.get((plan.model.name, "outage"))
        return len(plan.backends) > 1 or bool(others)

    # --- reading -----------------------------------------------------------------------------------

    async def read(self) -> list[Event]:
        """The next pieces as the dialect reads them.

        Raises every way in which a try can fail; then `fail` must be called.
        """
        if not self._outgoing.streams:
            return await self._read_whole(self._outgoing)
        try:
            exchange, reader = self._exchange, self._reader
            if exchange is None or reader is None:
                exchange, reader = await self._begin_stream()
            if self._complete:
                await self._see_the_end(exchange)
                return []
            try:
                chunk = await exchange.read(begun=self._begun)
                if chunk:
                    events = reader.feed(chunk)
                    if reader.done:
                        events += reader.end(clean=True)
                        self._complete, self.over = True, exchange.ended
                    return events
            except (UpstreamTruncated, StallTimeout, TotalTimeout) as error:
                self.over = True
                return _broken_off(reader, error)
            await self._close(exchange, ended=True)
            self.over = True
            return reader.end(clean=True)
        except AskWhole as instruction:
            return [await self._begin_anew(instruction)]

    async def _read_whole(self, outgoing: Outgoing) -> list[Event]:
        # Where the card works on whatever happens here, the exchange outlives a client that leaves.
        drained = (self.backend.abandon_whole or outgoing.abandon) == "drain"
        ask = self._whole_in_any_case if drained else self.backend.client.whole
        body = await ask(outgoing, self._patience)
        self.over = True
        return self.backend.dialect.answer(outgoing, body)

    async def _whole_in_any_case(self, outgoing: Outgoing, patience: Patience) -> bytes:
        relay = self._relay
        task = relay.background.start(
            self.backend.client.whole(outgoing, patience.doubled()), f"answer of {self.backend.name}"
        )
        self._lease.linger(task)
        deadline = patience.deadline(relay.clock(), begun=False)
        try:
            async with asyncio.timeout(deadline - relay.clock()):
                return await asyncio.shield(task)
        except TimeoutError:
            raise patience.error(deadline, begun=False) from None

    async def _begin_stream(self) -> tuple[Exchange, ByteDecoder]:
        exchange = self._exchange = self.backend.client.exchange(self._outgoing, self._patience)
        try:
            await exchange.begin()
        except GatewayError as error:
            if not isinstance(error, UpstreamTimeout):  # whoever did not take the request does not work on it
                await self._close(exchange, ended=True)
            raise
        decoder = self.backend.dialect.decoder(self._outgoing)
        reader = self._reader = decoder if isinstance(decoder, ByteDecoder) else ByEvent(decoder)
        reader.holds = self._may_move
        return exchange, reader

    async def _see_the_end(self, exchange: Exchange) -> None:
        """Wait until a stream that has said all it had to say really ends: its connection can serve again."""
        self.over = True
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(GRACE):
                while await exchange.read(begun=True):
                    pass
            await self._close(exchange, ended=True)

    async def _begin_anew(self, instruction: AskWhole) -> Event:
        self.backend.no_streams = self.backend.no_streams or instruction.remember
        self.over = False
        if self._exchange is not None:
            await self._close(self._exchange, ended=True)  # only streams without an answer come here
        self._outgoing = self._relay.asked_whole(self._plan, self.backend)
        return Repair(instruction.repair)

    # --- what came ---------------------------------------------------------------------------------

    def noted(self, events: list[Event]) -> list[Event]:
        """Write on the receipt what came; give it with what the backend lacks added."""
        receipt = self._receipt
        for event in events:
            if isinstance(event, Passed):
                self._passing = True
                if not event.content:
                    continue
            elif not isinstance(event, Delta):
                continue
            self._begun = True  # as the backend gave it: pieces of our own are no tokens
            receipt.last_token = now = self._relay.clock()
            if receipt.first_token is None:
                receipt.first_token = now
            break
        ready = events if self._passing else self._completed(events)  # bytes that pass lack nothing
        for event in ready:
            if isinstance(event, Passed):
                if event.finish is not None:
                    receipt.finish = event.finish
            elif isinstance(event, Finish):
                receipt.finish = event.reason
            elif isinstance(event, Usage):
                receipt.usage = event
            elif isinstance(event, Repair):
                receipt.repairs.append(event.what)
        return ready

    def _completed(self, events: list[Event]) -> list[Event]:
        row = self._row
        if row is None:
            row = self._row = _abilities(self._plan.request, self.backend.dialect, self._outgoing)
        ready = [out for event in events for out in row.feed(event)]
        if row.done:
            self.over = True
        return ready + row.flush() if self.over else ready

    # --- ends --------------------------------------------------------------------------------------

    async def end(self) -> None:
        """End a try whose last piece has come."""
        if self._exchange is not None:
            await self._close(self._exchange, ended=False)
        self._settle("ok")

    async def fail(self, error: GatewayError) -> None:
        """End a try that has failed."""
        # Told while the slot is still held, so that it is not handed on before the backend rests.
        if not self.backend.retired:
            self._relay.dispatcher.tried(self.backend.name, error, hash(self._outgoing.body))
        await self._leave(error.row.outcome, works_on=isinstance(error, UpstreamTimeout))

    async def leave(self) -> None:
        """End a try that nobody waits for any more."""
        await self._leave("client_gone", works_on=True)

    async def _leave(self, outcome: str, *, works_on: bool) -> None:
        try:
            if self._exchange is not None:
                await self._close(self._exchange, ended=False)
            elif works_on and not self._outgoing.streams and self.backend.abandon_whole == "probe":
                self._linger(self._until_free())
        finally:
            self._settle(outcome)

    def _settle(self, outcome: str) -> None:
        dispatcher, receipt, name = self._relay.dispatcher, self._receipt, self.backend.name
        seconds = self._relay.clock() - self._began
        if outcome == "ok" and not self.backend.retired:
            dispatcher.tried(name, None)
            dispatcher.served(self._plan.model.name, seconds, name)
        receipt.upstream_seconds += seconds
        receipt.attempts.append(Attempt(name, outcome, seconds))
        self._lease.end()

    async def _close(self, exchange: Exchange, *, ended: bool) -> None:
        self._exchange = None
        how = "close" if ended else self.backend.abandon_stream or self._outgoing.abandon
        if how == "drain" and self._reader is not None:
            self._linger(self._drained(exchange))
            return
        if how != "close":  # what has not begun cannot be read to its end
            self._linger(self._until_free())
        await exchange.aclose()

    def _linger(self, until: Coroutine[None, None, None]) -> None:
        self._lease.linger(self._relay.background.start(until, f"end of {self.backend.name}'s answer"))

    async def _drained(self, exchange: Exchange) -> None:
        """Read a stream that nobody wants to its end."""
        try:
            with suppress(GatewayError, TimeoutError):
                async with asyncio.timeout(self._patience.total):
                    while await exchange.read(begun=True):
                        pass
        finally:
            await exchange.aclose()

    async def _until_free(self) -> None:
        # These servers answer nothing while they generate: the first answer tells that the card is free.
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(self._patience.total):
                await self.backend.client.probe(self.backend.dialect.probe)


def _claim(plan: Plan, backends: tuple[str, ...], waited: float) -> Claim:
    tenant, model = plan.asking.tenant, plan.model
    size = len(plan.outgoing[backends[0]].body) if backends else 0
    claim = Claim(model.name, backends, tenant.name, tenant.weight, tenant.priority, size)
    claim.waited = waited
    if model.balance == "session":
        named = plan.asking.session or plan.request.user
        claim.affinity = affinity.session(named, _turns(plan.request, opening=True))
    elif model.balance == "prefix":
        claim.prefix = affinity.chain(_turns(plan.request, opening=False))
    return claim


def _turns(request: ChatRequest, *, opening: bool) -> Iterator[bytes]:
    """The messages as bytes; of the opening only those up to the first of the user."""
    for message in request.messages:
        yield repr(message).encode(errors="surrogatepass")
        if opening and message.role == "user":
            return


def _abilities(request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Row:
    stages: list[Stage] = []
    if request.stops and "stop" not in dialect.honours:
        stages.append(Stop(request.stops))
    if request.stream and not outgoing.streams:
        stages.append(Pieces())
    stages.append(usage.Count(outgoing.prompt_tokens, dialect.cjk))
    return Row(*stages)


def _broken_off(reader: ByteDecoder, error: GatewayError) -> list[Event]:
    """The end of a stream that broke: a good one, if the answer was complete."""
    try:
        return reader.end(clean=False)
    except UpstreamTruncated:
        raise error from None


class _SideBySide(Answer):
    """`n` generations, each with a ticket of its own (rule T8); fails as soon as one fails."""

    def __init__(self, relay: Relay, plan: Plan, receipt: Receipt, waiting: Waiting) -> None:
        self._going = plan.request.n
        self._receipt = receipt
        self._usages: list[Usage] = []
        self._queue: asyncio.Queue[tuple[int, list[Event] | Exception | None]] = asyncio.Queue(self._going)
        self._tasks = [
            relay.background.start(
                _pump(choice, Generation(relay, plan, receipt, waiting), self._queue),
                f"choice {choice} of {receipt.request_id}",
            )
            for choice in range(self._going)
        ]

    async def read(self) -> list[Event]:
        choice, item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        if item is not None:
            return [out for event in item if (out := self._of_choice(event, choice)) is not None]
        self._going -= 1
        if self._going:
            return []
        self.done = True
        whole = usage.total(self._usages)
        self._receipt.usage = whole
        return [whole]

    def _of_choice(self, event: Event, choice: int) -> Event | None:
        if isinstance(event, Usage):
            self._usages.append(event)
            return None
        return replace(event, choice=choice) if isinstance(event, Delta | Finish) else event

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(
    choice: int, answer: Generation, queue: asyncio.Queue[tuple[int, list[Event] | Exception | None]]
) -> None:
    try:
        while not answer.done:
            await queue.put((choice, await answer.read()))
    except Exception as error:  # noqa: BLE001 - not swallowed: the reader of the queue raises it
        await queue.put((choice, error))
    else:
        await queue.put((choice, None))
    finally:
        await answer.aclose()
