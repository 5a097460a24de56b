"""Decides which waiting request is next on a backend: weighted fair between tenants, FIFO within a tenant.

Terms. A *flow* (`TenantFlow`) is what one tenant has waiting at one priority. A *backend set*
(`BackendSet`) is a set of backends that tickets may use. A *band* (`PriorityBand`) holds the tickets of one
priority with one backend set. A *lane* (`TicketLane`) holds the tickets of one flow in one band, in order
of arrival. A *pool* (`BackendPool`) holds the backends that serve the same models, and has one virtual
clock per priority. A *pool share* (`PoolShare`) is the part of a pool that a backend set covers. It is the
whole pool, unless some backend of the pool cannot accept the request.

Rules. This is start-time fair queueing with tags on flows instead of requests. A flow has one tag per pool
share. The flow with the lowest tag is next. The pool's clock moves to that tag, and the tag increases by 1
/ weight. If a flow had nothing waiting and its tag is behind the clock, the tag is set to the clock. So a
tenant earns no credit while idle, and no debt is forgiven while any tenant waits. For flows of the same
priority this means:

- While a ticket is at the head of its tenant's lane, every other tenant is served before it at most weight
  / own weight + 1 times on backends that the ticket could have used.
- While two tenants both have waiting tickets that may use the whole pool, the numbers of turns they got,
  each divided by the tenant's weight, differ by at most 1 / weight + 1 / other weight, for any number of
  backends.

Between priorities the higher priority is served first. After a priority has been passed over `PASSES` times
in a row on backends that it could have used, it gets one turn. So it gets at least one turn in `PASSES` +
the number of priorities.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil, inf

from gateway.scheduling.availability import Availability
from gateway.scheduling.slot_request import Ticket

PASSES = 9
"""How many turns in a row higher priorities may take while a lower priority waits."""
PACE = 0.05
"""Weight of the newest answer in a backend's average. It is small because answer lengths vary and GPUs do not
change."""
SOON = 0.001
"""Shortest time until a backend's availability is read again, in seconds."""
SLACK = 64
"""Number of outdated entries that a heap may hold before it is cleaned."""


class BackendState:
    """The state of one backend. The backend is free while `busy` is less than `room`.

    `room` is the number of requests that the backend's availability allows now; it next changes without an
    event at `changes_at`. `granted` is the sequence number of the last slot granted on this backend. `pace`
    is the average duration of an answer in seconds (0: unknown). `bands` are the bands with tickets that
    may use this backend.
    """

    __slots__ = (
        "availability",
        "bands",
        "busy",
        "changes_at",
        "granted",
        "name",
        "pace",
        "place",
        "pool",
        "room",
        "share",
        "slots",
        "usable",
        "weight",
    )

    def __init__(
        self, name: str, slots: int, availability: Availability, *, place: int = 0, weight: int = 1
    ) -> None:
        self.name = name
        self.slots = slots
        self.availability = availability
        self.place = place
        self.weight = weight
        self.pool = BackendPool()
        self.busy = 0
        self.granted = 0
        self.pace = 0.0
        self.room = slots
        self.share = 1.0
        self.usable = True
        self.changes_at = inf
        self.bands: dict[PriorityBand, PoolShare] = {}

    def refresh(self, now: float) -> None:
        """Read the availability of the backend at `now`."""
        self.usable = self.slots > 0 and self.availability.usable(now)
        self.room = min(self.slots, self.availability.slots_now(now)) if self.usable else 0
        self.share = self.availability.share(now) if self.usable else 1.0
        change = self.availability.next_change(now)
        self.changes_at = inf if change is None else max(change, now + SOON)

    def learn(self, seconds: float) -> None:
        """Add the duration of one complete answer on this backend to the average, in seconds."""
        self.pace += PACE * (seconds - self.pace) if self.pace else seconds

    def take_over(self, old: BackendState) -> None:
        """Copy the requests in flight and the averages of the same backend in the previous configuration."""
        self.busy, self.granted, self.pace = old.busy, old.granted, old.pace

    def retired(self) -> BackendState:
        """Return a copy without slots, for a removed backend: its requests finish, and no new ones start."""
        gone = BackendState(self.name, 0, self.availability, place=self.place)
        gone.take_over(self)
        return gone

    def __repr__(self) -> str:
        return f"<BackendState {self.name} {self.busy}/{self.slots}>"


