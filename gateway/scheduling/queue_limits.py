"""What may wait at most, in tickets or in bytes, and who gives way when it is too much.

A bound is shared by all who wait, so that one tenant's flood must not take all of it. When there is no room
for a newcomer, tickets of the lowest class that waits give way, the newest first, of the tenant that holds
most by its weight; those of the newcomer's own class only as long as that tenant still holds more than the
newcomer's. Otherwise the newcomer is the one too much.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from gateway.scheduling.fair_queue import SLACK, TenantFlow
from gateway.scheduling.slot_request import Ticket


class QueueUsage:
    """What one flow has under one bound. `noted` is the load that the order of the heaviest knows of."""

    __slots__ = ("amount", "flow", "noted", "tickets")

    def __init__(self, flow: TenantFlow) -> None:
        self.flow = flow
        self.amount = 0
        self.noted = 0.0
        self.tickets: OrderedDict[int, Ticket] = OrderedDict()

    @property
    def load(self) -> float:
        """The amount for one of weight."""
        return self.amount / self.flow.weight


class LargestFirst:
    """The holdings of one class, the one with the greatest load first."""

    def __init__(self) -> None:
        self.count = 0
        self._order: list[tuple[float, int, QueueUsage]] = []
        self._entries = 0

    def note(self, holding: QueueUsage) -> None:
        """Take note of a load that may have grown; one that shrank is seen when it comes first."""
        if holding.load <= holding.noted:
            return
        self._push(holding)
        if len(self._order) > 2 * self.count + SLACK:
            self._order = [entry for entry in self._order if -entry[0] == entry[2].noted and entry[2].tickets]
            heapify(self._order)

    def first(self) -> QueueUsage | None:
        """The heaviest."""
        while self._order:
            load, _, holding = self._order[0]
            if -load != holding.noted or not holding.tickets:  # outdated by a later entry, or gone
                heappop(self._order)
            elif holding.load < holding.noted:
                holding.noted = holding.load
                self._entries += 1
                heapreplace(self._order, (-holding.load, self._entries, holding))
            else:
                return holding
        return None

    def _push(self, holding: QueueUsage) -> None:
        holding.noted = holding.load
        self._entries += 1
        heappush(self._order, (-holding.load, self._entries, holding))


class QueueLimit:
    """One limit. `measure` tells how much of it a ticket takes."""

    def __init__(self, limit: int, measure: Callable[[Ticket], int]) -> None:
        self.limit = limit
        self.used = 0
        self._measure = measure
        self._holdings: dict[TenantFlow, QueueUsage] = {}
        self._classes: dict[int, LargestFirst] = {}

    def add(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Count a ticket that begins to wait."""
        holding = self._holdings.get(flow)
        if holding is None:
            holding = self._holdings[flow] = QueueUsage(flow)
        amount = self._measure(ticket)
        self.used += amount
        holding.amount += amount
        holding.tickets[ticket.number] = ticket
        heaviest = self._classes.get(flow.priority)
        if heaviest is None:
            heaviest = self._classes[flow.priority] = LargestFirst()
        heaviest.count += 1
        heaviest.note(holding)

    def remove(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Count a ticket that waits no more."""
        holding = self._holdings[flow]
        amount = self._measure(ticket)
        self.used -= amount
        holding.amount -= amount
        del holding.tickets[ticket.number]
        if not holding.tickets:
            del self._holdings[flow]
        heaviest = self._classes[flow.priority]
        heaviest.count -= 1
        if not heaviest.count:
            del self._classes[flow.priority]

    def too_much(self, ticket: Ticket, flow: TenantFlow) -> list[Ticket]:
        """Who gives way for this newcomer, the newcomer itself if nobody else."""
        missing = self.used + self._measure(ticket) - self.limit
        if missing <= 0:
            return []
        return self._giving_way(ticket, flow, missing) or [ticket]

    def _giving_way(self, ticket: Ticket, flow: TenantFlow, missing: int) -> list[Ticket] | None:
        lowest = min(self._classes, default=None)
        if lowest is None or lowest > flow.priority or self._measure(ticket) > self.limit:
            return None
        heaviest = self._classes[lowest].first()
        if heaviest is None or heaviest.flow is flow:
            return None
        floor = self._load_with(ticket, flow) if lowest == flow.priority else 0.0
        found: list[Ticket] = []
        amount = heaviest.amount
        for other in reversed(heaviest.tickets.values()):
            if missing <= 0 or amount / heaviest.flow.weight <= floor:
                break
            found.append(other)
            missing -= self._measure(other)
            amount -= self._measure(other)
        return found if missing <= 0 else None

    def _load_with(self, ticket: Ticket, flow: TenantFlow) -> float:
        mine = self._holdings.get(flow)
        return ((mine.amount if mine else 0) + self._measure(ticket)) / flow.weight
