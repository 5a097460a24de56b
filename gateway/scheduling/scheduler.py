"""The queues and the slots: who waits, and who gets which backend. Pure: events in, effects out.

Rules. A model has one queue, first come first served. A ticket gets a backend only when one of those
it may use has a free slot and is not resting after a failure; nobody is tied to a busy card. No slot is
free while a ticket waits that could use it. A ticket that can never be served as things stand (all its
backends rest) is refused at once, never parked behind the dead.

Theory of operation. `arrive`, `leave`, `release`, `fail`, `recover` and `tick` change the state and
return the effects in order: `Granted` (the ticket holds a slot of that backend until `release`) and
`Refused`. The caller delivers them; it owns clocks and futures, this module neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.errors import NoBackend, QueueFull, QueueTimeout, Unavailable
from gateway.scheduling.balance import least_busy
from gateway.scheduling.service import ServiceTime

REST = 1.0
"""Seconds a backend rests after its first failure to connect; doubles with each further one."""
LONGEST_REST = 10.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request's place in the queue of its model; `backends` are those it may use."""

    number: int
    model: str
    backends: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The ticket holds a slot of this backend."""

    ticket: Ticket
    backend: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The ticket is out, for this reason."""

    ticket: Ticket
    error: Unavailable


Effect: TypeAlias = Granted | Refused


@dataclass(slots=True)
class BackendState:
    """What is known of one backend. Available = rested and not full."""

    name: str
    slots: int
    busy: int = 0
    granted: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def rested(self, now: float) -> bool:
        """Whether it may be asked at all."""
        return now >= self.rests_until

    def available(self, now: float) -> bool:
        """Whether it may be asked now."""
        return self.busy < self.slots and self.rested(now)


@dataclass(slots=True)
class _Queue:
    tickets: OrderedDict[int, Ticket] = field(default_factory=OrderedDict)
    service: ServiceTime = field(default_factory=ServiceTime)


def rest_after(failures: int) -> float:
    """Seconds of rest after so many failures in a row, from 1."""
    doublings = min(failures - 1, 16)  # far beyond the longest rest, far below what a float can hold
    return min(LONGEST_REST, REST * 2.0**doublings)