class BackendPool:
    """Backends that serve the same models, with one virtual clock per priority."""

    __slots__ = ("_furthest", "_open", "_passed", "_sides", "clocks")

    def __init__(self) -> None:
        self.clocks: defaultdict[int, float] = defaultdict(float)
        self._furthest: defaultdict[int, float] = defaultdict(float)
        self._open: defaultdict[int, int] = defaultdict(int)
        self._passed: dict[int, int] = {}
        self._sides: dict[frozenset[str], PoolShare] = {}

    def side(self, backends: frozenset[str]) -> PoolShare:
        """Return the part of the pool that consists of these backends."""
        if (side := self._sides.get(backends)) is None:
            side = self._sides[backends] = PoolShare(self)
        return side

    def open(self, priority: int) -> None:
        """Count one more band of this priority that has tickets."""
        self._open[priority] += 1

    def close(self, priority: int) -> None:
        """Count one band less of this priority.

        When no band is left, the clock moves past all tags, so the next tenants start as equals.
        """
        self._open[priority] -= 1
        if not self._open[priority]:
            self.clocks[priority] = max(self.clocks[priority], self._furthest[priority])

    def turn(self, tag: float, weight: int, priority: int) -> float:
        """Move the clock to `tag` and return the tag for the flow's next turn."""
        self.clocks[priority] = start = max(tag, self.clocks[priority])
        tag = start + 1 / weight
        if tag > self._furthest[priority]:
            self._furthest[priority] = tag
        return tag

    def choose_class(self, waiting: Collection[int]) -> int:
        """Choose the next priority among those with a waiting ticket, and count those passed over."""
        passed = self._passed
        overdue = [one for one in waiting if passed.get(one, 0) >= PASSES]
        chosen = min(overdue, key=lambda one: (-passed[one], one)) if overdue else max(waiting)
        for one in waiting:
            if one < chosen:
                passed[one] = passed.get(one, 0) + 1
        passed.pop(chosen, None)
        return chosen


class PoolShare:
    """A part of a pool. Each flow has its own tag for each pool share."""

    __slots__ = ("pool",)

    def __init__(self, pool: BackendPool) -> None:
        self.pool = pool


class TenantFlow:
    """What one tenant has waiting at one priority, and its tags.

    It is kept until all its tags are behind the clocks and nothing of the tenant waits (see `forgettable`).
    """

    __slots__ = ("_active", "lanes", "priority", "tags", "tenant", "weight")

    def __init__(self, tenant: str, priority: int) -> None:
        self.tenant = tenant
        self.priority = priority
        self.weight = 1
        self.tags: dict[PoolShare, float] = {}
        self.lanes: dict[PriorityBand, TicketLane] = {}
        self._active: dict[PoolShare, int] = {}

    def enter(self, sides: Iterable[PoolShare]) -> None:
        """Register one more lane that waits on these pool shares."""
        active, tags = self._active, self.tags
        for side in sides:
            if not active.get(side):
                tags[side] = max(tags.get(side, 0.0), side.pool.clocks[self.priority])
            active[side] = active.get(side, 0) + 1

    def depart(self, sides: Iterable[PoolShare]) -> None:
        """Unregister one lane that waited on these pool shares."""
        for side in sides:
            self._active[side] -= 1

    def charge(self, side: PoolShare) -> None:
        """Count one turn of this flow on the pool share."""
        self.tags[side] = side.pool.turn(self.tags[side], self.weight, self.priority)

    @property
    def forgettable(self) -> bool:
        """True if the flow can be deleted because a new flow of the tenant would be treated the same."""
        ahead = [side for side, tag in self.tags.items() if tag > side.pool.clocks[self.priority]]
        return not self.lanes and not ahead


class TicketLane:
    """The waiting tickets of one flow in one band, in order of arrival."""

    __slots__ = ("_gaps", "_last", "_tickets", "band", "flow")

    def __init__(self, flow: TenantFlow, band: PriorityBand) -> None:
        self.flow = flow
        self.band = band
        self._tickets: OrderedDict[int, Ticket] = OrderedDict()
        self._last = 0
        self._gaps: list[int] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets.values())

    @property
    def head(self) -> Ticket:
        """The ticket that has waited longest."""
        return next(iter(self._tickets.values()))

    def append(self, ticket: Ticket) -> None:
        """Add a ticket at the end."""
        self._last += 1
        ticket.order, ticket.lane = self._last, self
        self._tickets[ticket.number] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Remove a ticket from any position."""
        if self.head is not ticket:
            insort(self._gaps, ticket.order)
        del self._tickets[ticket.number]
        ticket.lane = None
        if len(self._gaps) > len(self._tickets):
            del self._gaps[: bisect_left(self._gaps, self.head.order) if self._tickets else None]

    def rank(self, ticket: Ticket) -> int:
        """Return the ticket's position in its lane, from 1."""
        first = self.head.order
        gaps = bisect_left(self._gaps, ticket.order) - bisect_left(self._gaps, first)
        return ticket.order - first + 1 - gaps


Entry = tuple[float, int, TicketLane]
"""A heap entry for a lane: its tag when the entry was made, the number of its first ticket, the lane."""


