"""Lanes, tags and priorities one by one. tests/fuzz/test_scheduler.py tests their combined properties."""

from __future__ import annotations

from collections import Counter

from gateway.scheduling.fair_queue import (
    PASSES,
    SLACK,
    BackendPool,
    BackendSet,
    BackendState,
    PriorityBand,
    TenantFlow,
    TicketLane,
    next_ticket,
)
from gateway.scheduling.slot_request import SlotRequest, Ticket
from tests.support.resting import RestingBackend


class Hall:
    """Backends of one pool, and tickets that may use all of them or some of them."""

    def __init__(self, *backends: str) -> None:
        self.pool = BackendPool()
        self.states = {name: BackendState(name, 1, RestingBackend(1)) for name in backends or ("a", "b")}
        for state in self.states.values():
            state.pool = self.pool
        self.reaches: dict[tuple[str, ...], BackendSet] = {}
        self.flows: dict[tuple[str, int], TenantFlow] = {}
        self.count = 0

    def wait(
        self, *tenants: str, backends: tuple[str, ...] = (), weight: int = 1, priority: int = 0
    ) -> list[Ticket]:
        """Add one waiting ticket for each tenant."""
        names = backends or tuple(self.states)
        if names not in self.reaches:
            self.reaches[names] = BackendSet([self.states[name] for name in names])
        band = self.reaches[names].band(priority)
        tickets = []
        for tenant in tenants:
            flow = self.flows.setdefault((tenant, priority), TenantFlow(tenant, priority))
            flow.weight = weight
            self.count += 1
            ticket = Ticket(self.count, SlotRequest("m", names, tenant, weight, priority), 60.0)
            band.append(ticket, flow)
            tickets.append(ticket)
        return tickets

    def next(self, count: int, backend: str = "a") -> str:
        """Return the tenants of the next `count` tickets served on a backend."""
        served = []
        for _ in range(count):
            ticket = next_ticket(self.states[backend])
            assert ticket is not None
            self.leave(ticket)
            served.append(ticket.slot_request.tenant)
        return "".join(served)

    def leave(self, ticket: Ticket) -> None:
        assert ticket.lane is not None
        ticket.lane.band.remove(ticket, ticket.lane)


def lane() -> TicketLane:
    return TicketLane(TenantFlow("t", 0), PriorityBand(BackendSet([]), 0))


def tickets(count: int) -> list[Ticket]:
    return [Ticket(number, SlotRequest("m", ("a",)), 60.0) for number in range(count)]


# --- lanes -----------------------------------------------------------------------------------------


def test_a_lane_knows_the_rank_of_each_whoever_leaves() -> None:
    one = lane()
    waiting = tickets(50)
    for ticket in waiting:
        one.append(ticket)
    for number in (0, 7, 3, 49, 20, 21, 22, 1, 2, 4, 30):
        left = waiting[number]
        one.remove(left)
        assert left.lane is None
        staying = [ticket for ticket in waiting if ticket.lane is one]
        assert list(one) == staying
        assert one.head is staying[0]
        assert [one.rank(ticket) for ticket in staying] == list(range(1, len(staying) + 1))


def test_a_lane_forgets_the_gaps_before_its_head() -> None:
    one = lane()
    waiting = tickets(200)
    for ticket in waiting:
        one.append(ticket)
    for ticket in waiting[1:150]:
        one.remove(ticket)
    one.remove(waiting[0])
    one.remove(waiting[150])
    assert one._gaps == []
    assert one.rank(waiting[151]) == 1


# --- tenants ---------------------------------------------------------------------------------------


def test_tenants_take_turns_however_many_tickets_they_have() -> None:
    hall = Hall()
    hall.wait(*"aaaaaa")
    hall.wait(*"bb")
    hall.wait(*"c")
    assert hall.next(9) == "abcabaaaa"


def test_turns_follow_the_weights() -> None:
    hall = Hall()
    hall.wait(*"aaaaaaaaaa")
    hall.wait(*["b"] * 30, weight=3)
    assert Counter(hall.next(20)) == {"a": 5, "b": 15}


def test_one_that_was_idle_gains_no_credit() -> None:
    hall = Hall()
    hall.wait(*"aaaaaaaaaaaa")
    hall.next(6)
    hall.wait(*"bbbb")
    assert hall.next(6) in ("bababa", "ababab")


def test_one_that_comes_and_goes_gets_no_more_turns_than_one_that_stays() -> None:
    hall = Hall()
    hall.wait(*["a"] * 20)
    served = ""
    for _ in range(10):
        hall.wait("b")
        served += hall.next(2)
    assert Counter(served) == {"a": 10, "b": 10}


