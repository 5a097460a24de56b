"""Leases: waiting for them, holding them, returning them in every case, and slots kept by lingering tasks."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.dispatch.dispatcher import Dispatcher, Lease
from gateway.errors import (
    ConnectFailed,
    Draining,
    NoBackend,
    QueueFull,
    QueueTimeout,
    Unavailable,
    UpstreamBusy,
)
from gateway.scheduling.backoff import REST
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.scheduling.scheduler import BackendTable
from gateway.scheduling.slot_request import SlotRequest, Ticket
from gateway.telemetry.receipt import Receipt
from gateway.upstream.health_monitor import HealthMonitor
from tests.support.resting import resting

REFUSED = ConnectFailed("", refused=True)
RULES = HealthRules(interval=None, slow_start=0)
"""No probes: a backend that is out of service returns after a rest."""


class Clock:
    """A clock that only moves when the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A hook that records its calls."""

    def __init__(self) -> None:
        self.waits: list[tuple[str, str, float]] = []
        self.changes: list[tuple[str, bool, str]] = []

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        self.waits.append((model, outcome, seconds))

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        self.changes.append((backend, up, reason))

    def settled(self, receipt: Receipt) -> None:
        raise AssertionError("a dispatcher settles nothing")

    def auth_failed(self, reason: str) -> None:
        raise AssertionError("a dispatcher knows no keys")

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome, _ in self.waits]


class AtOnce(defaultdict[str, int]):
    """Counts as the dispatcher does, and also records each count as a wait of 0 seconds in the hook."""

    def __init__(self, hook: Recorder) -> None:
        super().__init__()
        self.hook = hook

    def __missing__(self, model: str) -> int:
        return 0

    def __setitem__(self, model: str, times: int) -> None:
        self.hook.waits.append((model, "granted", 0.0))
        super().__setitem__(model, times)


class House:
    """A dispatcher with its own clock and hook. All backends serve the model `m`."""

    def __init__(
        self, slots: Mapping[str, int] | None = None, *, length: int = 10, timeout: float = 60.0
    ) -> None:
        slots = slots or {"a": 1}
        self.clock: Any = Clock()
        self.hook = Recorder()
        self.backends = tuple(slots)
        self.served: list[str] = []
        self.health_monitor = HealthMonitor(
            {name: BackendHealth(count, RULES) for name, count in slots.items()},
            clock=lambda: self.clock(),
            chance=lambda: 0.0,
            hook=self.hook,
        )
        self.dispatcher = Dispatcher(
            BackendTable(slots, {"m": self.backends}),
            length=length,
            timeout=timeout,
            clock=self.clock,
            hook=self.hook,
            health_monitor=self.health_monitor,
        )
        self.dispatcher.at_once = AtOnce(self.hook)

    @asynccontextmanager
    async def holding(
        self, *backends: str, waiting: Callable[[Ticket], None] = lambda _: None
    ) -> AsyncIterator[Lease]:
        """Hold a lease on one of the backends, by default on the first one."""
        lease = await self.dispatcher.lease(SlotRequest("m", backends or self.backends[:1]), waiting)
        try:
            yield lease
        finally:
            lease.end()

    async def context(
        self, name: str = "", until: asyncio.Event | None = None, tickets: list[Ticket] | None = None
    ) -> str:
        """Take a lease, hold it until the event is set, and return the backend's name."""
        waiting = (tickets if tickets is not None else []).append
        async with self.holding(*self.backends, waiting=waiting) as lease:
            self.served.append(name)
            if until is not None:
                await until.wait()
            return lease.backend

    def tick(self, seconds: float) -> None:
        """Advance the clock and run the timer callback."""
        self.clock.now += seconds
        self.dispatcher._tick()


async def turns(count: int = 5) -> None:
    """Run a few iterations of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def gone(task: asyncio.Task[Any]) -> None:
    """Cancel a task and check that it ends with the cancellation."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- taking and returning leases -------------------------------------------------------------------


async def test_a_free_backend_is_leased_at_once_and_given_back() -> None:
    house = House()
    async with house.holding() as lease:
        assert lease.backend == "a"
        assert house.dispatcher.in_flight("a") == 1
    assert house.dispatcher.in_flight("a") == 0
    assert house.hook.waits == [("m", "granted", 0.0)]


async def test_a_slot_is_given_back_when_its_holder_fails() -> None:
    house = House()
    with pytest.raises(ZeroDivisionError):
        async with house.holding():
            raise ZeroDivisionError
    assert house.dispatcher.in_flight("a") == 0


