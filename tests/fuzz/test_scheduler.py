"""Any sequence of arrivals, leavings, failures and waits leaves the scheduler's promises standing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import NoBackend, QueueFull, QueueTimeout
from gateway.scheduling.scheduler import Effect, Granted, Refused, Scheduler, Ticket

BACKENDS = ("a", "b", "c")
MODELS = {"all": BACKENDS, "some": ("a", "b"), "one": ("c",)}
PATIENCE = 6.0


class SchedulerMachine(RuleBasedStateMachine):
    """Drives a scheduler as the dispatcher does, and keeps books of its own beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.number = 0
        self.waiting: dict[int, Ticket] = {}
        self.held: list[str] = []
        self.ended: set[int] = set()

    @initialize(slots=st.tuples(*[st.integers(1, 2)] * len(BACKENDS)), length=st.integers(0, 6))
    def build(self, slots: tuple[int, ...], length: int) -> None:
        self.slots = dict(zip(BACKENDS, slots, strict=True))
        self.length = length
        self.scheduler = Scheduler(self.slots, MODELS, length=length)

    # --- what can happen ---------------------------------------------------------------------------

    @rule(arrivals=st.lists(st.tuples(st.sampled_from(sorted(MODELS)), st.integers(1, 7)), max_size=6))
    def arrive(self, arrivals: list[tuple[str, int]]) -> None:
        for model, choice in arrivals:
            self.arrive_one(model, choice)

    def arrive_one(self, model: str, choice: int) -> None:
        backends = tuple(name for place, name in enumerate(MODELS[model]) if choice >> place & 1)
        self.number += 1
        ticket = Ticket(self.number, model, backends or MODELS[model], self.now + PATIENCE)
        usable = any(self.scheduler.state(name).rested(self.now) for name in ticket.backends)
        self.waiting[ticket.number] = ticket
        effects = self.scheduler.arrive(ticket, self.now)
        self.take(effects)
        refusals = {type(effect.error) for effect in effects if isinstance(effect, Refused)}
        assert refusals <= ({QueueFull} if usable else {NoBackend})
        assert usable or refusals, "parked behind backends that all rest"
        if QueueFull in refusals:
            assert self.scheduler.depth(model) == self.length

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        ticket = self.waiting.pop(number)
        self.ended.add(number)
        self.scheduler.leave(ticket)
        assert self.scheduler.place(ticket) is None

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        backend = data.draw(st.sampled_from(sorted(self.held)))
        self.held.remove(backend)
        self.take(self.scheduler.release(backend, self.now))

    @rule(backend=st.sampled_from(BACKENDS))
    def fail(self, backend: str) -> None:
        effects = self.scheduler.fail(backend, self.now)
        assert all(isinstance(effect, Refused) for effect in effects)
        self.take(effects)
        assert not self.scheduler.state(backend).rested(self.now)

    @rule(backend=st.sampled_from(BACKENDS))
    def recover(self, backend: str) -> None:
        self.take(self.scheduler.recover(backend, self.now))
        assert self.scheduler.state(backend).rested(self.now)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 2.0, 5.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.scheduler.next_tick(self.now)) is not None and due <= until:
            assert due > self.now, "a tick that is due already would be a busy loop"
            self.now = due
            self.take(self.scheduler.tick(self.now))
        self.now = until

    @rule()
    def tick_without_need(self) -> None:
        assert self.scheduler.tick(self.now) == []

    def take(self, effects: list[Effect]) -> None:
        """Book the effects: each ends the waiting of a ticket that waited, once."""
        for effect in effects:
            number = effect.ticket.number
            assert number not in self.ended, "a ticket ended twice"
            assert self.waiting.pop(number) == effect.ticket
            self.ended.add(number)
            if isinstance(effect, Granted):
                assert effect.backend in effect.ticket.backends
                assert self.scheduler.state(effect.backend).rested(self.now)
                self.held.append(effect.backend)
            elif isinstance(effect.error, QueueTimeout):
                assert self.now >= effect.ticket.deadline
            assert self.scheduler.place(effect.ticket) is None
        self.nobody_was_overtaken(effects)

    def nobody_was_overtaken(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Granted):
                older = [ticket for ticket in self.waiting.values() if ticket.number < effect.ticket.number]
                assert not [ticket for ticket in older if effect.backend in ticket.backends]

    # --- what always holds -------------------------------------------------------------------------

    @invariant()
    def slots_are_counted_and_never_exceeded(self) -> None:
        for backend, slots in self.slots.items():
            busy = self.scheduler.state(backend).busy
            assert busy == self.held.count(backend)
            assert 0 <= busy <= slots

    @invariant()
    def no_backend_idles_while_somebody_could_use_it(self) -> None:
        for ticket in self.waiting.values():
            assert not [name for name in ticket.backends if self.scheduler.state(name).available(self.now)]

    @invariant()
    def nobody_waits_for_backends_that_all_rest(self) -> None:
        for ticket in self.waiting.values():
            assert [name for name in ticket.backends if self.scheduler.state(name).rested(self.now)]

    @invariant()
    def nobody_is_lost_and_queues_keep_their_length_and_order(self) -> None:
        for model in MODELS:
            mine = [ticket for ticket in self.waiting.values() if ticket.model == model]
            assert self.scheduler.depth(model) == len(mine) <= self.length
            places = [self.scheduler.place(ticket) for ticket in sorted(mine, key=lambda one: one.number)]
            assert [place and place[0] for place in places] == list(range(1, len(mine) + 1))
            assert all(place is not None and place[1] > 0 for place in places)

    @invariant()
    def the_next_tick_lies_ahead_while_somebody_waits(self) -> None:
        due = self.scheduler.next_tick(self.now)
        assert (due is None) == (not self.waiting)
        assert due is None or self.now < due <= min(one.deadline for one in self.waiting.values())


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
