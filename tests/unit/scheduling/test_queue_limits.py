"""Which tickets are removed when a limit is reached."""

from __future__ import annotations

from gateway.scheduling.fair_queue import TenantFlow
from gateway.scheduling.queue_limits import QueueLimit
from gateway.scheduling.slot_request import SlotRequest, Ticket


class Room:
    """One limit and the flows that use it. Tickets are numbered in order of arrival."""

    def __init__(self, limit: int, *, by_size: bool = False) -> None:
        self.bound = QueueLimit(limit, lambda ticket: ticket.slot_request.size if by_size else 1)
        self.flows: dict[tuple[str, int], TenantFlow] = {}
        self.tickets: dict[int, tuple[Ticket, TenantFlow]] = {}

    def newcomer(
        self, tenant: str, size: int = 1, weight: int = 1, priority: int = 0
    ) -> tuple[Ticket, TenantFlow]:
        flow = self.flows.setdefault((tenant, priority), TenantFlow(tenant, priority))
        flow.weight = weight
        slot_request = SlotRequest("m", ("a",), tenant, weight, priority, size)
        return Ticket(len(self.tickets) + 1, slot_request, 60.0), flow

    def add(self, *tenants: str, size: int = 1, weight: int = 1, priority: int = 0) -> None:
        for tenant in tenants:
            ticket, flow = self.newcomer(tenant, size, weight, priority)
            self.tickets[ticket.number] = ticket, flow
            self.bound.add(ticket, flow)

    def remove(self, *numbers: int) -> None:
        for number in numbers:
            self.bound.remove(*self.tickets[number])

    def gives_way(self, tenant: str, size: int = 1, weight: int = 1, priority: int = 0) -> list[int]:
        """Return the numbers of the tickets that would be removed for a new ticket (0: the new ticket)."""
        ticket, flow = self.newcomer(tenant, size, weight, priority)
        found = self.bound.too_much(ticket, flow)
        return [0 if one is ticket else one.number for one in found]


def test_nobody_gives_way_while_there_is_room() -> None:
    room = Room(2)
    room.add("a")
    assert room.gives_way("a") == []


def test_a_tenant_alone_cannot_have_more_than_the_limit() -> None:
    room = Room(2)
    room.add("a", "a")
    assert room.gives_way("a") == [0]


def test_the_newest_of_the_tenant_that_holds_most_gives_way() -> None:
    room = Room(5)
    room.add("a", "b", "a", "b", "a")
    assert room.gives_way("c") == [5]


def test_nobody_gives_way_to_one_who_would_hold_as_much() -> None:
    room = Room(4)
    room.add("a", "a", "b", "b")
    assert room.gives_way("c") == [2]
    assert room.gives_way("b") == [0]


def test_a_flood_gives_way_until_all_hold_the_same() -> None:
    room = Room(6)
    room.add(*"aaaaaa")
    for _ in range(3):
        (number,) = room.gives_way("b")
        room.remove(number)
        room.add("b")
    assert room.gives_way("b") == [0]
    assert room.gives_way("a") == [0]


def test_a_tenant_of_more_weight_may_hold_more() -> None:
    room = Room(4)
    room.add("a", "a", "a", weight=3)
    room.add("b")
    assert room.gives_way("b") == [0]
    assert room.gives_way("c") == [0]
    assert room.gives_way("c", weight=2) == [3]


def test_the_lowest_class_gives_way_first_whatever_it_holds() -> None:
    room = Room(4)
    room.add("a", "a", "a", priority=1)
    room.add("b", priority=0)
    assert room.gives_way("a", priority=1) == [4]
    assert room.gives_way("c", priority=0) == [0]
    assert room.gives_way("a", priority=-1) == [0]


def test_no_class_gives_way_to_a_lower_one() -> None:
    room = Room(2)
    room.add("a", "a", priority=1)
    assert room.gives_way("b", priority=0) == [0]


def test_by_size_as_many_give_way_as_are_needed() -> None:
    room = Room(100, by_size=True)
    room.add("a", "a", "a", "a", size=25)
    assert room.gives_way("b", size=10) == [4]
    assert room.gives_way("b", size=40) == [4, 3]


def test_by_size_nobody_gives_way_in_vain() -> None:
    room = Room(100, by_size=True)
    room.add("a", "a", "a", "a", size=20)
    room.add("c", size=20)
    assert room.gives_way("b", size=70) == [0]
    assert room.gives_way("b", size=101) == [0]
    assert room.gives_way("b", size=0) == []


def test_the_heaviest_is_known_after_many_have_come_and_gone() -> None:
    room = Room(300)
    room.add(*["a"] * 200, *["b"] * 100)
    room.remove(*range(1, 151))
    assert room.bound.used == 150
    room.add(*["c"] * 60, *["d"] * 90)
    assert room.gives_way("e") == [300]
    room.remove(*range(201, 301))
    room.add(*["c"] * 100)
    assert room.gives_way("e") == [room.bound.used + 250]
    room.remove(*(number for number in range(151, 551) if number not in range(201, 301)))
    assert room.bound.used == 0
    assert room.gives_way("e") == []
