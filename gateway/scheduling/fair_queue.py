"""Which waiting request is next on a backend: weighted fair between tenants, FIFO inside a tenant.

Words. A *flow* is what one tenant has waiting in one class of priority. A *reach* is a set of backends that
tickets may use, a *band* the tickets of one class with one reach, a *lane* the tickets of one flow in one
band, in the order of arrival. A *pool* holds backends that serve the same models; it has a clock of turns
for each class. A *side* is the part of a pool that a reach covers: all of it, but for requests that some
backend cannot take.

Rules (start-time fair queueing, with tags of flows instead of requests). On every side a flow has a tag.
The flow with the lowest tag is next; the clock of the pool moves on to that tag, and the tag by 1 / weight.
A flow that had nothing waiting begins at the clock if its tag lies behind: idling earns no credit, and no
debt is forgiven while anybody waits. So, of flows of one class:

- While a ticket waits at the head of its tenant's lane, every other tenant passes it at most
  weight / own weight + 1 times on backends that it could have used.
- While two tenants both have tickets waiting that may use the whole pool, the turns they got, each divided by
  its weight, never differ by more than 1 / weight + 1 / other weight, however many backends there are.

Between classes the higher goes first; but after `PASSES` turns in a row that it could have used, a lower
class gets one: one in `PASSES` + the number of classes at least.
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
"""Turns in a row that higher classes may take while a lower one waits."""
PACE = 0.05
"""How much the newest answer counts in a backend's pace; lengths differ, cards do not change."""
SOON = 0.001
"""The shortest time after which a backend's fitness is asked again, in seconds."""
SLACK = 64
"""Lanes without tickets that an order of turns may hold before it is cleaned."""