def test_those_who_left_take_no_turns_and_leave_nothing_behind() -> None:
    hall = Hall()
    hall.wait(*"aa")
    for number in range(500):
        (ticket,) = hall.wait(f"leaver {number}")
        hall.leave(ticket)
    (band,) = hall.states["a"].bands
    assert max(len(turns) for turns in band._turns.values()) <= SLACK + 3
    assert hall.next(2) == "aa"
    assert next_ticket(hall.states["a"]) is None
    assert hall.states["a"].bands == {}


def test_a_backend_serves_only_those_who_may_use_it() -> None:
    hall = Hall()
    hall.wait(*"aa", backends=("a",))
    hall.wait("b")
    assert hall.next(1, "b") == "b"
    assert next_ticket(hall.states["b"]) is None
    assert hall.next(2, "a") == "aa"


def test_a_tenants_older_ticket_goes_first_whichever_lane_it_is_in() -> None:
    hall = Hall()
    (first,) = hall.wait("a", backends=("a",))
    (second,) = hall.wait("a")
    (third,) = hall.wait("a", backends=("a",))
    order = []
    for _ in range(3):
        ticket = next_ticket(hall.states["a"])
        assert ticket is not None
        order.append(ticket)
        hall.leave(ticket)
    assert order == [first, second, third]


def test_one_who_can_use_a_single_backend_is_not_passed_for_ever_by_those_who_use_all() -> None:
    hall = Hall("a", "b", "c")
    hall.wait("x", backends=("a",))
    hall.wait(*["y"] * 40)
    hall.wait(*["z"] * 40)
    hall.next(20, "b")
    hall.next(20, "c")
    assert "x" in hall.next(3, "a")


def test_a_tenant_is_forgettable_when_its_tag_is_not_ahead() -> None:
    hall = Hall()
    hall.wait("a")
    hall.wait(*"bbb")
    flow = hall.flows["a", 0]
    assert not flow.forgettable
    assert hall.next(2) == "ab"
    assert not flow.forgettable
    hall.next(1)
    assert flow.forgettable


def test_when_nobody_waits_all_begin_as_equals_again() -> None:
    hall = Hall()
    hall.wait(*"aaaa")
    hall.next(4)
    assert hall.flows["a", 0].forgettable
    hall.wait(*"bb")
    hall.wait(*"aa")
    assert hall.next(4) == "baba"


# --- classes ---------------------------------------------------------------------------------------


def test_a_higher_class_goes_first() -> None:
    hall = Hall()
    hall.wait(*"aa")
    hall.wait(*"bb", priority=1)
    hall.wait(*"cc", priority=-1)
    assert hall.next(6) == "bbaacc"


def test_a_lower_class_gets_a_turn_after_so_many_passes() -> None:
    hall = Hall()
    hall.wait(*["a"] * 5)
    hall.wait(*["b"] * 100, priority=2)
    assert hall.next(2 * PASSES + 2) == ("b" * PASSES + "a") * 2


def test_no_class_starves_among_several() -> None:
    hall = Hall()
    for priority, tenant in ((0, "a"), (1, "b"), (2, "c")):
        hall.wait(*[tenant] * 200, priority=priority)
    turns = hall.next(120)
    for tenant in "ab":
        gaps = [len(gap) for gap in turns.split(tenant)]
        assert max(gaps) <= PASSES + 3


def test_fairness_in_a_class_does_not_depend_on_the_others() -> None:
    hall = Hall()
    hall.wait(*["a"] * 10)
    hall.wait(*["b"] * 30, weight=3)
    hall.wait(*["x"] * 300, priority=1)
    turns = [tenant for tenant in hall.next(20 * (PASSES + 1)) if tenant != "x"]
    assert Counter(turns) == {"a": 5, "b": 15}


# --- estimates -------------------------------------------------------------------------------------


def test_positions_take_other_tenants_and_higher_classes_into_account() -> None:
    hall = Hall()
    mine = hall.wait(*"aaaa")
    hall.wait(*"bb")
    hall.wait(*"c", priority=1)
    places = [ticket.lane.band.position(ticket.lane.rank(ticket), 1) for ticket in mine if ticket.lane]
    assert places == [3, 5, 7, 7]
    (band,) = [one for one in hall.states["a"].bands if one.priority == 0]
    assert band.position_of_next(4, 1) == 8
    assert band.position_of_next(0, 1) == 4


def test_a_backend_learns_its_pace_slowly() -> None:
    state = BackendState("a", 1, RestingBackend(1))
    assert state.pace == 0
    state.learn(2.0)
    assert state.pace == 2.0
    state.learn(4.0)
    assert 2.0 < state.pace < 2.5
    assert repr(state) == "<BackendState a 0/1>"