class PriorityBand:
    """The tickets of one priority that may use the same backends, one lane per tenant."""

    __slots__ = ("_lanes", "_turns", "priority", "reach", "waiting", "weight")

    def __init__(self, reach: BackendSet, priority: int) -> None:
        self.reach = reach
        self.priority = priority
        self.waiting = 0
        self.weight = 0
        self._lanes = 0
        self._turns: dict[PoolShare, list[Entry]] = {side: [] for side in reach.sides}

    def append(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Add a ticket at the end of its flow's lane."""
        lane = flow.lanes.get(self)
        if lane is None:
            lane = flow.lanes[self] = TicketLane(flow, self)
        lane.append(ticket)
        if len(lane) == 1:
            self._open(lane)
        self.waiting += 1
        if self.waiting == 1:
            self.reach.open(self)

    def remove(self, ticket: Ticket, lane: TicketLane) -> None:
        """Remove a ticket from its lane."""
        lane.remove(ticket)
        if not lane:
            self._close(lane)
        self.waiting -= 1
        if not self.waiting:
            self.reach.close(self)
            for turns in self._turns.values():
                turns.clear()

    def _open(self, lane: TicketLane) -> None:
        flow = lane.flow
        self.weight += flow.weight
        self._lanes += 1
        flow.enter(self._turns)
        for side, turns in self._turns.items():
            heappush(turns, (flow.tags[side], lane.head.number, lane))
            if len(turns) > 2 * self._lanes + SLACK:  # entries of lanes that are empty
                turns[:] = [entry for entry in turns if entry[2]]
                heapify(turns)

    def _close(self, lane: TicketLane) -> None:
        self.weight -= lane.flow.weight
        self._lanes -= 1
        lane.flow.depart(self._turns)
        del lane.flow.lanes[self]

    def first(self, side: PoolShare) -> Entry:
        """Return the entry of the lane that is next. At least one ticket must be waiting."""
        turns = self._turns[side]
        while True:
            entry = turns[0]
            tag, _, lane = entry
            if not lane:
                heappop(turns)
            elif tag < lane.flow.tags[side]:  # outdated: tags only increase, so the old tag is too low
                heapreplace(turns, (lane.flow.tags[side], lane.head.number, lane))
            else:
                return entry

    def position(self, rank: int, weight: int) -> int:
        """Estimate the queue position of the ticket at `rank` in a lane of a tenant with this weight."""
        return self._ahead() + min(self.waiting, ceil(rank * self.weight / weight))

    def position_of_next(self, mine: int, weight: int) -> int:
        """Estimate the queue position of a new ticket whose tenant has `mine` tickets waiting here."""
        all_weights = self.weight if mine else self.weight + weight
        return self._ahead() + min(self.waiting + 1, ceil((mine + 1) * all_weights / weight))

    def tickets(self) -> list[Ticket]:
        """Return all waiting tickets in order of arrival."""
        lanes = {id(lane): lane for turns in self._turns.values() for _, _, lane in turns}
        return sorted((one for lane in lanes.values() for one in lane), key=lambda ticket: ticket.number)

    def _ahead(self) -> int:
        return sum(band.waiting for band in self.reach.bands.values() if band.priority > self.priority)


class BackendSet:
    """A set of backends that tickets may use, in the order given by the request."""

    __slots__ = ("bands", "sides", "states")

    def __init__(self, states: Sequence[BackendState]) -> None:
        self.states = tuple(states)
        self.bands: dict[int, PriorityBand] = {}
        pools: dict[BackendPool, set[str]] = {}
        for state in states:
            pools.setdefault(state.pool, set()).add(state.name)
        self.sides = tuple(pool.side(frozenset(names)) for pool, names in pools.items())

    def band(self, priority: int) -> PriorityBand:
        """Return the band of a priority; create it if necessary."""
        if (band := self.bands.get(priority)) is None:
            band = self.bands[priority] = PriorityBand(self, priority)
        return band

    def open(self, band: PriorityBand) -> None:
        """Register a band that now has waiting tickets with the backends."""
        sides = {side.pool: side for side in self.sides}
        for pool in sides:
            pool.open(band.priority)
        for state in self.states:
            state.bands[band] = sides[state.pool]

    def close(self, band: PriorityBand) -> None:
        """Unregister a band that has no waiting tickets left from the backends."""
        for state in self.states:
            del state.bands[band]
        for side in self.sides:
            side.pool.close(band.priority)

    @property
    def waited_for(self) -> bool:
        """True if any ticket waits for this set."""
        return any(band.waiting for band in self.bands.values())

    @property
    def usable(self) -> bool:
        """True if any backend of the set is available."""
        return any(state.usable for state in self.states)

    def serves_before(self, deadline: float) -> bool:
        """Return True if any backend accepts requests now, or is paused and resumes before `deadline`."""
        return any(state.usable and (state.room > 0 or state.changes_at < deadline) for state in self.states)

    @property
    def slots(self) -> int:
        """How many requests the available backends accept at once.

        If no backend is available, the number of slots of all backends.
        """
        return sum(state.room for state in self.states) or sum(state.slots for state in self.states)


def next_ticket(state: BackendState) -> Ticket | None:
    """Return the ticket that is next on a backend, or None.

    This counts the turn, so the caller must grant the slot to the returned ticket.
    """
    firsts: dict[int, tuple[Entry, PoolShare]] = {}
    for band, side in state.bands.items():
        entry = band.first(side)
        best = firsts.get(band.priority)
        if best is None or entry[:2] < best[0][:2]:
            firsts[band.priority] = entry, side
    if not firsts:
        return None
    (_, _, lane), side = firsts[state.pool.choose_class(firsts)]
    flow = lane.flow
    flow.charge(side)
    heads = [one.head for band, one in flow.lanes.items() if band in state.bands]
    return min(heads, key=lambda ticket: ticket.number) if len(heads) > 1 else heads[0]