async def test_only_those_who_have_to_wait_ask_others_to_give_way() -> None:
    house = House()
    asked: list[SlotRequest] = []
    house.dispatcher.on_wait(asked.append)
    async with asyncio.TaskGroup() as group, house.holding():
        assert asked == []
        group.create_task(house.context())
        await turns()
        assert [slot_request.backends for slot_request in asked] == [("a",)]
        assert house.dispatcher.seize(SlotRequest("m", ("a",))) is None
        assert len(asked) == 1
    full = House(length=0)
    full.dispatcher.on_wait(asked.append)
    async with full.holding():
        with pytest.raises(QueueFull):
            await full.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None)
    assert len(asked) == 1


async def test_those_who_wait_are_served_in_their_order() -> None:
    house = House()
    async with asyncio.TaskGroup() as group, house.holding():
        for name in ("first", "second", "third"):
            group.create_task(house.context(name))
        await turns()
        assert house.served == []
        assert house.dispatcher.queue_depth("m") == 3
        house.clock.now += 2.5
    assert house.served == ["first", "second", "third"]
    assert house.hook.waits[1:] == [("m", "granted", 2.5)] * 3
    assert house.dispatcher.queue_depth("m") == 0


async def test_one_who_need_not_wait_has_no_ticket() -> None:
    house = House()
    tickets: list[Ticket] = []
    await house.context(tickets=tickets)
    assert tickets == []


async def test_the_ticket_is_told_before_the_wait_and_has_a_place_while_it_lasts() -> None:
    house = House()
    tickets: list[Ticket] = []
    async with asyncio.TaskGroup() as group, house.holding():
        house.dispatcher.served("m", 4.0)
        group.create_task(house.context("first", tickets=tickets))
        group.create_task(house.context("second", tickets=tickets))
        await turns()
        assert [house.dispatcher.place(ticket) for ticket in tickets] == [(1, 4.0), (2, 8.0)]
    assert [house.dispatcher.place(ticket) for ticket in tickets] == [None, None]


# --- clients that disconnect -----------------------------------------------------------------------


async def test_one_who_leaves_the_queue_takes_no_slot() -> None:
    house = House()
    async with asyncio.TaskGroup() as group, house.holding():
        leaver = group.create_task(house.context("leaver"))
        group.create_task(house.context("stayer"))
        await turns()
        await gone(leaver)
        assert house.dispatcher.queue_depth("m") == 1
    assert house.served == ["stayer"]
    assert house.dispatcher.in_flight("a") == 0
    assert sorted(house.hook.outcomes) == ["granted", "granted", "left"]


async def test_one_who_leaves_in_the_step_of_its_grant_gives_the_slot_back() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        async with house.holding():
            leaver = group.create_task(house.context("leaver"))
            stayer = group.create_task(house.context("stayer"))
            await turns()
        leaver.cancel()  # its future holds the grant, but the task has not resumed yet
        assert await stayer == "a"
    assert leaver.cancelled()
    assert house.served == ["stayer"]
    assert house.dispatcher.in_flight("a") == 0
    assert sorted(house.hook.outcomes) == ["granted", "granted", "left"]


async def test_one_who_left_just_before_the_grant_is_passed_over() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        async with house.holding():
            leaver = group.create_task(house.context("leaver"))
            stayer = group.create_task(house.context("stayer"))
            await turns()
            leaver.cancel()  # the task has not seen the cancellation yet when the slot becomes free
        assert await stayer == "a"
    assert house.served == ["stayer"]
    assert house.dispatcher.in_flight("a") == 0


async def test_one_who_leaves_in_the_step_of_its_refusal_is_just_gone() -> None:
    house = House(timeout=5)
    async with asyncio.TaskGroup() as group, house.holding():
        leaver = group.create_task(house.context("leaver"))
        await turns()
        house.tick(5)
        await gone(leaver)
    assert house.hook.outcomes == ["granted", "left"]
    assert house.dispatcher.queue_depth("m") == 0


async def test_one_who_leaves_with_a_lease_gives_it_back() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        holder = group.create_task(house.context("holder", until=asyncio.Event()))
        await turns()
        assert house.dispatcher.in_flight("a") == 1
        await gone(holder)
    assert house.dispatcher.in_flight("a") == 0