class Scheduler:
    """The state of all queues and slots."""

    def __init__(
        self, slots: Mapping[str, int], models: Mapping[str, tuple[str, ...]], *, length: int
    ) -> None:
        self._backends = {name: BackendState(name, count) for name, count in slots.items()}
        self._models = dict(models)
        self._queues = {model: _Queue() for model in models}
        self._length = length
        self._grants = 0

    # --- events ------------------------------------------------------------------------------------

    def arrive(self, ticket: Ticket, now: float) -> list[Effect]:
        """Take a new ticket: grant it, queue it (no effect), or refuse it."""
        if not self._usable(ticket, now):
            return [Refused(ticket, self._no_backend(ticket, now))]
        queue = self._queues[ticket.model]
        if not queue.tickets and (backend := self._choose(ticket, now)):
            return [self._grant(ticket, backend)]
        queue.tickets[ticket.number] = ticket
        effects = self._serve([ticket.model], now)
        if ticket.number in queue.tickets and len(queue.tickets) > self._length:
            del queue.tickets[ticket.number]
            effects.append(Refused(ticket, self._queue_full(ticket)))
        return effects

    def leave(self, ticket: Ticket) -> None:
        """Forget a ticket whose client left while it waited."""
        self._queues[ticket.model].tickets.pop(ticket.number, None)

    def release(self, backend: str, now: float) -> list[Effect]:
        """Take a slot back and hand it on."""
        self._backends[backend].busy -= 1
        return self._serve(self._served_by(backend), now)

    def learn(self, model: str, seconds: float) -> None:
        """Take note of how long a whole answer of this model took."""
        self._queues[model].service.learn(seconds)

    def fail(self, backend: str, now: float) -> list[Effect]:
        """Let a backend rest that did not take a connection; refuse whom only it could have served."""
        state = self._backends[backend]
        if not state.rested(now):
            return []  # what was under way when it went down is part of the same failure
        state.failures += 1
        state.rests_until = now + rest_after(state.failures)
        effects: list[Effect] = []
        for model in self._served_by(backend):
            for ticket in list(self._queues[model].tickets.values()):
                if not self._usable(ticket, now):
                    self.leave(ticket)
                    effects.append(Refused(ticket, self._no_backend(ticket, now)))
        return effects

    def recover(self, backend: str, now: float) -> list[Effect]:
        """Take note that a backend has answered."""
        state = self._backends[backend]
        state.failures, state.rests_until = 0, 0.0
        return self._serve(self._served_by(backend), now)

    def tick(self, now: float) -> list[Effect]:
        """Refuse tickets past their deadline, and serve backends that have rested."""
        effects: list[Effect] = []
        for queue in self._queues.values():
            for ticket in [ticket for ticket in queue.tickets.values() if now >= ticket.deadline]:
                effects.append(Refused(ticket, self._queue_timeout(ticket)))
                del queue.tickets[ticket.number]
        return effects + self._serve(self._models, now)

    # --- views -------------------------------------------------------------------------------------

    def next_tick(self, now: float) -> float | None:
        """When `tick` is next of use: the first deadline, or the end of a rest somebody waits for."""
        waiting = [ticket for queue in self._queues.values() for ticket in queue.tickets.values()]
        if not waiting:
            return None
        rests = [state.rests_until for state in self._backends.values() if not state.rested(now)]
        return min([*(ticket.deadline for ticket in waiting), *rests])

    def depth(self, model: str) -> int:
        """Tickets waiting."""
        return len(self._queues[model].tickets)

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """A waiting ticket's position (from 1) and expected wait in seconds; None when it waits no more."""
        queue = self._queues[ticket.model]
        for position, number in enumerate(queue.tickets, start=1):
            if number == ticket.number:
                return position, queue.service.wait(position, self._slots(ticket.model))
        return None

    def state(self, backend: str) -> BackendState:
        """A backend's state; not to be changed."""
        return self._backends[backend]

    def __repr__(self) -> str:
        backends = ", ".join(f"{s.name} {s.busy}/{s.slots}" for s in self._backends.values())
        waiting = ", ".join(f"{model} {len(queue.tickets)}" for model, queue in self._queues.items())
        return f"<Scheduler busy: {backends}; waiting: {waiting}>"

    # --- decisions ---------------------------------------------------------------------------------

    def _serve(self, models: Iterable[str], now: float) -> list[Effect]:
        # One backend may serve several models: the oldest ticket of all of them goes first.
        effects: list[Effect] = []
        waiting = sorted(
            (ticket for model in models for ticket in self._queues[model].tickets.values()),
            key=lambda ticket: ticket.number,
        )
        for ticket in waiting:
            if not self._any_available(now):
                break
            if backend := self._choose(ticket, now):
                self.leave(ticket)
                effects.append(self._grant(ticket, backend))
        return effects

    def _choose(self, ticket: Ticket, now: float) -> str | None:
        free = [self._backends[name] for name in ticket.backends if self._backends[name].available(now)]
        return free[least_busy(free)].name if free else None

    def _grant(self, ticket: Ticket, backend: str) -> Granted:
        self._grants += 1
        state = self._backends[backend]
        state.busy += 1
        state.granted = self._grants
        return Granted(ticket, backend)

    def _any_available(self, now: float) -> bool:
        return any(state.available(now) for state in self._backends.values())

    def _usable(self, ticket: Ticket, now: float) -> bool:
        return any(self._backends[name].rested(now) for name in ticket.backends)

    def _served_by(self, backend: str) -> list[str]:
        return [model for model, backends in self._models.items() if backend in backends]

    def _slots(self, model: str) -> int:
        return sum(self._backends[name].slots for name in self._models[model])

    # --- refusals ----------------------------------------------------------------------------------

    def _no_backend(self, ticket: Ticket, now: float) -> NoBackend:
        rests = [self._backends[name].rests_until - now for name in ticket.backends]
        return NoBackend(
            "No backend of this model can be reached.", retry_after=max(1.0, min(rests, default=1.0))
        )

    def _queue_full(self, ticket: Ticket) -> QueueFull:
        return QueueFull(
            f"The queue of this model is full ({self._length} requests).",
            retry_after=self._retry_after(ticket),
        )

    def _queue_timeout(self, ticket: Ticket) -> QueueTimeout:
        return QueueTimeout(
            "No backend became free within the queue's time limit.", retry_after=self._retry_after(ticket)
        )

    def _retry_after(self, ticket: Ticket) -> int:
        queue = self._queues[ticket.model]
        return queue.service.retry_after(len(queue.tickets) + 1, self._slots(ticket.model))