class BackendState:
    """What is known of one backend. Free = fewer busy than there is room now.

    `room` is what its fitness allows at the moment and changes by itself at `changes_at`; `granted` is the
    number of the grant it got last, `pace` the seconds it takes for an answer (0: not known); `bands` are
    those with tickets for it.
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
        """Ask its fitness."""
        self.usable = self.slots > 0 and self.availability.usable(now)
        self.room = min(self.slots, self.availability.slots_now(now)) if self.usable else 0
        self.share = self.availability.share(now) if self.usable else 1.0
        change = self.availability.next_change(now)
        self.changes_at = inf if change is None else max(change, now + SOON)

    def learn(self, seconds: float) -> None:
        """Take note of how long a whole answer took here."""
        self.pace += PACE * (seconds - self.pace) if self.pace else seconds

    def take_over(self, old: BackendState) -> None:
        """Go on with what is in flight and known of the same backend under another configuration."""
        self.busy, self.granted, self.pace = old.busy, old.granted, old.pace

    def retired(self) -> BackendState:
        """The same without slots: what is in flight ends, nothing begins."""
        gone = BackendState(self.name, 0, self.availability, place=self.place)
        gone.take_over(self)
        return gone

    def __repr__(self) -> str:
        return f"<BackendState {self.name} {self.busy}/{self.slots}>"


class BackendPool:
    """Backends that serve the same models, and their clocks of turns, one a class."""

    __slots__ = ("_furthest", "_open", "_passed", "_sides", "clocks")

    def __init__(self) -> None:
        self.clocks: defaultdict[int, float] = defaultdict(float)
        self._furthest: defaultdict[int, float] = defaultdict(float)
        self._open: defaultdict[int, int] = defaultdict(int)
        self._passed: dict[int, int] = {}
        self._sides: dict[frozenset[str], PoolShare] = {}

    def side(self, backends: frozenset[str]) -> PoolShare:
        """The part of the pool with these backends."""
        if (side := self._sides.get(backends)) is None:
            side = self._sides[backends] = PoolShare(self)
        return side

    def open(self, priority: int) -> None:
        """Take note of one more band with tickets in this class."""
        self._open[priority] += 1

    def close(self, priority: int) -> None:
        """Take note of one less. When nobody is left the clock passes all tags: the next begin as equals."""
        self._open[priority] -= 1
        if not self._open[priority]:
            self.clocks[priority] = max(self.clocks[priority], self._furthest[priority])

    def turn(self, tag: float, weight: int, priority: int) -> float:
        """Move the clock on to a tag, and give the tag for the next turn."""
        self.clocks[priority] = start = max(tag, self.clocks[priority])
        tag = start + 1 / weight
        if tag > self._furthest[priority]:
            self._furthest[priority] = tag
        return tag

    def choose_class(self, waiting: Collection[int]) -> int:
        """Choose the class that is next, of those with a ticket waiting, and note whom that passes over."""
        passed = self._passed
        overdue = [one for one in waiting if passed.get(one, 0) >= PASSES]
        chosen = min(overdue, key=lambda one: (-passed[one], one)) if overdue else max(waiting)
        for one in waiting:
            if one < chosen:
                passed[one] = passed.get(one, 0) + 1
        passed.pop(chosen, None)
        return chosen


class PoolShare:
    """A part of a pool. Flows have a tag on each."""

    __slots__ = ("pool",)

    def __init__(self, pool: BackendPool) -> None:
        self.pool = pool


class TenantFlow:
    """What one tenant has waiting in one class, with its tags. Kept while its tags are ahead of a clock."""

    __slots__ = ("_active", "lanes", "priority", "tags", "tenant", "weight")

    def __init__(self, tenant: str, priority: int) -> None:
        self.tenant = tenant
        self.priority = priority
        self.weight = 1
        self.tags: dict[PoolShare, float] = {}
        self.lanes: dict[PriorityBand, TicketLane] = {}
        self._active: dict[PoolShare, int] = {}

    def enter(self, sides: Iterable[PoolShare]) -> None:
        """Begin to wait on these sides with one more lane."""
        active, tags = self._active, self.tags
        for side in sides:
            if not active.get(side):
                tags[side] = max(tags.get(side, 0.0), side.pool.clocks[self.priority])
            active[side] = active.get(side, 0) + 1

    def depart(self, sides: Iterable[PoolShare]) -> None:
        """Wait on these sides with one lane less."""
        for side in sides:
            self._active[side] -= 1

    def charge(self, side: PoolShare) -> None:
        """Take a turn."""
        self.tags[side] = side.pool.turn(self.tags[side], self.weight, self.priority)

    @property
    def forgettable(self) -> bool:
        """Whether nothing would change if the tenant came as a new one."""
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
        """Who has waited longest."""
        return next(iter(self._tickets.values()))

    def append(self, ticket: Ticket) -> None:
        """Put a ticket at the end."""
        self._last += 1
        ticket.order, ticket.lane = self._last, self
        self._tickets[ticket.number] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, from wherever it stands."""
        if self.head is not ticket:
            insort(self._gaps, ticket.order)
        del self._tickets[ticket.number]
        ticket.lane = None
        if len(self._gaps) > len(self._tickets):
            del self._gaps[: bisect_left(self._gaps, self.head.order) if self._tickets else None]

    def rank(self, ticket: Ticket) -> int:
        """The ticket's place among those of its lane, from 1."""
        first = self.head.order
        gaps = bisect_left(self._gaps, ticket.order) - bisect_left(self._gaps, first)
        return ticket.order - first + 1 - gaps


Entry = tuple[float, int, TicketLane]
"""A lane in the order of turns: the tag it had when it was put there, the number of its head, itself."""


