"""The queues and the slots: who waits, and who gets which backend. Pure: events in, effects out.

Rules. A ticket gets a backend only when one of those it may use is free and may be asked; nobody is tied to
a busy card. No backend is free while a ticket waits that could use it. Who is next is for `fair_queue` to
say: higher classes, then tenants in turn by weight, then the order of arrival. A ticket that can never be
served as things stand (none of its backends may be asked, or not before its time is up) is refused at once,
never parked behind the dead. What waits is bounded in number for each model, in bytes for all, and in time
for each ticket; `queue_limits` says who gives way.

Theory of operation. `arrive`, `leave`, `release`, `changed`, `tick`, `drain` and `reconfigure` change the
state and return the effects in order: `SlotGranted` (the ticket holds a slot of that backend until `release`)
and `SlotRefused`. The caller delivers them; it owns clocks and futures, this module neither. `seize` is the
short way of those who need not wait: no ticket, no turn, for whoever takes what nobody waits for takes it
from nobody.

Costs. With T tenants waiting, B backends and R reaches that have tickets (sets of backends that requests
may use: usually one a model) `arrive` costs O(B + log T), `release` O(R log T), `leave` and `place` O(log
n), a tick as much as it has effects; nothing goes through the tickets but `drain` and `reconfigure`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf

from gateway.errors import Draining, NoBackend, QueueFull, QueueTimeout, Unavailable
from gateway.scheduling.availability import LAST, Availability
from gateway.scheduling.balancers.base import Balancer
from gateway.scheduling.balancers.least_busy import LeastBusy
from gateway.scheduling.fair_queue import (
    SLACK,
    BackendPool,
    BackendSet,
    BackendState,
    PriorityBand,
    TenantFlow,
    next_ticket,
)
from gateway.scheduling.queue_limits import QueueLimit
from gateway.scheduling.service_time import ServiceTime
from gateway.scheduling.slot_request import Effect, SlotGranted, SlotRefused, SlotRequest, Ticket

MOST_REACHES = 1024
"""Sets of backends that are remembered, so that requests need not put them together again."""
MOST_BYTES = 2**26
"""Bytes of requests that may wait in all, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class BackendTable:
    """What there is to hand out: a value, made from the configuration.

    `slots` and `models` (each with its backends) are in the order of the configuration; every
    backend has its availability; without a weight it has the weight 1. A model without a balancer has the
    least busy. `kinds`, by model and
    backend, are equal where a request that one backend can take can be taken by the other too.
    """

    slots: Mapping[str, int]
    models: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, int] = field(default_factory=dict)
    balancers: Mapping[str, Balancer] = field(default_factory=dict)
    availability: Mapping[str, Availability] = field(default_factory=dict)
    kinds: Mapping[tuple[str, str], Hashable] = field(default_factory=dict)


class _Queue:
    """What is known of one model."""

    def __init__(self, length: int) -> None:
        self.bound = QueueLimit(length, lambda _: 1)
        self.service = ServiceTime()
        self.balancer: Balancer = LeastBusy()


