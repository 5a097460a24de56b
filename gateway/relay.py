"""THE path of a request, from the moment it is understood to the last piece of its answer.

    plan       model -> backends that can take this request, translated for each (raises before waiting)
    events     one generation, or `n` of them side by side
    _generate  wait for a slot, try, and the only retry loop: another backend, before the first content
    _attempt   one try on one backend: ask, decode, give what the backend lacks, note it on the receipt
    _whole     a server that answers whole     _stream  one that streams

A client that leaves cancels whichever of these is running. Its slot goes back at once where the server
stops by itself; where the card works on, it stays taken until the card is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from gateway import config
from gateway.abilities import usage
from gateway.abilities.pieces import Pieces
from gateway.abilities.stage import Row, Stage
from gateway.abilities.stop import Stop
from gateway.dialects.base import AskWhole, ByEvent, ByteDecoder, Decoder, Dialect, Outgoing, Profile
from gateway.dispatcher import Dispatcher, Lease
from gateway.errors import (
    BadRequest,
    ConnectFailed,
    GatewayError,
    StallTimeout,
    TotalTimeout,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling import affinity
from gateway.scheduling.claim import Claim, Ticket
from gateway.scheduling.patience import Patience
from gateway.scheduling.retry import Budget, Failure, decide
from gateway.telemetry.receipt import Attempt, Receipt
from gateway.tenancy.keys import ANONYMOUS, Tenant
from gateway.upstream.backend import Backend, limits
from gateway.upstream.background import Background
from gateway.wire.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.wire.openai import ChatRequest

GRACE = 0.25
"""Seconds that a stream may take to end after its last event."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request as clients may put it: today's form, and one without empty turns where it came as pairs."""

    request: ChatRequest
    lean: ChatRequest | None = None

    def for_dialect(self, dialect: Dialect) -> ChatRequest:
        """The form this dialect is translated from."""
        return self.request if dialect.pairs or self.lean is None else self.lean

    def single(self) -> Asking:
        """The same for one choice only."""
        return Asking(self.request.single(), self.lean.single() if self.lean else None)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a request may go, already translated. A retry sends the same bytes."""

    asking: Asking
    model: config.Model
    outgoing: Mapping[str, Outgoing]
    alone: bool
    tenant: Tenant = ANONYMOUS

    @property
    def request(self) -> ChatRequest:
        """What the client asked."""
        return self.asking.request

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that can take it, in the order of the configuration."""
        return tuple(self.outgoing)

    @property
    def ignored(self) -> tuple[str, ...]:
        """What the request loses wherever it may go."""
        return tuple(dict.fromkeys(name for outgoing in self.outgoing.values() for name in outgoing.ignored))


@dataclass(frozen=True, slots=True)
class _Alike:
    """Backends of one model that are sent the same bytes: one dialect, one set of settings."""

    dialect: Dialect
    profile: Profile
    backends: tuple[str, ...]

    def ask(self, asking: Asking, *, stream: bool) -> Outgoing:
        return self.dialect.ask(asking.for_dialect(self.dialect), self.profile, stream=stream)


