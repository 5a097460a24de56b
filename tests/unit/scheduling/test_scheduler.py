"""The queues and the slots, event by event."""

import sys

import pytest

from gateway.errors import Draining, NoBackend, QueueFull, QueueTimeout
from gateway.scheduling.availability import LAST
from gateway.scheduling.balancers.base import Balancer
from gateway.scheduling.balancers.least_busy import LeastBusy
from gateway.scheduling.balancers.prefix import Prefix
from gateway.scheduling.balancers.round_robin import RoundRobin
from gateway.scheduling.balancers.session import Session
from gateway.scheduling.balancers.weighted import Weighted
from gateway.scheduling.scheduler import MOST_REACHES, BackendTable, Scheduler
from gateway.scheduling.slot_request import Effect, SlotGranted, SlotRefused, SlotRequest, Ticket
from tests.support.resting import REST, RestingBackend, resting


class House(Scheduler):
    """A scheduler whose backends rest after failures. By default all of them serve the model `m`."""

    def __init__(
        self, slots: dict[str, int], models: dict[str, tuple[str, ...]], length: int, size: int
    ) -> None:
        self.rests = {name: RestingBackend(count) for name, count in slots.items()}
        super().__init__(BackendTable(slots, models, availability=self.rests), length=length, size=size)

    def fail(self, backend: str, now: float) -> list[Effect]:
        self.rests[backend].failed(now)
        return self.changed(backend, now)

    def recover(self, backend: str, now: float) -> list[Effect]:
        self.rests[backend].answered()
        return self.changed(backend, now)


def scheduler(
    slots: dict[str, int] | None = None,
    models: dict[str, tuple[str, ...]] | None = None,
    length: int = 10,
    size: int = 1000,
) -> House:
    slots = slots or {"a": 1}
    return House(slots, models or {"m": tuple(slots)}, length, size)


def ticket(
    number: int,
    *backends: str,
    model: str = "m",
    deadline: float = 60.0,
    tenant: str = "",
    weight: int = 1,
    priority: int = 0,
    size: int = 0,
) -> Ticket:
    slot_request = SlotRequest(model, backends or ("a",), tenant, weight, priority, size)
    return Ticket(number, slot_request, deadline)


def granted(effects: list[Effect]) -> list[tuple[int, str]]:
    """Return the grants as (ticket, backend); fail if there are other effects."""
    found = [effect for effect in effects if isinstance(effect, SlotGranted)]
    assert len(found) == len(effects), effects
    return [(effect.ticket.number, effect.backend) for effect in found]


def refused(effects: list[Effect]) -> list[tuple[int, type]]:
    """Return the refusals as (ticket, error class); fail if there are other effects."""
    found = [effect for effect in effects if isinstance(effect, SlotRefused)]
    assert len(found) == len(effects), effects
    return [(effect.ticket.number, type(effect.error)) for effect in found]


def refusal(effects: list[Effect]) -> SlotRefused:
    (effect,) = effects
    assert isinstance(effect, SlotRefused)
    return effect


# --- arriving --------------------------------------------------------------------------------------


def test_a_ticket_that_finds_a_free_backend_gets_it_at_once() -> None:
    one = scheduler()
    assert granted(one.arrive(ticket(1), 0)) == [(1, "a")]
    assert one.state("a").busy == 1
    assert one.depth("m") == 0


@pytest.mark.parametrize("balancer", [LeastBusy(), RoundRobin(), Weighted(), Session(), Prefix()])
def test_a_last_choice_gets_what_no_other_can_take(balancer: Balancer) -> None:
    class Last(RestingBackend):
        def share(self, now: float) -> float:
            return LAST if now < 5 else 1.0

        def next_change(self, now: float) -> float | None:
            return 5.0 if now < 5 else None

    fleet = BackendTable(
        {"a": 2, "b": 2}, {"m": ("a", "b")}, balancers={"m": balancer}, availability={"a": Last(2)}
    )
    one = Scheduler(resting(fleet), length=10)
    for session in "rstuvwxyz":
        slot_request = SlotRequest("m", ("a", "b"), affinity=session, prefix=(b"p",))
        assert one.seize(slot_request, 0.0) == "b"
        one.release("b", 0.0)
    claims = [SlotRequest("m", ("a", "b"), affinity="s") for _ in range(4)]
    assert [one.seize(slot_request, 0.0) for slot_request in claims] == ["b", "b", "a", "a"]
    one.tick(6.0)
    one.release("a", 6.0)
    assert one.seize(claims[0], 6.0) == "a"