@pytest.mark.parametrize("leave_after", range(8))
async def test_a_slot_is_never_lost_whenever_somebody_leaves(leave_after: int) -> None:
    house = House({"a": 1, "b": 1})
    async with asyncio.TaskGroup() as group:
        release = asyncio.Event()
        for name in ("one", "two"):
            group.create_task(house.context(name, until=release))
        await turns()
        leavers = [group.create_task(house.context(f"leaver {number}")) for number in range(3)]
        stayer = group.create_task(house.context("stayer"))
        for step in range(8):
            if step == 2:
                release.set()
            if step == leave_after:
                for leaver in leavers:
                    leaver.cancel()
            await turns(1)
        await stayer
    assert [house.dispatcher.in_flight(name) for name in ("a", "b")] == [0, 0]
    assert house.dispatcher.queue_depth("m") == 0
    assert len(house.hook.waits) == 6 - (leave_after == 0) * 3  # cancelled before its start: no request


# --- refusals --------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_and_tells_when_to_come_back() -> None:
    house = House(length=1)
    async with asyncio.TaskGroup() as group, house.holding():
        house.dispatcher.served("m", 3.0)
        group.create_task(house.context())
        await turns()
        with pytest.raises(QueueFull) as refused:
            await house.context()
    assert refused.value.retry_after == 6
    assert sorted(house.hook.outcomes) == ["granted", "granted", "queue_full"]


async def test_waiting_ends_at_the_time_limit() -> None:
    house = House(timeout=30)
    async with house.holding(), asyncio.TaskGroup() as group:
        waiter = group.create_task(_refused(house, QueueTimeout))
        await turns()
        house.tick(29.9)
        await turns()
        assert not waiter.done()
        house.tick(0.1)
        assert (await waiter).retry_after == 10
    assert ("m", "queue_timeout", 30.0) in house.hook.waits


async def _refused(house: House, kind: type[Unavailable]) -> Unavailable:
    with pytest.raises(kind) as caught:
        await house.context()
    return caught.value


async def test_the_time_limit_needs_no_other_event() -> None:
    house = House(timeout=0.01)
    house.dispatcher._clock = asyncio.get_running_loop().time
    async with house.holding(), asyncio.timeout(10):
        with pytest.raises(QueueTimeout):
            await house.context()


async def test_the_end_of_a_rest_needs_no_other_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.scheduling.backoff.REST", 0.02)
    house = House({"a": 1, "b": 1})
    house.clock = house.dispatcher._clock = asyncio.get_running_loop().time
    house.dispatcher.tried("b", REFUSED)
    async with house.holding(), asyncio.timeout(10):
        assert await house.context() == "b"


async def test_nobody_waits_for_backends_that_all_rest() -> None:
    house = House()
    house.dispatcher.tried("a", REFUSED)
    with pytest.raises(NoBackend) as refused:
        await house.context()
    assert refused.value.retry_after == max(1.0, REST)
    assert house.hook.outcomes == ["no_backend"]


async def test_those_who_wait_learn_at_once_that_their_backend_went_down() -> None:
    house = House()
    async with house.holding(), asyncio.TaskGroup() as group:
        waiter = group.create_task(_refused(house, NoBackend))
        await turns()
        house.dispatcher.tried("a", REFUSED)
        await waiter
    assert house.hook.outcomes == ["granted", "no_backend"]


async def test_draining_answers_those_who_wait_and_who_would_have_to() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        async with house.holding():
            house.dispatcher.served("m", 7.0)
            waiter = group.create_task(_refused(house, Draining))
            await turns()
            house.dispatcher.drain()
            assert (await waiter).retry_after == 7
            assert (await _refused(house, Draining)).retry_after == 7
        assert await house.context() == "a"
    assert house.hook.outcomes == ["granted", "shutdown", "shutdown", "granted"]


async def test_the_flood_of_one_tenant_gives_way_to_another() -> None:
    house = House(length=2)
    async with asyncio.TaskGroup() as group, house.holding():
        group.create_task(house.context("first"))
        flood = group.create_task(_refused(house, QueueFull))
        await turns()
        polite = group.create_task(house.dispatcher.lease(SlotRequest("m", ("a",), "other"), lambda _: None))
        assert "other tenants have fewer" in str(await flood)
        await gone(polite)


# --- new backends ----------------------------------------------------------------------------------