class _Try:
    """One try: how long it may take and whether content has come."""

    def __init__(self, patience: Patience, lease: Lease) -> None:
        self.patience = patience
        self.lease = lease
        self.begun = False


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
        self._settings = settings
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._background = background
        self._clock = clock
        self._note = note
        self._budget = Budget(settings.retries.budget)
        self._timeouts = {
            (model.name, backend.name): limits(settings.timeouts_for(model, backend))
            for model in settings.resolved_models
            for backend in settings.backends_of(model)
        }
        self._alikes = {model.name: self._alike(model) for model in settings.resolved_models}

    def _alike(self, model: config.Model) -> tuple[_Alike, ...]:
        names: dict[tuple[Dialect, Profile], list[str]] = {}
        for name in model.backends:
            backend = self._fleet[name]
            names.setdefault((backend.dialect, backend.profile(model)), []).append(name)
        return tuple(_Alike(dialect, profile, tuple(same)) for (dialect, profile), same in names.items())

    # --- plan --------------------------------------------------------------------------------------

    def plan(self, asking: Asking, model: config.Model, tenant: Tenant = ANONYMOUS) -> Plan:
        """Translate the request for every backend that can take it.

        Raises the first backend's `BadRequest` when none can, before anything has waited.
        """
        alikes = self._alikes[model.name]
        alone = asking.request.n == 1 or all("n" in alike.dialect.honours for alike in alikes)
        if not alone and asking.request.n > model.max_n:
            raise BadRequest(f"n: this model gives at most {model.max_n} choices.", param="n")
        one = asking if alone else asking.single()
        outgoing: dict[str, Outgoing] = {}
        refusal: BadRequest | None = None
        for alike in alikes:
            try:
                outgoing |= dict.fromkeys(alike.backends, alike.ask(one, stream=one.request.stream))
            except BadRequest as error:
                refusal = refusal or error
        if refusal is not None and not outgoing:
            raise refusal
        return Plan(asking, model, outgoing, alone, tenant)

    # --- events ------------------------------------------------------------------------------------

    def events(
        self, plan: Plan, receipt: Receipt, waiting: Callable[[Ticket], None]
    ) -> AsyncGenerator[Event, None]:
        """The pieces of the answer as they come. Close it to leave."""
        self._budget.earn()
        receipt.ignored = plan.ignored
        if plan.alone:
            return self._generate(plan, receipt, waiting)
        return self._side_by_side(plan, receipt, waiting)

    async def _side_by_side(
        self, plan: Plan, receipt: Receipt, waiting: Callable[[Ticket], None]
    ) -> AsyncGenerator[Event, None]:
        """`n` generations, each with a ticket of its own (rule T8); fails as soon as one fails."""
        queue: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue(maxsize=plan.request.n)
        tasks = [
            self._background.start(
                _pump(choice, self._generate(plan, receipt, waiting), queue),
                f"choice {choice} of {receipt.request_id}",
            )
            for choice in range(plan.request.n)
        ]
        usages: list[Usage] = []
        try:
            async for choice, event in _merged(queue, len(tasks)):
                if isinstance(event, Usage):
                    usages.append(event)
                else:
                    yield replace(event, choice=choice) if isinstance(event, Delta | Finish) else event
            whole = usage.total(usages)
            receipt.usage = whole
            yield whole
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- the retry loop ----------------------------------------------------------------------------

    async def _generate(
        self, plan: Plan, receipt: Receipt, waiting: Callable[[Ticket], None]
    ) -> AsyncGenerator[Event, None]:
        backends = plan.backends
        failed: GatewayError | None = None
        for attempt in range(1, self._settings.retries.attempts + 1):
            content_sent = False
            queued = self._clock()
            tried: str | None = None
            try:
                lease = await self._dispatcher.lease(_claim(plan, backends), waiting)
                try:
                    tried = lease.backend
                    receipt.granted = self._clock()
                    receipt.queue_seconds += receipt.granted - queued
                    async with aclosing(self._attempt(plan, lease, receipt)) as events:
                        async for event in events:
                            content_sent = content_sent or not isinstance(event, Repair)
                            yield event
                finally:
                    lease.end()
                return
            except GatewayError as error:
                if tried is None:  # nobody else was free for a second try: the first failure is the truth
                    raise failed or error from None
                failed = error
                backends = tuple(name for name in backends if name != tried)
                failure = Failure(error.row.retryable, content_sent, attempt)
                if not backends or decide(failure, self._settings.retries.attempts, self._budget) != "retry":
                    raise
                receipt.retries.append(error.row.outcome)

    def _learn(self, backend: str, error: GatewayError) -> None:
        if isinstance(error, ConnectFailed | UpstreamReset | UpstreamTLS):
            self._dispatcher.failed(backend, error.row.outcome)
        elif not isinstance(error, UpstreamTimeout):
            self._dispatcher.answered(backend)

    # --- one try -----------------------------------------------------------------------------------

    async def _attempt(self, plan: Plan, lease: Lease, receipt: Receipt) -> AsyncGenerator[Event, None]:
        backend = self._fleet[lease.backend]
        began = self._clock()
        outcome = "client_gone"
        receipt.backend, receipt.dialect = backend.name, backend.dialect.name
        receipt.ignored = plan.outgoing[backend.name].ignored
        try:
            async with aclosing(self._ask(plan, backend, lease, receipt)) as events:
                async for event in events:
                    self._write_down(event, receipt)
                    yield event
            outcome = "ok"
            self._dispatcher.answered(backend.name)
            self._dispatcher.served(plan.model.name, self._clock() - began, backend.name)
        except GatewayError as error:
            outcome = error.row.outcome
            # While the slot is still held, so that it is not handed on before the backend rests.
            self._learn(backend.name, error)
            raise
        finally:
            seconds = self._clock() - began
            receipt.upstream_seconds += seconds
            receipt.attempts.append(Attempt(backend.name, outcome, seconds))

    def _write_down(self, event: Event, receipt: Receipt) -> None:
        if isinstance(event, Finish):
            receipt.finish = event.reason
        elif isinstance(event, Usage):
            receipt.usage = event
        elif isinstance(event, Repair):
            receipt.repairs.append(event.what)
        elif isinstance(event, Passed):
            receipt.finish = event.finish or receipt.finish

    async def _ask(
        self, plan: Plan, backend: Backend, lease: Lease, receipt: Receipt
    ) -> AsyncGenerator[Event, None]:
        """The backend's answer with what it lacks added."""
        outgoing = plan.outgoing[backend.name]
        if outgoing.streams and backend.no_streams:
            outgoing = self._again_whole(plan, backend)
        patience = Patience(
            self._timeouts[plan.model.name, backend.name], self._clock(), streams=outgoing.streams
        )
        attempt = _Try(patience, lease)
        self._tell_notes(backend, outgoing)
        row = _abilities(plan.request, backend.dialect, outgoing)
        async with aclosing(self._decoded(plan, backend, outgoing, attempt)) as events:
            async for event in events:
                if isinstance(
                    event, Delta | Passed
                ):  # as the backend gave it: pieces of our own are no tokens
                    attempt.begun = True
                    receipt.last_token = self._clock()
                    receipt.first_token = receipt.first_token or receipt.last_token
                for ready in row.feed(event):
                    yield ready
                if row.done:
                    break
        for ready in row.flush():
            yield ready

    async def _decoded(
        self, plan: Plan, backend: Backend, outgoing: Outgoing, attempt: _Try
    ) -> AsyncGenerator[Event, None]:
        if outgoing.streams:
            try:
                async with aclosing(self._stream(backend, outgoing, attempt)) as events:
                    async for event in events:
                        yield event
                return
            except AskWhole as instruction:
                backend.no_streams = backend.no_streams or instruction.remember
                yield Repair(instruction.repair)
            outgoing = self._again_whole(plan, backend)
        for event in backend.dialect.answer(outgoing, await self._whole(backend, outgoing, attempt)):
            yield event

    def _again_whole(self, plan: Plan, backend: Backend) -> Outgoing:
        asking = plan.asking if plan.alone else plan.asking.single()
        alike = next(one for one in self._alikes[plan.model.name] if backend.name in one.backends)
        return alike.ask(asking, stream=False)

    async def _whole(self, backend: Backend, outgoing: Outgoing, attempt: _Try) -> bytes:
        if outgoing.abandon == "close":
            return await backend.client.whole(outgoing, attempt.patience)
        # The card works on whatever happens here: the exchange outlives a client that leaves or a limit
        # that passes, and the slot with it.
        task = self._background.start(
            backend.client.whole(outgoing, attempt.patience.doubled()), f"answer of {backend.name}"
        )
        attempt.lease.linger(task)
        deadline = attempt.patience.deadline(self._clock(), begun=False)
        try:
            async with asyncio.timeout(deadline - self._clock()):
                return await asyncio.shield(task)
        except TimeoutError:
            raise attempt.patience.error(deadline, begun=False) from None

    async def _stream(
        self, backend: Backend, outgoing: Outgoing, attempt: _Try
    ) -> AsyncGenerator[Event, None]:
        decoder = backend.dialect.decoder(outgoing)
        ended = True
        try:
            async with backend.client.stream(outgoing, attempt.patience, lambda: attempt.begun) as chunks:
                ended = False
                async with aclosing(_read(chunks, decoder)) as events:
                    async for event in events:
                        yield event
                ended = await _drained(chunks)
        except AskWhole:
            ended = True  # only without an answer
            raise
        finally:
            if not ended and outgoing.abandon == "probe":
                waiting = self._until_free(backend, attempt.patience)
                attempt.lease.linger(self._background.start(waiting, f"end of {backend.name}'s stream"))

    async def _until_free(self, backend: Backend, patience: Patience) -> None:
        # These servers answer nothing while they generate: the first answer tells that the card is free.
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(patience.total):
                await backend.client.probe(backend.dialect.probe)

    def _tell_notes(self, backend: Backend, outgoing: Outgoing) -> None:
        for what in outgoing.notes:
            if what not in backend.noted:
                backend.noted.add(what)
                self._note(backend.name, what)