def test_a_ticket_that_finds_none_waits_without_effect() -> None:
    one = scheduler()
    one.arrive(ticket(1), 0)
    assert one.arrive(ticket(2), 0) == []
    assert one.depth("m") == 1


def test_backends_at_rest_are_used_in_turn() -> None:
    one = scheduler({"a": 4, "b": 4, "c": 4})
    backends = [granted(one.arrive(ticket(number, "a", "b", "c"), 0))[0][1] for number in range(6)]
    assert backends == ["a", "b", "c", "a", "b", "c"]


def test_all_slots_of_a_backend_are_used_and_not_one_more() -> None:
    one = scheduler({"a": 3})
    for number in range(3):
        assert granted(one.arrive(ticket(number), 0)) == [(number, "a")]
    assert one.arrive(ticket(3), 0) == []
    assert one.state("a").busy == 3


def test_a_newcomer_does_not_wait_behind_a_ticket_for_another_backend() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "a"), 0)
    assert granted(one.arrive(ticket(3, "a", "b"), 0)) == [(3, "b")]


def test_a_newcomer_does_not_overtake_one_who_could_use_the_same_backend() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.fail("b", 0)
    one.arrive(ticket(2, "a", "b"), 0)
    assert granted(one.arrive(ticket(3, "a", "b"), REST)) == [(2, "b")]
    assert one.depth("m") == 1


# --- handing on ------------------------------------------------------------------------------------


def test_a_released_slot_goes_to_the_one_who_waited_longest() -> None:
    one = scheduler()
    for number in (1, 2, 3):
        one.arrive(ticket(number), 0)
    assert granted(one.release("a", 1)) == [(2, "a")]
    assert granted(one.release("a", 2)) == [(3, "a")]
    assert one.release("a", 3) == []
    assert one.state("a").busy == 0


def test_a_released_slot_goes_to_the_first_who_may_use_it() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "b"), 0)
    one.arrive(ticket(3, "a"), 0)
    one.arrive(ticket(4, "b"), 0)
    assert granted(one.release("b", 1)) == [(4, "b")]


def test_a_backend_of_two_models_serves_the_older_ticket_of_either() -> None:
    one = scheduler({"a": 1}, {"m": ("a",), "n": ("a",)})
    one.arrive(ticket(1, model="m"), 0)
    one.arrive(ticket(2, model="n"), 0)
    one.arrive(ticket(3, model="m"), 0)
    assert granted(one.release("a", 1)) == [(2, "a")]
    assert granted(one.release("a", 2)) == [(3, "a")]


def test_nobody_is_tied_to_a_busy_backend() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a", "b"), 0)
    one.arrive(ticket(2, "a", "b"), 0)
    one.arrive(ticket(3, "a", "b"), 0)
    assert granted(one.release("b", 1)) == [(3, "b")]


def test_a_ticket_that_left_is_not_served() -> None:
    one = scheduler()
    waiting = ticket(2)
    one.arrive(ticket(1), 0)
    one.arrive(waiting, 0)
    one.arrive(ticket(3), 0)
    one.leave(waiting)
    assert one.depth("m") == 1
    assert granted(one.release("a", 1)) == [(3, "a")]


def test_leaving_twice_or_after_the_grant_changes_nothing() -> None:
    one = scheduler()
    holder = ticket(1)
    one.arrive(holder, 0)
    one.leave(holder)
    one.leave(holder)
    assert one.state("a").busy == 1


# --- a full queue ----------------------------------------------------------------------------------


def test_a_ticket_too_many_is_refused_and_not_queued() -> None:
    one = scheduler(length=1)
    one.arrive(ticket(1), 0)
    one.arrive(ticket(2), 0)
    assert refused(one.arrive(ticket(3), 0)) == [(3, QueueFull)]
    assert one.depth("m") == 1
    assert granted(one.release("a", 1)) == [(2, "a")]
    assert one.release("a", 2) == []


def test_with_a_queue_of_length_0_nobody_waits() -> None:
    one = scheduler(length=0)
    assert granted(one.arrive(ticket(1), 0)) == [(1, "a")]
    assert refused(one.arrive(ticket(2), 0)) == [(2, QueueFull)]