class Scheduler:
    """The state of all queues and slots."""

    def __init__(self, fleet: BackendTable, *, length: int, size: int = MOST_BYTES) -> None:
        self._length = length
        self._bytes = QueueLimit(size, lambda ticket: ticket.slot_request.size)
        self._backends: dict[str, BackendState] = {}
        self._queues: dict[str, _Queue] = {}
        self._reaches: dict[tuple[str, ...], BackendSet] = {}
        self._flows: dict[tuple[str, int], TenantFlow] = {}
        self._most_flows = MOST_REACHES
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._changes_at = inf
        self._last_choices = False
        self._grants = 0
        self._draining = False
        self.waiting = 0
        self._install(fleet, 0.0)

    # --- events ------------------------------------------------------------------------------------

    def seize(self, slot_request: SlotRequest, now: float) -> str | None:
        """Grant a backend to a request that need not wait; None where it must `arrive`."""
        queue = self._queues.get(slot_request.model)
        if queue is None or now >= self._changes_at:
            return None
        reach = self._reaches.get(slot_request.backends)
        if reach is None:
            reach = self._new_reach(slot_request.backends)
        states = reach.states
        free: Sequence[BackendState] = states
        for state in states:
            if state.busy >= state.room:
                free = [state for state in states if state.busy < state.room]
                break
        if not free:
            return None
        if self._last_choices:
            free = [state for state in free if state.share > LAST] or free
        balancer = queue.balancer
        state = free[0] if len(free) == 1 else balancer.choose(free, slot_request, states)
        state.busy += 1
        self._grants = state.granted = self._grants + 1
        if balancer.learns:
            balancer.took(slot_request, state)
        return state.name

    def arrive(self, ticket: Ticket, now: float) -> list[Effect]:
        """Take a new ticket: grant it, queue it (no effect of its own), or refuse it."""
        effects = self._advance(now)
        if (backend := self.seize(ticket.slot_request, now)) is not None:
            return [*effects, SlotGranted(ticket, backend)]
        return effects + self._let_in(ticket, now)

    def leave(self, ticket: Ticket) -> None:
        """Forget a ticket whose client left while it waited."""
        if ticket.lane is not None:
            self._take_out(ticket)

    def release(self, backend: str, now: float) -> list[Effect]:
        """Take a slot back and hand it on."""
        state = self._backends[backend]
        state.busy -= 1
        if self.waiting:
            return self._advance(now) + self._serve(state)
        if not state.slots and not state.busy:
            del self._backends[backend]  # it was taken out of the configuration long ago
        return []

    def hold(self, backend: str) -> bool:
        """Take a slot of a backend whatever its fitness; False if there is none, or no such backend."""
        state = self._backends.get(backend)
        if state is None or state.busy >= state.slots:
            return False
        state.busy += 1
        return True

    def learn(self, model: str, seconds: float, backend: str = "") -> None:
        """Take note of how long a whole answer of this model took, and which backend gave it."""
        if (queue := self._queues.get(model)) is not None:
            queue.service.learn(seconds)
        if (state := self._backends.get(backend)) is not None:
            state.learn(seconds)

    def changed(self, backend: str, now: float) -> list[Effect]:
        """Take note that a backend's fitness is different; serve or refuse whom that concerns."""
        state = self._backends.get(backend)
        if state is None:
            return []
        effects = self._advance(now)
        self._refresh([state], now)
        return effects + self._refuse_stranded(state, now) + self._serve(state)

    def tick(self, now: float) -> list[Effect]:
        """Refuse tickets past their deadline, and serve backends that have rested."""
        effects: list[Effect] = []
        while (first := self._first_deadline()) is not None and first.deadline <= now:
            band = self._take_out(first)
            error = QueueTimeout(
                "No backend became free within the queue's time limit.",
                retry_after=self._retry_after(first.slot_request, band),
            )
            effects.append(SlotRefused(first, error))
        return effects + self._advance(now)

    def drain(self) -> list[Effect]:
        """Refuse all who wait, and from now on all who would have to."""
        self._draining = True
        tickets = self._tickets()
        return [
            SlotRefused(ticket, self._draining_error(self._take_out(ticket), ticket)) for ticket in tickets
        ]

    # --- views -------------------------------------------------------------------------------------

    def next_tick(self) -> float | None:
        """When `tick` is next of use: the first deadline, or a change of fitness while somebody waits."""
        first = self._first_deadline()
        return None if first is None else min(first.deadline, self._changes_at)

    def depth(self, model: str) -> int:
        """Tickets waiting."""
        queue = self._queues.get(model)
        return queue.bound.used if queue else 0

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """A waiting ticket's position (from 1) and expected wait in seconds; None when it waits no more.

        An estimate from counts: all tenants are taken to have as many waiting as this one has before the
        ticket.
        """
        lane = ticket.lane
        if lane is None:
            return None
        position = lane.band.position(lane.rank(ticket), lane.flow.weight)
        return position, self._queues[ticket.model].service.wait(position, lane.band.reach.slots)

    def state(self, backend: str) -> BackendState:
        """A backend's state; not to be changed."""
        return self._backends[backend]

    def at_work(self, backend: str) -> bool:
        """Whether a slot of this backend is taken; also of one that is gone, or never was."""
        state = self._backends.get(backend)
        return state is not None and state.busy > 0

    def usable(self, now: float) -> dict[str, bool]:
        """Every backend of the configuration, and whether it may be asked."""
        return {name: state.availability.usable(now) for name, state in self._backends.items() if state.slots}

    def service(self, model: str) -> ServiceTime:
        """How long answers of this model take."""
        return self._queues[model].service

    def __repr__(self) -> str:
        backends = ", ".join(f"{s.name} {s.busy}/{s.slots}" for s in self._backends.values())
        waiting = ", ".join(f"{model} {queue.bound.used}" for model, queue in self._queues.items())
        return f"<Scheduler busy: {backends}; waiting: {waiting}>"

    # --- waiting -----------------------------------------------------------------------------------

    def _let_in(self, ticket: Ticket, now: float) -> list[Effect]:
        """Let a ticket wait if it may, and say who is out for that."""
        slot_request = ticket.slot_request
        reach = self._reaches.get(slot_request.backends) or self._new_reach(slot_request.backends)
        if slot_request.model not in self._queues or not reach.serves_before(ticket.deadline):
            return [SlotRefused(ticket, self._no_backend(slot_request, now))]
        flow = self._flow(slot_request)
        band = reach.band(slot_request.priority)
        if self._draining:
            return [SlotRefused(ticket, self._draining_error(band, ticket))]
        too_much: dict[Ticket, QueueLimit] = {}
        for bound in (self._queues[slot_request.model].bound, self._bytes):
            too_much |= dict.fromkeys(bound.too_much(ticket, flow), bound)
        if ticket in too_much:
            return [SlotRefused(ticket, self._queue_full(ticket, band, too_much[ticket]))]
        effects: list[Effect] = []
        for other, bound in too_much.items():
            effects.append(SlotRefused(other, self._queue_full(other, band, bound)))
            self._take_out(other)
        self._put_in(ticket, band, flow)
        return effects

    def _put_in(self, ticket: Ticket, band: PriorityBand, flow: TenantFlow) -> None:
        if not flow.lanes:
            flow.weight = ticket.slot_request.weight
        band.append(ticket, flow)
        self._queues[ticket.model].bound.add(ticket, flow)
        self._bytes.add(ticket, flow)
        self.waiting += 1
        heappush(self._deadlines, (ticket.deadline, ticket.number, ticket))
        if len(self._deadlines) > 2 * self.waiting + SLACK:  # most of them have been served long ago
            self._deadlines = [entry for entry in self._deadlines if entry[2].lane is not None]
            heapify(self._deadlines)

    def _take_out(self, ticket: Ticket) -> PriorityBand:
        lane = ticket.lane
        assert lane is not None, "takes out who waits"  # noqa: S101 - tells mypy what every caller has seen
        self._queues[ticket.model].bound.remove(ticket, lane.flow)
        self._bytes.remove(ticket, lane.flow)
        lane.band.remove(ticket, lane)
        self.waiting -= 1
        return lane.band

    def _tickets(self) -> list[Ticket]:
        waiting = [ticket for _, _, ticket in self._deadlines if ticket.lane is not None]
        return sorted(waiting, key=lambda ticket: ticket.number)

    def _first_deadline(self) -> Ticket | None:
        while self._deadlines:
            ticket = self._deadlines[0][2]
            if ticket.lane is not None:
                return ticket
            heappop(self._deadlines)
        return None

    def _flow(self, slot_request: SlotRequest) -> TenantFlow:
        key = (slot_request.tenant, slot_request.priority)
        if (flow := self._flows.get(key)) is None:
            if len(self._flows) >= self._most_flows:
                self._flows = {name: one for name, one in self._flows.items() if not one.forgettable}
                self._most_flows = max(MOST_REACHES, 2 * len(self._flows))
            flow = self._flows[key] = TenantFlow(*key)
        return flow

    def _new_reach(self, backends: tuple[str, ...]) -> BackendSet:
        if len(self._reaches) >= MOST_REACHES:
            busy = {names: reach for names, reach in self._reaches.items() if reach.waited_for}
            self._reaches = busy
        known = [self._backends[name] for name in backends if name in self._backends]
        reach = self._reaches[backends] = BackendSet(known)
        return reach

    # --- serving -----------------------------------------------------------------------------------

    def _serve(self, state: BackendState) -> list[Effect]:
        effects: list[Effect] = []
        while state.busy < state.room and (ticket := next_ticket(state)) is not None:
            self._take_out(ticket)
            state.busy += 1
            self._grants = state.granted = self._grants + 1
            balancer = self._queues[ticket.model].balancer
            if balancer.learns:
                balancer.took(ticket.slot_request, state)
            effects.append(SlotGranted(ticket, state.name))
        return effects

    def _advance(self, now: float) -> list[Effect]:
        """Let the changes take place that time alone has brought."""
        if now < self._changes_at:
            return []
        due = [state for state in self._backends.values() if state.changes_at <= now]
        self._refresh(due, now)
        effects: list[Effect] = []
        for state in due:
            effects += self._refuse_stranded(state, now) + self._serve(state)
        return effects

    def _refresh(self, states: Iterable[BackendState], now: float) -> None:
        for state in states:
            state.refresh(now)
        self._changes_at = min([state.changes_at for state in self._backends.values()], default=inf)
        self._last_choices = any(state.share <= LAST for state in self._backends.values())

    def _refuse_stranded(self, state: BackendState, now: float) -> list[Effect]:
        if state.usable:
            return []
        effects: list[Effect] = []
        for band in [band for band in state.bands if not band.reach.usable]:
            for ticket in band.tickets():
                self._take_out(ticket)
                effects.append(SlotRefused(ticket, self._no_backend(ticket.slot_request, now)))
        return effects

    # --- the fleet ---------------------------------------------------------------------------------

    def reconfigure(
        self, fleet: BackendTable, now: float, *, length: int, size: int = MOST_BYTES
    ) -> list[Effect]:
        """Go on with another fleet.

        Requests in flight end where they are; a backend that is gone gets no new ones. Tickets keep their
        places and the backends that are left of theirs, and may have new ones of the same kind as well; one
        whose model or last backend is gone is refused. Turns begin anew, with all tenants equal.
        """
        old = self._fleet
        tickets = self._tickets()
        for ticket in tickets:
            self._take_out(ticket)
        self._length = length
        self._deadlines = []
        self._bytes = QueueLimit(size, lambda ticket: ticket.slot_request.size)
        self._install(fleet, now)
        effects: list[Effect] = []
        for ticket in tickets:
            ticket.slot_request.backends += self._newcomers(ticket.slot_request, old)
            effects += self._let_in(ticket, now)
        for state in list(self._backends.values()):
            effects += self._serve(state)
        return effects

    def _newcomers(self, slot_request: SlotRequest, old: BackendTable) -> tuple[str, ...]:
        """The backends that were not there before and can take what one of the claim's could."""
        model, kinds = slot_request.model, self._fleet.kinds
        # One of its backends may have served another model for a while: what kind it was is remembered.
        slot_request.kinds |= {
            known[model, name]
            for known in (old.kinds, kinds)
            for name in slot_request.backends
            if (model, name) in known
        }
        known = {*old.models.get(model, ()), *slot_request.backends}
        ours = [name for name in self._fleet.models.get(model, ()) if name not in known]
        return tuple(name for name in ours if kinds.get((model, name)) in slot_request.kinds)

    def _install(self, fleet: BackendTable, now: float) -> None:
        self._fleet = fleet
        old = self._backends
        self._backends = {}
        for place, (name, slots) in enumerate(fleet.slots.items()):
            availability = fleet.availability[name]
            state = BackendState(name, slots, availability, place=place, weight=fleet.weights.get(name, 1))
            if name in old:
                state.take_over(old[name])
            self._backends[name] = state
        for name, state in old.items():
            if name not in fleet.slots and state.busy:
                self._backends[name] = state.retired()
        self._install_models(fleet)
        self._refresh(list(self._backends.values()), now)

    def _install_models(self, fleet: BackendTable) -> None:
        serves: dict[str, list[str]] = {name: [] for name in self._backends}
        queues = self._queues
        self._queues = {}
        for model, backends in fleet.models.items():
            queue = self._queues[model] = _Queue(self._length)
            if model in queues:
                queue.service = queues[model].service
            queue.balancer = fleet.balancers.get(model, queue.balancer)
            for name in backends:
                serves[name].append(model)
        pools: dict[tuple[str, ...], BackendPool] = {}
        for name, models in serves.items():
            self._backends[name].pool = pools.setdefault(tuple(models), BackendPool())
        self._reaches, self._flows = {}, {}

    # --- refusals ----------------------------------------------------------------------------------

    def _no_backend(self, slot_request: SlotRequest, now: float) -> NoBackend:
        known = [self._backends[name] for name in slot_request.backends if name in self._backends]
        back = min((state.changes_at for state in known), default=inf)
        paused = any(state.usable for state in known)
        return NoBackend(
            f"No backend of this model {'takes requests now' if paused else 'can be reached'}.",
            retry_after=max(1.0, back - now) if back < inf else 1.0,
        )

    def _queue_full(self, ticket: Ticket, band: PriorityBand, bound: QueueLimit) -> QueueFull:
        if bound is self._bytes:
            what = f"too much is waiting (queue.bytes: {bound.limit})"
        else:
            what = f"the queue of this model is full ({bound.limit} requests)"
        if ticket.lane is not None:
            band, what = ticket.lane.band, f"{what}, and others have fewer requests in it"
        return QueueFull(
            f"{what[0].upper()}{what[1:]}.", retry_after=self._retry_after(ticket.slot_request, band)
        )

    def _draining_error(self, band: PriorityBand, ticket: Ticket) -> Unavailable:
        return Draining(
            "The gateway is shutting down. Ask again.",
            retry_after=self._retry_after(ticket.slot_request, band),
        )

    def _retry_after(self, slot_request: SlotRequest, band: PriorityBand) -> int:
        """Seconds after which the request, had it come now, would have been served."""
        flow = self._flows.get((slot_request.tenant, slot_request.priority))
        lane = flow.lanes.get(band) if flow else None
        position = band.position_of_next(len(lane) if lane else 0, slot_request.weight)
        return self._queues[slot_request.model].service.retry_after(position, band.reach.slots)