def _claim(plan: Plan, backends: tuple[str, ...]) -> Claim:
    tenant = plan.tenant
    size = len(plan.outgoing[backends[0]].body)
    claim = Claim(plan.model.name, backends, tenant.name, tenant.weight, tenant.priority, size)
    if plan.model.balance == "session":
        claim.affinity = affinity.session(plan.request.user, _turns(plan.request, opening=True))
    elif plan.model.balance == "prefix":
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


async def _read(chunks: AsyncIterator[bytes], decoder: Decoder | ByteDecoder) -> AsyncGenerator[Event, None]:
    """Decode a stream to its end; a break after the answer was complete is a good end."""
    reader = decoder if isinstance(decoder, ByteDecoder) else ByEvent(decoder)
    broken: GatewayError | None = None
    try:
        async for chunk in chunks:
            for event in reader.feed(chunk):
                yield event
            if reader.done:
                break
    except (UpstreamTruncated, StallTimeout, TotalTimeout) as error:
        broken = error
    try:
        ending = reader.end(clean=broken is None)
    except UpstreamTruncated as error:
        raise broken or error from None
    for event in ending:
        yield event


async def _drained(chunks: AsyncIterator[bytes]) -> bool:
    """Whether a stream that has said all it had to say really ends; then its connection can be used again."""
    with suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(GRACE):
            async for _ in chunks:
                pass
        return True
    return False


async def _pump(
    choice: int,
    events: AsyncGenerator[Event, None],
    queue: asyncio.Queue[tuple[int, Event | Exception | None]],
) -> None:
    try:
        async with aclosing(events):
            async for event in events:
                await queue.put((choice, event))
    except Exception as error:  # noqa: BLE001 - not swallowed: the reader of the queue raises it
        await queue.put((choice, error))
    else:
        await queue.put((choice, None))


async def _merged(
    queue: asyncio.Queue[tuple[int, Event | Exception | None]], going: int
) -> AsyncIterator[tuple[int, Event]]:
    """What the pumps put into the queue, until each has ended; raises as soon as one has failed."""
    while going:
        choice, item = await queue.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            going -= 1
        else:
            yield choice, item