def test_a_full_queue_tells_when_to_come_back_by_what_answers_took() -> None:
    one = scheduler({"a": 2}, length=4)
    one.learn("m", 30.0)
    for number in range(6):
        one.arrive(ticket(number), 0)
    # Four tickets wait and two are served at a time, so the new ticket is in the third round.
    assert refusal(one.arrive(ticket(7), 0)).error.retry_after == 90


def test_models_have_queues_of_their_own() -> None:
    one = scheduler({"a": 1, "b": 1}, {"m": ("a",), "n": ("b",)}, length=1)
    for number in range(2):
        one.arrive(ticket(number, "a", model="m"), 0)
    assert refused(one.arrive(ticket(3, "a", model="m"), 0)) == [(3, QueueFull)]
    assert granted(one.arrive(ticket(4, "b", model="n"), 0)) == [(4, "b")]


# --- failures --------------------------------------------------------------------------------------


def test_a_failed_backend_rests_and_is_not_asked() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.fail("a", 0)
    assert granted(one.arrive(ticket(1, "a", "b"), 0)) == [(1, "b")]
    assert one.arrive(ticket(2, "a", "b"), REST / 2) == []
    assert granted(one.tick(REST)) == [(2, "a")]


def test_a_ticket_whose_backends_all_rest_is_refused_at_once() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.fail("a", 0)
    one.fail("b", 0)
    effects = one.arrive(ticket(1, "a", "b"), 0.25)
    assert refused(effects) == [(1, NoBackend)]
    assert refusal(effects).error.retry_after == 1
    assert one.depth("m") == 0


def test_those_who_wait_are_refused_when_their_last_backend_fails() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "b"), 0)
    one.arrive(ticket(3, "a"), 0)
    one.arrive(ticket(4, "a", "b"), 0)
    assert refused(one.fail("a", 1)) == [(3, NoBackend)]
    assert granted(one.release("b", 2)) == [(4, "b")]


def test_a_refusal_tells_when_the_first_backend_has_rested() -> None:
    one = scheduler({"a": 1, "b": 1})
    for _ in range(3):
        now = one.rests["a"].rests_until
        one.fail("a", now)
    one.fail("b", now)
    assert refusal(one.arrive(ticket(1, "a"), now)).error.retry_after == 4.0
    assert refusal(one.arrive(ticket(2, "a", "b"), now)).error.retry_after == 1.0


def test_requests_that_were_under_way_together_fail_as_one() -> None:
    one = scheduler({"a": 8})
    for number in range(8):
        one.arrive(ticket(number), 0)
    for _ in range(8):
        one.fail("a", 1)
    assert one.rests["a"].failures == 1
    assert one.rests["a"].rests_until == 1 + REST


def test_a_backend_that_answers_is_as_good_as_new() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "b"), 0)
    one.fail("a", 0)
    one.fail("a", REST)
    one.arrive(ticket(2, "a", "b"), REST)
    assert granted(one.recover("a", REST + 0.5)) == [(2, "a")]
    assert one.rests["a"].failures == 0


def test_a_slot_of_a_resting_backend_is_taken_back_but_not_handed_on() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "b"), 0)
    one.arrive(ticket(3, "a", "b"), 0)
    one.fail("a", 1)
    assert one.release("a", 1) == []
    assert one.state("a").busy == 0
    assert granted(one.release("b", 1)) == [(3, "b")]


# --- time ------------------------------------------------------------------------------------------


def test_a_ticket_past_its_deadline_is_refused() -> None:
    one = scheduler()
    one.arrive(ticket(1), 0)
    one.arrive(ticket(2, deadline=5), 0)
    one.arrive(ticket(3, deadline=9), 0)
    assert one.tick(4.9) == []
    assert refused(one.tick(5)) == [(2, QueueTimeout)]
    assert granted(one.release("a", 6)) == [(3, "a")]


def test_one_that_waited_too_long_is_told_when_to_come_back() -> None:
    one = scheduler()
    one.learn("m", 7.0)
    one.arrive(ticket(1), 0)
    one.arrive(ticket(2, deadline=5), 0)
    retry_after = refusal(one.tick(5)).error.retry_after
    assert retry_after is not None
    assert retry_after == 7


def test_nobody_waiting_needs_no_tick() -> None:
    one = scheduler()
    one.arrive(ticket(1), 0)
    one.fail("a", 0)
    assert one.next_tick() is None


def test_the_next_tick_is_the_first_deadline() -> None:
    one = scheduler()
    one.arrive(ticket(1), 0)
    one.arrive(ticket(2, deadline=30), 0)
    one.arrive(ticket(3, deadline=20), 0)
    assert one.next_tick() == 20


