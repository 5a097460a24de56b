"""The scheduler: the queues of waiting requests and the slots of backends. Pure: events in, effects out.

Rules.

- A waiting request is not assigned to a backend in advance. It gets a slot when one of the backends it may
  use is free and available.
- No backend is free while a ticket that could use it waits.
- `fair_queue` decides which ticket is next: higher priorities first, then tenants in turn by weight, then
  the order of arrival.
- A ticket that cannot be served as things stand is refused at once: none of its backends is available, or
  none becomes available before the ticket's deadline.
- The number of waiting tickets is limited per model, their bytes are limited in total, and the waiting time
  is limited per ticket. `queue_limits` decides which tickets are removed when a limit is reached.

Theory of operation. `arrive`, `leave`, `release`, `changed`, `tick`, `drain` and `reconfigure` change the
state and return the effects in order. `SlotGranted` means that the ticket holds a slot of that backend
until `release`; `SlotRefused` means that the ticket has left the queue. The caller delivers the effects and
owns the clock and the futures. `seize` is the fast path for a request that need not wait: it creates no
ticket and does not advance the clocks of the fair queue.

Costs. T is the number of waiting tenants, B the number of backends, n the number of waiting tickets, and R
the number of backend sets that have tickets (sets of backends that requests may use, usually one per
model). `arrive` costs O(B + log T), `release` O(R log T), `leave` and `place` O(log n). A tick costs as
much as it has effects. Only `drain` and `reconfigure` visit all tickets.
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
"""Maximum number of cached backend sets. Without the cache each request would build its set again."""
MOST_BYTES = 2**26
"""Default limit for the total size of waiting requests, in bytes."""


@dataclass(frozen=True, slots=True)
class BackendTable:
    """The backends and models to schedule: an immutable value made from the configuration.

    `slots` and `models` (each model with its backends) are in configuration order. `availability` has an
    entry for every backend. The default weight is 1, and the default balancer is `LeastBusy`. `kinds` maps
    (model, backend) to a value. Two backends with equal values accept the same requests of that model.
    """

    slots: Mapping[str, int]
    models: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, int] = field(default_factory=dict)
    balancers: Mapping[str, Balancer] = field(default_factory=dict)
    availability: Mapping[str, Availability] = field(default_factory=dict)
    kinds: Mapping[tuple[str, str], Hashable] = field(default_factory=dict)


class _Queue:
    """The limit, the service time and the balancer of one model."""

    def __init__(self, length: int) -> None:
        self.bound = QueueLimit(length, lambda _: 1)
        self.service = ServiceTime()
        self.balancer: Balancer = LeastBusy()


class Scheduler:
    """The state of all queues and slots. One per gateway, owned by the dispatcher; not thread-safe."""

    def __init__(self, fleet: BackendTable, *, length: int, size: int = MOST_BYTES) -> None:
        self._length = length
        self._bytes = QueueLimit(size, lambda ticket: ticket.slot_request.size)
        self._backends: dict[str, BackendState] = {}
        self._queues: dict[str, _Queue] = {}
        self._backend_sets: dict[tuple[str, ...], BackendSet] = {}
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
        """Grant a slot to a request that need not wait and return the backend's name.

        Returns None if the request must wait; the caller then calls `arrive`.
        """
        queue = self._queues.get(slot_request.model)
        if queue is None or now >= self._changes_at:
            return None
        reach = self._backend_sets.get(slot_request.backends)
        if reach is None:
            reach = self._new_backend_set(slot_request.backends)
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
        """Add a new ticket. It is granted, queued (without an effect of its own) or refused."""
        effects = self._advance(now)
        if (backend := self.seize(ticket.slot_request, now)) is not None:
            return [*effects, SlotGranted(ticket, backend)]
        return effects + self._admit(ticket, now)

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket whose client disconnected while it waited."""
        if ticket.lane is not None:
            self._dequeue(ticket)

    def release(self, backend: str, now: float) -> list[Effect]:
        """Return a slot of a backend and grant it to the next waiting ticket, if there is one."""
        state = self._backends[backend]
        state.busy -= 1
        if self.waiting:
            return self._advance(now) + self._serve(state)
        if not state.slots and not state.busy:
            del self._backends[backend]  # removed from the configuration while requests were in flight
        return []

    def hold(self, backend: str) -> bool:
        """Take a slot of a backend regardless of its availability.

        Returns False if no slot is free or the backend is unknown.
        """
        state = self._backends.get(backend)
        if state is None or state.busy >= state.slots:
            return False
        state.busy += 1
        return True

    def learn(self, model: str, seconds: float, backend: str = "") -> None:
        """Record how many seconds a complete answer of this model took, and on which backend."""
        if (queue := self._queues.get(model)) is not None:
            queue.service.learn(seconds)
        if (state := self._backends.get(backend)) is not None:
            state.learn(seconds)

    def changed(self, backend: str, now: float) -> list[Effect]:
        """Apply a changed availability of a backend: grant or refuse the tickets that it affects."""
        state = self._backends.get(backend)
        if state is None:
            return []
        effects = self._advance(now)
        self._refresh([state], now)
        return effects + self._refuse_stranded(state, now) + self._serve(state)

    def tick(self, now: float) -> list[Effect]:
        """Refuse tickets whose deadline has passed, and serve backends that are available again."""
        effects: list[Effect] = []
        while (first := self._first_deadline()) is not None and first.deadline <= now:
            band = self._dequeue(first)
            error = QueueTimeout(
                "No backend became free within the queue's time limit.",
                retry_after=self._retry_after(first.slot_request, band),
            )
            effects.append(SlotRefused(first, error))
        return effects + self._advance(now)

    def drain(self) -> list[Effect]:
        """Refuse all waiting tickets, and from now on every ticket that would have to wait."""
        self._draining = True
        tickets = self._tickets()
        return [
            SlotRefused(ticket, self._draining_error(self._dequeue(ticket), ticket)) for ticket in tickets
        ]

    # --- views -------------------------------------------------------------------------------------

    def next_tick(self) -> float | None:
        """Return when `tick` must be called next; None if nothing waits.

        This is the first deadline or the next change of availability, whichever is earlier.
        """
        first = self._first_deadline()
        return None if first is None else min(first.deadline, self._changes_at)

    def depth(self, model: str) -> int:
        """Return the number of waiting tickets of a model."""
        queue = self._queues.get(model)
        return queue.bound.used if queue else 0

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """Return a ticket's position (from 1) and expected wait in seconds; None if it does not wait.

        The position is an estimate from counts. It assumes that every tenant has as many tickets waiting as
        this tenant has before this ticket.
        """
        lane = ticket.lane
        if lane is None:
            return None
        position = lane.band.position(lane.rank(ticket), lane.flow.weight)
        return position, self._queues[ticket.model].service.wait(position, lane.band.reach.slots)

    def state(self, backend: str) -> BackendState:
        """Return the state of a backend. The caller must not change it."""
        return self._backends[backend]

    def at_work(self, backend: str) -> bool:
        """Return True if a slot of this backend is taken.

        The backend may have been removed from the configuration; an unknown backend gives False.
        """
        state = self._backends.get(backend)
        return state is not None and state.busy > 0

    def usable(self, now: float) -> dict[str, bool]:
        """Return for every configured backend if requests may be sent to it."""
        return {name: state.availability.usable(now) for name, state in self._backends.items() if state.slots}

    def service(self, model: str) -> ServiceTime:
        """Return the service time of a model."""
        return self._queues[model].service

    def __repr__(self) -> str:
        backends = ", ".join(f"{s.name} {s.busy}/{s.slots}" for s in self._backends.values())
        waiting = ", ".join(f"{model} {queue.bound.used}" for model, queue in self._queues.items())
        return f"<Scheduler busy: {backends}; waiting: {waiting}>"

    # --- waiting -----------------------------------------------------------------------------------

    def _admit(self, ticket: Ticket, now: float) -> list[Effect]:
        """Queue a ticket if it may wait. Return the refusals of this ticket or of tickets it displaces."""
        slot_request = ticket.slot_request
        reach = self._backend_sets.get(slot_request.backends) or self._new_backend_set(slot_request.backends)
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
            self._dequeue(other)
        self._enqueue(ticket, band, flow)
        return effects

    def _enqueue(self, ticket: Ticket, band: PriorityBand, flow: TenantFlow) -> None:
        if not flow.lanes:
            flow.weight = ticket.slot_request.weight
        band.append(ticket, flow)
        self._queues[ticket.model].bound.add(ticket, flow)
        self._bytes.add(ticket, flow)
        self.waiting += 1
        heappush(self._deadlines, (ticket.deadline, ticket.number, ticket))
        if len(self._deadlines) > 2 * self.waiting + SLACK:  # most tickets in it have been served
            self._deadlines = [entry for entry in self._deadlines if entry[2].lane is not None]
            heapify(self._deadlines)

    def _dequeue(self, ticket: Ticket) -> PriorityBand:
        lane = ticket.lane
        assert lane is not None, "only a waiting ticket is removed"  # noqa: S101 - for mypy; every caller has checked this
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

    def _new_backend_set(self, backends: tuple[str, ...]) -> BackendSet:
        if len(self._backend_sets) >= MOST_REACHES:
            busy = {names: reach for names, reach in self._backend_sets.items() if reach.waited_for}
            self._backend_sets = busy
        known = [self._backends[name] for name in backends if name in self._backends]
        reach = self._backend_sets[backends] = BackendSet(known)
        return reach

    # --- serving -----------------------------------------------------------------------------------

    def _serve(self, state: BackendState) -> list[Effect]:
        effects: list[Effect] = []
        while state.busy < state.room and (ticket := next_ticket(state)) is not None:
            self._dequeue(ticket)
            state.busy += 1
            self._grants = state.granted = self._grants + 1
            balancer = self._queues[ticket.model].balancer
            if balancer.learns:
                balancer.took(ticket.slot_request, state)
            effects.append(SlotGranted(ticket, state.name))
        return effects

    def _advance(self, now: float) -> list[Effect]:
        """Apply the changes of availability that are due because time has passed."""
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
                self._dequeue(ticket)
                effects.append(SlotRefused(ticket, self._no_backend(ticket.slot_request, now)))
        return effects

    # --- the configuration -------------------------------------------------------------------------

    def reconfigure(
        self, fleet: BackendTable, now: float, *, length: int, size: int = MOST_BYTES
    ) -> list[Effect]:
        """Replace the backends and models.

        Requests in flight finish on their backends. A removed backend gets no new requests. Tickets keep
        their place in the queue. They keep their remaining backends and may use new backends of the same
        kind. A ticket whose model or last backend was removed is refused. The fair-queue tags restart, so
        all tenants are equal at first.
        """
        old = self._fleet
        tickets = self._tickets()
        for ticket in tickets:
            self._dequeue(ticket)
        self._length = length
        self._deadlines = []
        self._bytes = QueueLimit(size, lambda ticket: ticket.slot_request.size)
        self._install(fleet, now)
        effects: list[Effect] = []
        for ticket in tickets:
            ticket.slot_request.backends += self._added_backends(ticket.slot_request, old)
            effects += self._admit(ticket, now)
        for state in list(self._backends.values()):
            effects += self._serve(state)
        return effects

    def _added_backends(self, slot_request: SlotRequest, old: BackendTable) -> tuple[str, ...]:
        """Return the new backends that accept what one of the request's backends accepts."""
        model, kinds = slot_request.model, self._fleet.kinds
        # A backend of the request may have been moved to another model for a while, so its kind is
        # remembered.
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
        self._backend_sets, self._flows = {}, {}

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
            what = f"the waiting requests are too large in total (queue.bytes: {bound.limit})"
        else:
            what = f"the queue of this model is full ({bound.limit} requests)"
        if ticket.lane is not None:
            band, what = ticket.lane.band, f"{what}, and other tenants have fewer requests in it"
        return QueueFull(
            f"{what[0].upper()}{what[1:]}.", retry_after=self._retry_after(ticket.slot_request, band)
        )

    def _draining_error(self, band: PriorityBand, ticket: Ticket) -> Unavailable:
        return Draining(
            "The gateway is shutting down. Ask again.",
            retry_after=self._retry_after(ticket.slot_request, band),
        )

    def _retry_after(self, slot_request: SlotRequest, band: PriorityBand) -> int:
        """Return the seconds after which the request would have been served if it had been queued now."""
        flow = self._flows.get((slot_request.tenant, slot_request.priority))
        lane = flow.lanes.get(band) if flow else None
        position = band.position_of_next(len(lane) if lane else 0, slot_request.weight)
        return self._queues[slot_request.model].service.retry_after(position, band.reach.slots)