async def test_a_reload_serves_those_who_wait_by_new_slots_and_ends_leases_of_backends_that_are_gone() -> (
    None
):
    house = House()
    async with asyncio.TaskGroup() as group:
        async with house.holding():
            waiter = group.create_task(house.context("waiter"))
            await turns()
            house.health_monitor.reconfigure({"a": (2, RULES), "b": (1, RULES)})
            house.dispatcher.reconfigure(
                resting(BackendTable({"a": 2, "b": 1}, {"m": ("a", "b")})), length=10, timeout=60
            )
            assert await waiter == "a"
            house.health_monitor.reconfigure({"b": (1, RULES)})
            house.dispatcher.reconfigure(
                resting(BackendTable({"b": 1}, {"m": ("b",)})), length=10, timeout=60
            )
            assert house.dispatcher.in_flight("a") == 1
            assert house.dispatcher.usable() == {"b": True}
        with pytest.raises(KeyError):
            house.dispatcher.in_flight("a")


async def test_a_backend_that_stays_keeps_its_rest_over_a_reload() -> None:
    house = House({"a": 1})
    house.dispatcher.tried("a", REFUSED)
    house.health_monitor.reconfigure({"a": (3, RULES)})
    house.dispatcher.reconfigure(resting(BackendTable({"a": 3}, {"m": ("a",)})), length=10, timeout=60)
    assert not house.dispatcher.up("a")
    house.health_monitor.probed("a", "ok")
    house.health_monitor.probed("a", "ok")
    leases = [await house.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None) for _ in range(3)]
    assert [lease.backend for lease in leases] == ["a"] * 3


# --- costs -----------------------------------------------------------------------------------------


async def test_a_lease_without_waiting_takes_few_calls() -> None:
    house = House({"a": 1, "b": 1, "c": 2})
    slot_request = SlotRequest("m", ("a", "b", "c"))
    calls: list[str] = []

    async def lease_and_end() -> None:
        (await house.dispatcher.lease(slot_request, calls.append)).end()  # type: ignore[arg-type] # never called

    await lease_and_end()
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        await lease_and_end()
    finally:
        sys.setprofile(None)
    assert len(calls) <= 15, calls
    assert house.dispatcher._timer is None


# --- zombies ---------------------------------------------------------------------------------------


async def test_a_lingering_answer_keeps_its_slot_until_it_has_come() -> None:
    house = House()
    answer = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        async with house.holding() as lease:
            lease.linger(group.create_task(answer.wait()))
        assert house.dispatcher.zombies("a") == 1
        assert house.dispatcher.in_flight("a") == 1
        waiter = group.create_task(house.context("next"))
        await turns()
        assert house.served == []
        answer.set()
        assert await waiter == "a"
    assert house.dispatcher.zombies("a") == 0
    assert house.dispatcher.in_flight("a") == 0


async def test_a_lingering_task_that_is_done_keeps_nothing() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        async with house.holding() as lease:
            task = group.create_task(turns(1))
            lease.linger(task)
            await task
        assert house.dispatcher.zombies("a") == 0
        assert house.dispatcher.in_flight("a") == 0


async def test_a_lingering_task_that_fails_or_is_cancelled_frees_the_slot_too() -> None:
    house = House({"a": 2})
    loop = asyncio.get_running_loop()
    forever = asyncio.Event()
    fails = loop.create_task(_fail_after(forever))
    cancelled = loop.create_task(forever.wait())
    for task in (fails, cancelled):
        async with house.holding() as lease:
            lease.linger(task)
    assert house.dispatcher.zombies("a") == 2
    cancelled.cancel()
    await turns()
    assert house.dispatcher.zombies("a") == 1
    forever.set()
    with pytest.raises(ZeroDivisionError):
        await fails
    await turns()
    assert house.dispatcher.zombies("a") == house.dispatcher.in_flight("a") == 0


async def _fail_after(event: asyncio.Event) -> None:
    await event.wait()
    raise ZeroDivisionError


async def test_a_lease_shows_whether_it_lingers_and_whether_it_has_ended() -> None:
    house = House()
    lease = await house.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None)
    assert repr(lease) == "<Lease a>"
    event = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        lease.linger(group.create_task(event.wait()))
        assert repr(lease) == "<Lease a lingering>"
        lease.end()
        assert repr(lease) == "<Lease a ended lingering>"
        event.set()
    assert repr(lease) == "<Lease a ended>"


async def test_a_lease_ends_once_however_often_it_is_ended() -> None:
    house = House({"a": 2})
    async with house.holding():
        lease = await house.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None)
        lease.end()
        lease.end()
        assert house.dispatcher.in_flight("a") == 1


# --- up and down -----------------------------------------------------------------------------------