def test_the_next_tick_is_the_end_of_a_rest_before_any_deadline() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.fail("b", 3)
    one.arrive(ticket(2, "a", "b"), 3)
    assert one.next_tick() == 3 + REST
    assert one.tick(3 + REST) != []
    one.arrive(ticket(3, "a", "b"), 3 + REST)
    assert one.next_tick() == 60


# --- views -----------------------------------------------------------------------------------------


def test_a_waiting_ticket_has_a_place_and_an_expected_wait() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.learn("m", 8.0)
    tickets = [ticket(number, "a", "b") for number in range(1, 6)]
    for each in tickets:
        one.arrive(each, 0)
    assert [one.place(each) for each in tickets] == [None, None, (1, 8.0), (2, 8.0), (3, 16.0)]


def test_it_shows_who_is_busy_and_who_waits() -> None:
    one = scheduler({"a": 1, "b": 2}, {"m": ("a", "b"), "n": ("b",)})
    for number in range(4):
        one.arrive(ticket(number, "a", "b"), 0)
    assert repr(one) == "<Scheduler busy: a 1/1, b 2/2; waiting: m 1, n 0>"


# --- the fast path ---------------------------------------------------------------------------------


def test_who_finds_a_free_backend_needs_no_ticket() -> None:
    one = scheduler({"a": 1, "b": 1})
    slot_request = SlotRequest("m", ("a", "b"))
    assert [one.seize(slot_request, 0) for _ in range(3)] == ["a", "b", None]


def test_the_short_way_overtakes_nobody_whose_backend_has_just_rested() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.fail("b", 0)
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "a", "b"), 0)
    assert one.seize(SlotRequest("m", ("b",)), REST) is None
    assert granted(one.tick(REST)) == [(2, "b")]


def test_a_model_that_is_gone_has_no_backend() -> None:
    one = scheduler()
    assert one.seize(SlotRequest("gone", ("a",)), 0) is None
    assert refused(one.arrive(ticket(1, model="gone"), 0)) == [(1, NoBackend)]


def test_sets_of_backends_are_not_remembered_without_end() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(1, "a"), 0)
    one.arrive(ticket(2, "a"), 0)
    for number in range(2 * MOST_REACHES):
        one.seize(SlotRequest("m", ("a", f"gone {number}")), 0)
    assert len(one._backend_sets) <= MOST_REACHES
    assert granted(one.release("a", 1)) == [(2, "a")]


# --- tenants and classes ---------------------------------------------------------------------------


def test_the_flood_of_one_tenant_holds_up_another_for_one_turn_at_most() -> None:
    one = scheduler()
    for number in range(8):
        one.arrive(ticket(number, tenant="flood"), 0)
    one.arrive(ticket(8, tenant="polite"), 0)
    assert granted(one.release("a", 1)) == [(1, "a")]
    assert granted(one.release("a", 2)) == [(8, "a")]


def test_a_backend_of_two_models_is_fair_between_tenants_of_either() -> None:
    one = scheduler({"a": 1}, {"m": ("a",), "n": ("a",)})
    for number in range(4):
        one.arrive(ticket(number, tenant="both", model="mn"[number % 2]), 0)
    one.arrive(ticket(4, tenant="one", model="n"), 0)
    assert [granted(one.release("a", 1))[0][0] for _ in range(4)] == [1, 4, 2, 3]


def test_a_higher_class_goes_first() -> None:
    one = scheduler()
    one.arrive(ticket(0), 0)
    one.arrive(ticket(1, tenant="low"), 0)
    one.arrive(ticket(2, tenant="high", priority=1), 0)
    assert granted(one.release("a", 1)) == [(2, "a")]


def test_a_full_queue_makes_the_tenant_give_way_that_holds_most() -> None:
    one = scheduler(length=3)
    one.learn("m", 5.0)
    for number in range(4):
        one.arrive(ticket(number, tenant="flood"), 0)
    effects = one.arrive(ticket(4, tenant="polite"), 0)
    assert refused(effects) == [(3, QueueFull)]
    assert refusal(effects).error.retry_after == 20
    assert one.depth("m") == 3
    assert refused(one.arrive(ticket(5, tenant="flood"), 0)) == [(5, QueueFull)]


