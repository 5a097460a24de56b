"""Limits on what may wait, in tickets or in bytes, and the tickets that are removed at a limit.

All waiting requests share a limit, so a flood from one tenant must not use all of it. If there is no room
for a new ticket, tickets of the lowest waiting priority are removed. They are taken from the tenant with
the largest load for its weight, newest first. If that priority is also the new ticket's priority, tickets
are removed only while the other tenant's load is larger than that of the new ticket's tenant. If this does
not make enough room, the new ticket itself is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from gateway.scheduling.fair_queue import SLACK, TenantFlow
from gateway.scheduling.slot_request import Ticket


class QueueUsage:
    """How much of one limit one tenant flow uses.

    `noted` is the load under which `LargestFirst` last filed this usage.
    """

    __slots__ = ("amount", "flow", "noted", "tickets")

    def __init__(self, flow: TenantFlow) -> None:
        self.flow = flow
        self.amount = 0
        self.noted = 0.0
        self.tickets: OrderedDict[int, Ticket] = OrderedDict()

    @property
    def load(self) -> float:
        """The used amount divided by the weight of the tenant."""
        return self.amount / self.flow.weight


class LargestFirst:
    """The usages of one priority, ordered by load, largest first.

    A heap with lazy deletion: an outdated entry is dropped when it reaches the top.
    """

    def __init__(self) -> None:
        self.count = 0
        self._order: list[tuple[float, int, QueueUsage]] = []
        self._entries = 0

    def note(self, usage: QueueUsage) -> None:
        """Record a load that may have grown; `first` detects a load that has shrunk."""
        if usage.load <= usage.noted:
            return
        self._push(usage)
        if len(self._order) > 2 * self.count + SLACK:
            self._order = [entry for entry in self._order if -entry[0] == entry[2].noted and entry[2].tickets]
            heapify(self._order)

    def first(self) -> QueueUsage | None:
        """Return the usage with the largest load, or None if nothing waits."""
        while self._order:
            load, _, usage = self._order[0]
            if -load != usage.noted or not usage.tickets:  # outdated, or nothing waits
                heappop(self._order)
            elif usage.load < usage.noted:
                usage.noted = usage.load
                self._entries += 1
                heapreplace(self._order, (-usage.load, self._entries, usage))
            else:
                return usage
        return None

    def _push(self, usage: QueueUsage) -> None:
        usage.noted = usage.load
        self._entries += 1
        heappush(self._order, (-usage.load, self._entries, usage))


class QueueLimit:
    """One limit. `measure` returns how much of the limit a ticket uses."""

    def __init__(self, limit: int, measure: Callable[[Ticket], int]) -> None:
        self.limit = limit
        self.used = 0
        self._measure = measure
        self._usages: dict[TenantFlow, QueueUsage] = {}
        self._classes: dict[int, LargestFirst] = {}

    def add(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Count a ticket that starts to wait."""
        usage = self._usages.get(flow)
        if usage is None:
            usage = self._usages[flow] = QueueUsage(flow)
        amount = self._measure(ticket)
        self.used += amount
        usage.amount += amount
        usage.tickets[ticket.number] = ticket
        by_load = self._classes.get(flow.priority)
        if by_load is None:
            by_load = self._classes[flow.priority] = LargestFirst()
        by_load.count += 1
        by_load.note(usage)

    def remove(self, ticket: Ticket, flow: TenantFlow) -> None:
        """Stop counting a ticket that no longer waits."""
        usage = self._usages[flow]
        amount = self._measure(ticket)
        self.used -= amount
        usage.amount -= amount
        del usage.tickets[ticket.number]
        if not usage.tickets:
            del self._usages[flow]
        by_load = self._classes[flow.priority]
        by_load.count -= 1
        if not by_load.count:
            del self._classes[flow.priority]

    def too_much(self, ticket: Ticket, flow: TenantFlow) -> list[Ticket]:
        """Return the tickets that must be refused so that `ticket` fits the limit.

        The list is empty if there is room. It contains only `ticket` itself if no other ticket may be
        removed for it.
        """
        missing = self.used + self._measure(ticket) - self.limit
        if missing <= 0:
            return []
        return self._displaced(ticket, flow, missing) or [ticket]

    def _displaced(self, ticket: Ticket, flow: TenantFlow, missing: int) -> list[Ticket] | None:
        lowest = min(self._classes, default=None)
        if lowest is None or lowest > flow.priority or self._measure(ticket) > self.limit:
            return None
        largest = self._classes[lowest].first()
        if largest is None or largest.flow is flow:
            return None
        floor = self._load_with(ticket, flow) if lowest == flow.priority else 0.0
        found: list[Ticket] = []
        amount = largest.amount
        for other in reversed(largest.tickets.values()):
            if missing <= 0 or amount / largest.flow.weight <= floor:
                break
            found.append(other)
            missing -= self._measure(other)
            amount -= self._measure(other)
        return found if missing <= 0 else None

    def _load_with(self, ticket: Ticket, flow: TenantFlow) -> float:
        mine = self._usages.get(flow)
        return ((mine.amount if mine else 0) + self._measure(ticket)) / flow.weight