async def test_hooks_are_told_once_when_a_backend_goes_down_and_once_when_it_is_back() -> None:
    house = House()
    house.dispatcher.tried("a", None)
    house.dispatcher.tried("a", REFUSED)
    house.dispatcher.tried("a", REFUSED)
    assert not house.dispatcher.up("a")
    house.clock.now += REST
    house.dispatcher.tried("a", None)
    house.dispatcher.tried("a", None)
    assert house.dispatcher.up("a")
    assert house.hook.changes == [("a", False, "refused"), ("a", True, "answered")]


async def test_a_backend_may_be_asked_again_after_its_rest() -> None:
    house = House({"a": 1, "b": 1})
    house.dispatcher.tried("a", REFUSED)
    assert house.dispatcher.usable() == {"a": False, "b": True}
    house.tick(REST)
    assert house.dispatcher.usable() == {"a": True, "b": True}
    assert [house.dispatcher.health(name) for name in ("a", "b")] == ["half_open", "up"]


async def test_an_answered_probe_lets_those_who_wait_use_the_backend_at_once() -> None:
    house = House({"a": 1, "b": 1})
    house.dispatcher.tried("b", REFUSED)
    async with house.holding(), asyncio.TaskGroup() as group:
        waiter = group.create_task(house.context())
        await turns()
        assert not waiter.done()
        house.health_monitor.probed("b", "ok")
        assert await waiter == "b"


async def test_one_is_let_in_at_a_time_where_a_backend_is_on_trial() -> None:
    house = House({"a": 4})
    house.dispatcher.tried("a", REFUSED)
    house.health_monitor.probed("a", "ok")
    async with house.holding(), asyncio.TaskGroup() as group:
        waiter = group.create_task(house.context())
        await turns()
        assert not waiter.done()
        house.health_monitor.probed("a", "ok")
        assert await waiter == "a"


async def test_those_who_wait_for_a_busy_server_wait_as_long_as_it_said() -> None:
    house = House()
    house.dispatcher.tried("a", UpstreamBusy("", retry_after=5))
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(house.context())
        await turns()
        house.tick(4.9)
        await turns()
        assert not waiter.done()
        house.tick(0.1)
        assert await waiter == "a"


async def test_a_slot_is_held_for_a_trial_though_the_backend_is_out_and_counts_like_any() -> None:
    house = House()
    house.dispatcher.tried("a", REFUSED)
    assert house.dispatcher.hold("a")
    assert not house.dispatcher.hold("a")
    assert house.dispatcher.in_flight("a") == 1
    house.dispatcher.let_go("a")
    assert house.dispatcher.in_flight("a") == 0
    assert not house.dispatcher.hold("no such backend")


async def test_what_ends_on_a_backend_that_was_taken_out_is_not_heard() -> None:
    house = House({"a": 1, "b": 1})
    house.health_monitor.reconfigure({"b": (1, RULES)})
    house.dispatcher.reconfigure(resting(BackendTable({"b": 1}, {"m": ("b",)})), length=10, timeout=60)
    house.dispatcher.tried("a", REFUSED)
    assert house.hook.changes == []


async def test_closing_stops_the_timer() -> None:
    house = House()
    async with house.holding(), asyncio.TaskGroup() as group:
        waiter = group.create_task(house.context())
        await turns()
        timer = house.dispatcher._timer
        assert timer is not None
        house.dispatcher.aclose()
        assert timer.cancelled()
        await gone(waiter)


async def test_it_shows_its_state() -> None:
    assert repr(House({"a": 2}).dispatcher) == "<Dispatcher <Scheduler busy: a 0/2; waiting: m 0>>"


# --- unexpected exceptions -------------------------------------------------------------------------


async def test_a_request_whose_listener_fails_leaves_the_queue() -> None:
    house = House()

    def fails(_: Ticket) -> None:
        raise StopIteration

    async with house.holding():
        with pytest.raises(RuntimeError):
            await house.dispatcher.lease(SlotRequest("m", ("a",)), fails)
        assert house.dispatcher.queue_depth("m") == 0
    assert house.dispatcher.in_flight("a") == 0


@pytest.mark.parametrize("outcome", ["granted", "queue_full"])
async def test_a_hook_that_fails_takes_no_slot_with_it(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(length=1 if outcome == "granted" else 0)

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.hook, "queue_wait", fails)
    async with house.holding():
        call = asyncio.ensure_future(house.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None))
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await call
    assert house.dispatcher.in_flight("a") == house.dispatcher.queue_depth("m") == 0