def test_all_who_wait_share_a_bound_of_bytes() -> None:
    one = scheduler({"a": 1}, {"m": ("a",), "n": ("a",)}, size=100)
    one.arrive(ticket(0), 0)
    one.arrive(ticket(1, size=60), 0)
    effects = one.arrive(ticket(2, model="n", size=50), 0)
    assert refused(effects) == [(2, QueueFull)]
    assert "queue.bytes: 100" in str(refusal(effects).error)
    assert refused(one.arrive(ticket(3, tenant="polite", model="n", size=50), 0)) == [(1, QueueFull)]
    assert refused(one.arrive(ticket(4, tenant="polite", size=101), 0)) == [(4, QueueFull)]


def test_nobody_gives_way_for_one_who_is_refused_all_the_same() -> None:
    one = scheduler(length=2, size=100)
    one.arrive(ticket(0), 0)
    for number in (1, 2):
        one.arrive(ticket(number, tenant="flood", size=10), 0)
    assert refused(one.arrive(ticket(3, tenant="polite", size=101), 0)) == [(3, QueueFull)]
    assert one.depth("m") == 2


def test_a_ticket_for_several_models_waits_once_and_takes_what_comes_first() -> None:
    one = scheduler({"a": 1, "b": 1}, {"m": ("a",), "n": ("b",)})
    one.arrive(ticket(0, "a"), 0)
    one.arrive(ticket(1, "b", model="n"), 0)
    one.arrive(ticket(2, "a", "b"), 0)
    assert (one.depth("m"), one.depth("n")) == (1, 0)
    assert granted(one.release("b", 1)) == [(2, "b")]
    assert one.release("a", 2) == []


def test_tenants_are_forgotten_when_that_changes_nothing() -> None:
    one = scheduler(length=10_000)
    for number in range(3 * MOST_REACHES):
        one.arrive(ticket(number, tenant=str(number)), 0)
        one.release("a", 0)
    for number in range(3 * MOST_REACHES):
        one.arrive(ticket(number + 10_000, tenant=str(number)), 0)
        one.arrive(ticket(number + 20_000, tenant=str(number)), 0)
        one.release("a", 0)
        one.release("a", 0)
    assert len(one._flows) <= MOST_REACHES + 1


# --- draining and reloading ------------------------------------------------------------------------


def test_draining_refuses_all_who_wait_and_who_would_have_to() -> None:
    one = scheduler()
    one.learn("m", 3.0)
    for number in range(3):
        one.arrive(ticket(number), 0)
    assert refused(one.drain()) == [(1, Draining), (2, Draining)]
    effects = one.arrive(ticket(3), 0)
    assert refused(effects) == [(3, Draining)]
    assert refusal(effects).error.retry_after == 3
    assert one.release("a", 1) == []
    assert granted(one.arrive(ticket(4), 1)) == [(4, "a")]


def test_those_who_wait_keep_their_places_over_a_reload() -> None:
    one = scheduler()
    for number in range(4):
        one.arrive(ticket(number), 0)
    fleet = resting(BackendTable({"a": 2, "c": 1}, {"m": ("a", "c")}))
    assert granted(one.reconfigure(fleet, 1, length=10)) == [(1, "a")]
    assert granted(one.release("a", 2)) == [(2, "a")]
    assert one.depth("m") == 1
    assert granted(one.arrive(ticket(4, "a", "c"), 2)) == [(4, "c")]


def test_those_who_wait_may_have_newcomers_of_a_kind_that_they_could_have() -> None:
    kinds = {("m", "a"): "old", ("m", "b"): "new", ("m", "c"): "new", ("m", "d"): "old", ("n", "d"): "new"}
    one = Scheduler(resting(BackendTable({"a": 1, "b": 1}, {"m": ("a", "b")}, kinds=kinds)), length=10)
    for number, backend in enumerate(("a", "b", "a", "b")):
        one.arrive(ticket(number, backend), 0)
    models: dict[str, tuple[str, ...]] = {"m": ("c", "d", "a", "b"), "n": ("d",)}
    slots = {"a": 1, "b": 1, "c": 1, "d": 1}
    assert granted(one.reconfigure(resting(BackendTable(slots, models, kinds=kinds)), 1, length=10)) == [
        (3, "c"),
        (2, "d"),
    ]
    assert not one.waiting


