"""Any sequence of arrivals, leavings, flaps, waits and reloads leaves the scheduler's promises standing.

A sequence is a row of bytes that a `World` plays: it drives a scheduler as the dispatcher does and keeps
books of its own beside it. GATEWAY_TEST_SEQUENCES says how many sequences are played.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import Draining, NoBackend, QueueFull, QueueTimeout
from gateway.scheduling.balancers import BALANCERS, balancer
from gateway.scheduling.fair_queue import PASSES
from gateway.scheduling.scheduler import BackendTable, Scheduler
from gateway.scheduling.slot_request import Effect, SlotGranted, SlotRefused, SlotRequest, Ticket

SEQUENCES = int(os.environ.get("GATEWAY_TEST_SEQUENCES", "1200"))
PATIENCE = 6.0
BACKENDS = ("a", "b", "c", "d")
WEIGHTS = {"ann": 1, "bob": 1, "eve": 2, "flo": 5}
TENANTS = tuple(WEIGHTS)
SHAPES: tuple[dict[str, tuple[str, ...]], ...] = (
    {"m": BACKENDS},
    {"m": ("a",)},
    {"m": BACKENDS, "n": BACKENDS},
    {"m": ("a", "b"), "n": ("b", "c", "d")},
    {"m": ("a", "b", "c"), "n": ("d",), "o": ("a", "d")},
)
"""Models and their backends."""


@dataclass
class Flap:
    """A fitness that the test sets."""

    up: bool = True
    slots: int = 9
    until: float = inf

    def usable(self, now: float) -> bool:
        return self.up or now >= self.until

    def slots_now(self, now: float) -> int:
        return 9 if now >= self.until else self.slots

    def share(self, now: float) -> float:
        return 1.0 if self.slots_now(now) == 9 else 0.5

    def next_change(self, now: float) -> float | None:
        return self.until if now < self.until < inf else None


@dataclass
class Passes:
    """Who went before a waiting ticket on backends that it could have used, in one pool."""

    tenants: Counter[str] = field(default_factory=Counter)
    sides: set[tuple[str, frozenset[str]]] = field(default_factory=set)
    classes: int = 0


class World:
    """A scheduler, its surroundings, and the books. `row` decides everything that happens."""

    def __init__(self, row: bytes) -> None:
        self.row: Iterator[int] = iter(row)
        self.now = 100.0
        self.number = 0
        self.waiting: dict[int, Ticket] = {}
        self.of_a_kind: set[int] = set()  # came when it was known of what kind the backends were
        self.ended: set[int] = set()
        self.held: list[str] = []
        self.partly = bool(self.byte() & 1)
        self.classes = 1 + self.byte() % 3
        self.length = (1, 3, 6, 50)[self.byte() % 4]
        self.size = (40, 10_000)[self.byte() % 2]
        self.flaps = {name: Flap() for name in BACKENDS}
        self.draining = False
        self.shape()
        self.uniform = not self.partly and len(self.models) == 1
        self.scheduler = Scheduler(self.fleet, length=self.length, size=self.size)

    def byte(self) -> int:
        return next(self.row)

    def shape(self) -> None:
        self.models = SHAPES[self.byte() % len(SHAPES)]
        used = [name for name in BACKENDS if any(name in names for names in self.models.values())]
        sizes = self.byte()
        self.slots = {name: 1 + (sizes >> place & 1) for place, name in enumerate(used)}
        members = {name: tuple(m for m, names in self.models.items() if name in names) for name in used}
        self.pools = {name: frozenset(one for one in used if members[one] == members[name]) for name in used}
        policy = tuple(BALANCERS)[self.byte() % len(BALANCERS)]
        balancers = {model: balancer(policy, lambda: self.number * 0.37 % 1) for model in self.models}
        group = {(model, name): "alike" for model, names in self.models.items() for name in names}
        kinds = group if sizes & 64 else {}
        self.fleet = BackendTable(self.slots, self.models, {"a": 2}, balancers, self.flaps, kinds)
        self.passes: dict[tuple[int, frozenset[str]], Passes] = {}
        self.turns: dict[tuple[str, str, int], tuple[Fraction, Fraction, Fraction]] = {}

    def play(self) -> None:
        events = (
            *[self.arrive] * 4,
            *[self.release] * 3,
            self.leave,
            self.flap,
            self.wait,
            self.burst,
            self.rare,
        )
        try:
            while True:
                events[self.byte() % len(events)]()
                self.check()
        except StopIteration:
            return

    # --- what can happen ---------------------------------------------------------------------------

    def arrive(self) -> None:
        look = self.byte()
        model = tuple(self.models)[look % len(self.models)]
        tenant = TENANTS[(look >> 2) % len(TENANTS)]
        priority = (look >> 4) % self.classes
        backends = self.models[model]
        if self.partly:
            choice = self.byte()
            backends = tuple(one for at, one in enumerate(backends) if choice >> at & 1) or backends
        size = (look >> 6) * 10
        self.number += 1
        prefix = (tenant.encode(), bytes([look]))
        slot_request = SlotRequest(model, backends, tenant, WEIGHTS[tenant], priority, size, tenant, prefix)
        ticket = Ticket(self.number, slot_request, self.now + PATIENCE)
        if (backend := self.scheduler.seize(slot_request, self.now)) is not None:
            self.grant(ticket, backend)
            return
        usable = any(self.flaps[name].usable(self.now) for name in backends)
        before = dict(self.waiting)
        self.waiting[ticket.number] = ticket
        if self.fleet.kinds:
            self.of_a_kind.add(ticket.number)
        effects = self.scheduler.arrive(ticket, self.now)
        refusals = [effect for effect in effects if isinstance(effect, SlotRefused)]
        self.take(effects)
        for refusal in refusals:
            self.check_refusal(refusal, ticket, before, usable=usable)
        assert usable or ticket.number in self.ended, "parked behind backends that are all out"

    def check_refusal(
        self, refusal: SlotRefused, newcomer: Ticket, before: dict[int, Ticket], *, usable: bool
    ) -> None:
        error, slot_request = refusal.error, refusal.ticket.slot_request
        assert error.retry_after is not None
        assert error.retry_after >= 1
        if isinstance(error, NoBackend):
            assert not usable or refusal.ticket is not newcomer
        elif isinstance(error, QueueFull) and refusal.ticket is not newcomer:
            mine = (newcomer.slot_request.tenant, newcomer.slot_request.priority)
            assert slot_request.priority <= newcomer.slot_request.priority
            assert (slot_request.tenant, slot_request.priority) != mine, "a tenant gave way to itself"
            rivals = [
                one.slot_request
                for one in before.values()
                if "bytes" in str(error) or one.model == slot_request.model
            ]
            assert slot_request.priority == min(rival.priority for rival in rivals)
        else:
            assert isinstance(error, QueueFull | Draining)

    def burst(self) -> None:
        for _ in range(1 + self.byte() % 6):
            self.arrive()

    def release(self) -> None:
        if self.held:
            backend = self.held.pop(self.byte() % len(self.held))
            self.take(self.scheduler.release(backend, self.now))

    def leave(self) -> None:
        if self.waiting:
            numbers = sorted(self.waiting)
            ticket = self.waiting.pop(numbers[self.byte() % len(numbers)])
            self.ended.add(ticket.number)
            self.scheduler.leave(ticket)
            self.scheduler.leave(ticket)
            assert self.scheduler.place(ticket) is None

    def flap(self) -> None:
        look = self.byte()
        name = tuple(self.slots)[look % len(self.slots)]
        self.flaps[name] = flap = self.flaps[name]
        kind = look >> 2 & 3
        flap.up = kind > 1
        flap.slots = 1 if kind == 2 else 9
        flap.until = inf if kind in (0, 3) else self.now + (look >> 4) / 8
        self.take(self.scheduler.changed(name, self.now))

    def wait(self) -> None:
        until = self.now + (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)[self.byte() % 6]
        while (due := self.scheduler.next_tick()) is not None and due <= until:
            assert due > self.now, "a tick that is due already would be a busy loop"
            self.now = due
            self.take(self.scheduler.tick(self.now))
        self.now = until

    def rare(self) -> None:
        look = self.byte()
        if look < 20 and not self.draining:
            self.draining = True
            before = set(self.waiting)
            effects = self.scheduler.drain()
            self.take(effects)
            assert before <= self.ended
        elif look < 60:
            self.reload()
        else:
            assert self.scheduler.tick(self.now) == []

    def reload(self) -> None:
        before, old = dict(self.waiting), self.fleet
        self.shape()
        self.uniform = False
        effects = self.scheduler.reconfigure(self.fleet, self.now, length=self.length, size=self.size)
        for effect in effects:
            if isinstance(effect, SlotRefused) and not self.draining:
                slot_request = effect.ticket.slot_request
                gone = slot_request.model not in self.models or not set(slot_request.backends) & set(
                    self.slots
                )
                dead = not any(
                    self.flaps[name].usable(self.now) for name in slot_request.backends if name in self.slots
                )
                assert gone or dead, "lost its place in a reload"
        assert {effect.ticket.number for effect in effects} <= set(before)
        self.take(effects)
        if old.kinds and self.fleet.kinds:
            for ticket in self.waiting.values():
                if ticket.number not in self.of_a_kind:
                    continue
                new = {*self.models[ticket.model]} - {*old.models[ticket.model]}
                assert new <= {*ticket.slot_request.backends}, "newcomers are of no use to who waits"

    # --- the books ---------------------------------------------------------------------------------

    def take(self, effects: list[Effect]) -> None:
        """Book the effects: each ends the waiting of a ticket that waited, once."""
        for effect in effects:
            number = effect.ticket.number
            assert number not in self.ended, "a ticket ended twice"
            assert self.waiting[number] is effect.ticket
            assert self.scheduler.place(effect.ticket) is None
            if isinstance(effect, SlotGranted):
                self.check_order(effect)
                del self.waiting[number]
                self.grant(effect.ticket, effect.backend)
            else:
                if isinstance(effect.error, QueueTimeout):
                    assert self.now >= effect.ticket.deadline
                del self.waiting[number]
                self.ended.add(number)

    def grant(self, ticket: Ticket, backend: str) -> None:
        self.ended.add(ticket.number)
        assert backend in ticket.slot_request.backends
        assert self.flaps[backend].usable(self.now)
        self.held.append(backend)
        assert self.held.count(backend) <= min(self.slots[backend], self.flaps[backend].slots_now(self.now))

    def check_order(self, grant: SlotGranted) -> None:
        """First come first served inside a tenant, bounded passing between tenants and classes."""
        slot_request = grant.ticket.slot_request
        pool = self.pools[grant.backend]
        sides = {
            (one.slot_request.tenant, frozenset(one.slot_request.backends) & pool)
            for one in self.waiting.values()
        }
        passed = [one for one in self.waiting.values() if grant.backend in one.slot_request.backends]
        for one in passed:
            if one is grant.ticket:
                continue
            other = one.slot_request
            passes = self.passes.setdefault((one.number, pool), Passes())
            if other.priority != slot_request.priority:
                passes.classes += 1
                assert passes.classes <= PASSES + self.classes, "a class starves"
            elif other.tenant == slot_request.tenant:
                assert one.number > grant.ticket.number, "overtaken by its own tenant"
            else:
                passes.tenants[slot_request.tenant] += 1
                passes.sides |= sides
                limit = (slot_request.weight // other.weight + 1) * len(
                    [s for s in passes.sides if s[0] == slot_request.tenant]
                )
                assert passes.tenants[slot_request.tenant] <= limit, "passed too often"
        for (number, where), passes in self.passes.items():
            waiting = self.waiting.get(number)
            if (
                waiting is not None
                and where == pool
                and waiting.slot_request.priority == slot_request.priority
            ):
                passes.classes = 0
                if waiting.slot_request.tenant == slot_request.tenant:
                    passes.tenants.clear()
        if self.uniform:
            self.check_turns(slot_request)

    def check_turns(self, slot_request: SlotRequest) -> None:
        """Of two tenants who wait all the time, the turns by weight differ by little over any time."""
        self.note_who_waits()
        for pair, (difference, least, most) in self.turns.items():
            first, second, priority = pair
            if slot_request.priority == priority and slot_request.tenant in (first, second):
                sign = 1 if slot_request.tenant == first else -1
                difference += Fraction(sign, WEIGHTS[slot_request.tenant])
                least, most = min(least, difference), max(most, difference)
                self.turns[pair] = difference, least, most
                bound = Fraction(1, WEIGHTS[first]) + Fraction(1, WEIGHTS[second])
                assert most - least <= bound, "unfair between two who wait"

    def note_who_waits(self) -> None:
        zero = Fraction(0)
        tenants = {(one.slot_request.tenant, one.slot_request.priority) for one in self.waiting.values()}
        for first in TENANTS:
            for second in TENANTS:
                for priority in range(self.classes):
                    if first < second and {(first, priority), (second, priority)} <= tenants:
                        self.turns.setdefault((first, second, priority), (zero, zero, zero))
                    else:
                        self.turns.pop((first, second, priority), None)

    # --- what always holds -------------------------------------------------------------------------

    def check(self) -> None:
        self.check_slots()
        self.check_nobody_waits_in_vain()
        self.check_bounds()
        self.check_places()
        if self.uniform:
            self.note_who_waits()
        due = self.scheduler.next_tick()
        assert (due is None) == (not self.waiting)
        assert due is None or due <= min(one.deadline for one in self.waiting.values())

    def check_slots(self) -> None:
        counts = Counter(self.held)
        for backend in self.slots:
            assert self.scheduler.state(backend).busy == counts[backend]

    def check_nobody_waits_in_vain(self) -> None:
        if not self.waiting:
            return
        counts = Counter(self.held)
        self.take(self.scheduler.tick(self.now))  # the timer's part, where time has just brought a change
        rooms = {name: min(slots, self.flaps[name].slots_now(self.now)) for name, slots in self.slots.items()}
        counts = Counter(self.held)
        usable = {name for name in self.slots if self.flaps[name].usable(self.now)}
        free = {name for name in usable if counts[name] < rooms[name]}
        for ticket in self.waiting.values():
            backends = set(ticket.slot_request.backends)
            assert not backends & free, "a backend idles while somebody could use it"
            assert backends & usable, "waits for backends that are all out"

    def check_bounds(self) -> None:
        waiting = Counter(ticket.model for ticket in self.waiting.values())
        assert self.scheduler.waiting == len(self.waiting)
        for model in self.models:
            assert self.scheduler.depth(model) == waiting[model] <= self.length
        assert sum(ticket.slot_request.size for ticket in self.waiting.values()) <= self.size

    def check_places(self) -> None:
        places = {number: self.scheduler.place(ticket) for number, ticket in self.waiting.items()}
        for place in places.values():
            assert place is not None
            assert 1 <= place[0] <= len(self.waiting)
            assert place[1] > 0
        alone = (
            len({(one.slot_request.tenant, one.slot_request.priority) for one in self.waiting.values()}) == 1
        )
        if alone and self.uniform:
            positions = [places[number] for number in sorted(places)]
            assert [place and place[0] for place in positions] == list(range(1, len(places) + 1))


@pytest.mark.timeout(60 + SEQUENCES / 10)
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(st.binary(min_size=30, max_size=300))
def test_every_sequence_of_events_keeps_the_promises(row: bytes) -> None:
    World(row).play()