class PriorityBand:
    """The tickets of one class that may use the same backends, in lanes."""

    __slots__ = ("_lanes", "_turns", "priority", "reach", "waiting", "weight")

    def __init__(self, reach: BackendSet, priority: int) -> None:
        self.reach = reach
        self.priority = priority
        self.waiting = 0
        self.weight = 0
        self._lanes = 0
        self._turns: dict[PoolShare, list[Entry]] = {side: [] for side in reach.sides}

    def append(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Let a ticket wait at the end of its flow's lane."""
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
        """Let a ticket wait no more."""
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
            if len(turns) > 2 * self._lanes + SLACK:  # those who left before their turn came near
                turns[:] = [entry for entry in turns if entry[2]]
                heapify(turns)

    def _close(self, lane: TicketLane) -> None:
        self.weight -= lane.flow.weight
        self._lanes -= 1
        lane.flow.depart(self._turns)
        del lane.flow.lanes[self]

    def first(self, side: PoolShare) -> Entry:
        """The lane whose turn it is; there is one while tickets wait."""
        turns = self._turns[side]
        while True:
            entry = turns[0]
            tag, _, lane = entry
            if not lane:
                heappop(turns)
            elif tag < lane.flow.tags[side]:  # tags only rise, so an old one can only come too early
                heapreplace(turns, (lane.flow.tags[side], lane.head.number, lane))
            else:
                return entry

    def position(self, rank: int, weight: int) -> int:
        """How many go before and with the ticket of this rank in a lane of this weight: an estimate."""
        return self._ahead() + min(self.waiting, ceil(rank * self.weight / weight))

    def position_of_next(self, mine: int, weight: int) -> int:
        """The position that a newcomer would get whose tenant has `mine` waiting already."""
        all_weights = self.weight if mine else self.weight + weight
        return self._ahead() + min(self.waiting + 1, ceil((mine + 1) * all_weights / weight))

    def tickets(self) -> list[Ticket]:
        """All who wait, in the order of arrival."""
        lanes = {id(lane): lane for turns in self._turns.values() for _, _, lane in turns}
        return sorted((one for lane in lanes.values() for one in lane), key=lambda ticket: ticket.number)

    def _ahead(self) -> int:
        return sum(band.waiting for band in self.reach.bands.values() if band.priority > self.priority)


class BackendSet:
    """Backends that tickets may use, in the order of the claim."""

    __slots__ = ("bands", "sides", "states")

    def __init__(self, states: Sequence[BackendState]) -> None:
        self.states = tuple(states)
        self.bands: dict[int, PriorityBand] = {}
        pools: dict[BackendPool, set[str]] = {}
        for state in states:
            pools.setdefault(state.pool, set()).add(state.name)
        self.sides = tuple(pool.side(frozenset(names)) for pool, names in pools.items())

    def band(self, priority: int) -> PriorityBand:
        """The band of a class."""
        if (band := self.bands.get(priority)) is None:
            band = self.bands[priority] = PriorityBand(self, priority)
        return band

    def open(self, band: PriorityBand) -> None:
        """Tell the backends that somebody waits for them."""
        sides = {side.pool: side for side in self.sides}
        for pool in sides:
            pool.open(band.priority)
        for state in self.states:
            state.bands[band] = sides[state.pool]

    def close(self, band: PriorityBand) -> None:
        """Tell the backends that nobody of this band waits any more."""
        for state in self.states:
            del state.bands[band]
        for side in self.sides:
            side.pool.close(band.priority)

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits here."""
        return any(band.waiting for band in self.bands.values())

    @property
    def usable(self) -> bool:
        """Whether any of the backends may be asked."""
        return any(state.usable for state in self.states)

    def serves_before(self, deadline: float) -> bool:
        """Whether any of the backends may be asked now or, where all are paused, before this time."""
        return any(state.usable and (state.room > 0 or state.changes_at < deadline) for state in self.states)

    @property
    def slots(self) -> int:
        """Requests that the backends take at once: those that may be asked now, all of them if none may."""
        return sum(state.room for state in self.states) or sum(state.slots for state in self.states)


def next_ticket(state: BackendState) -> Ticket | None:
    """Whose turn it is on a backend; takes the turn, so the ticket must be granted it."""
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