def test_those_who_wait_keep_away_from_who_was_there_already_and_not_theirs() -> None:
    kinds = dict.fromkeys([("m", "a"), ("m", "b"), ("m", "c")], "same")
    one = Scheduler(resting(BackendTable({"a": 1, "b": 1}, {"m": ("a", "b")}, kinds=kinds)), length=10)
    for number in range(2):
        one.arrive(ticket(number, "a"), 0)  # a second attempt: backend b has failed
    fleet = resting(BackendTable({"a": 1, "b": 1}, {"m": ("a", "b")}, kinds=kinds))
    assert one.reconfigure(fleet, 1, length=10) == []
    fleet = resting(BackendTable({"b": 1, "c": 1}, {"m": ("b", "c")}, kinds=kinds))
    assert granted(one.reconfigure(fleet, 2, length=10)) == [(1, "c")]


def test_the_kind_of_a_backend_that_served_another_model_for_a_while_is_not_forgotten() -> None:
    kinds = dict.fromkeys([("m", "a"), ("m", "b"), ("n", "a")], "same")
    one = Scheduler(resting(BackendTable({"a": 1}, {"m": ("a",)}, kinds=kinds)), length=10)
    for number in range(2):
        one.arrive(ticket(number, "a"), 0)
    away = resting(BackendTable({"a": 1}, {"m": (), "n": ("a",)}, kinds={("n", "a"): "same"}))
    assert one.reconfigure(away, 1, length=10) == []
    fleet = resting(BackendTable({"a": 1, "b": 1}, {"m": ("b",), "n": ("a",)}, kinds=kinds))
    assert granted(one.reconfigure(fleet, 2, length=10)) == [(1, "b")]


def test_a_backend_is_at_work_until_its_last_request_is_over() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(0, "a"), 0)
    assert (one.at_work("a"), one.at_work("b"), one.at_work("never")) == (True, False, False)
    one.reconfigure(resting(BackendTable({"b": 1}, {"m": ("b",)})), 1, length=10)
    assert one.at_work("a")
    one.release("a", 2)
    assert not one.at_work("a")


def test_those_whose_model_or_last_backend_is_gone_are_refused() -> None:
    one = scheduler({"a": 1, "b": 1}, {"m": ("a", "b"), "n": ("b",)})
    one.arrive(ticket(0, "a"), 0)
    one.arrive(ticket(1, "b", model="n"), 0)
    one.arrive(ticket(2, "a", "b"), 0)
    one.arrive(ticket(3, "b", model="n"), 0)
    one.arrive(ticket(4, "b"), 0)
    assert refused(one.reconfigure(resting(BackendTable({"a": 1}, {"m": ("a",)})), 1, length=10)) == [
        (3, NoBackend),
        (4, NoBackend),
    ]
    assert granted(one.release("a", 2)) == [(2, "a")]


def test_a_backend_that_is_gone_is_forgotten_with_its_last_request() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(0, "a"), 0)
    one.reconfigure(resting(BackendTable({"b": 1}, {"m": ("b",)})), 1, length=10)
    assert one.usable(1) == {"b": True}
    assert one.state("a").busy == 1
    assert one.release("a", 2) == []
    assert "a" not in one._backends


def test_a_backend_that_comes_back_knows_what_it_still_works_on() -> None:
    one = scheduler({"a": 1, "b": 1})
    one.arrive(ticket(0, "a"), 0)
    one.reconfigure(resting(BackendTable({"b": 1}, {"m": ("b",)})), 1, length=10)
    one.reconfigure(resting(BackendTable({"a": 2, "b": 1}, {"m": ("a", "b")})), 2, length=10)
    assert [one.seize(SlotRequest("m", ("a",)), 2) for _ in range(2)] == ["a", None]
    one.release("a", 3)
    assert one.seize(SlotRequest("m", ("a",)), 3) == "a"


# --- cost ------------------------------------------------------------------------------------------


def calls_for_100_decisions(waiting: int, tenants: int) -> int:
    """Count the Python calls of 50 arrivals and 50 releases while `waiting` tickets wait."""
    one = scheduler({"a": 1, "b": 1}, length=2 * waiting)
    numbers = iter(range(10 * waiting))

    def arrive() -> None:
        number = next(numbers)
        one.arrive(ticket(number, "a", "b", tenant=str(number % tenants), priority=number % 2), 0)

    for _ in range(waiting + 2):
        arrive()
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        for _ in range(50):
            arrive()
            one.release("a", 0)
            one.next_tick()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("tenants", [1, 50, 2000])
def test_a_decision_costs_about_as_much_however_many_wait(tenants: int) -> None:
    assert calls_for_100_decisions(10_000, tenants) < 1.5 * calls_for_100_decisions(100, tenants)
