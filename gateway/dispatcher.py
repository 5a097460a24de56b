"""Hands out Leases: the async shell around the scheduler's pure decisions; waits, wakes, times out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import ConnectFailed, GatewayError, UpstreamReset, UpstreamTimeout, UpstreamTLS
from gateway.scheduling.claim import Claim
from gateway.scheduling.scheduler import Effect, Granted, Scheduler, Ticket
from gateway.telemetry.receipt import Hook


class Lease:
    """A held slot of one backend. Comes from `Dispatcher.lease`; whoever has it must `end` it.

    A card that cannot be interrupted works on after its client left: `linger` keeps the slot taken
    until `task`, which knows when the card is free, has ended.
    """

    __slots__ = ("_dispatcher", "_ended", "_task", "backend")

    def __init__(self, dispatcher: Dispatcher, backend: str) -> None:
        self.backend = backend
        self._dispatcher = dispatcher
        self._ended = False
        self._task: asyncio.Task[Any] | None = None

    def linger(self, task: asyncio.Task[Any]) -> None:
        """Keep the slot until `task` is done, even past the end of the lease."""
        self._task = task

    @property
    def lingers_for(self) -> asyncio.Task[Any] | None:
        """The task whose end frees the slot, if it still runs."""
        return self._task if self._task is not None and not self._task.done() else None

    def end(self) -> None:
        """Give the slot back, now or when what lingers has ended. Harmless when repeated."""
        if not self._ended:
            self._ended = True
            self._dispatcher.take_back(self)

    def __repr__(self) -> str:
        return f"<Lease {self.backend}{' lingering' if self.lingers_for else ''}>"


@dataclass(eq=False, slots=True)
class Wait:
    """A ticket and the future that its grant will fill."""

    ticket: Ticket
    future: asyncio.Future[str]


class Dispatcher:
    """The one place where requests wait. Safe against leaving at any moment: a slot is never lost."""

    def __init__(
        self,
        slots: Mapping[str, int],
        models: Mapping[str, tuple[str, ...]],
        *,
        length: int,
        timeout: float,
        clock: Callable[[], float],
        hook: Hook,
    ) -> None:
        self._scheduler = Scheduler(slots, models, length=length)
        self._timeout = timeout
        self._clock = clock
        self._hook = hook
        self._waits: dict[int, Wait] = {}
        self._zombies = dict.fromkeys(slots, 0)
        self._tickets = 0
        self._timer: asyncio.TimerHandle | None = None

    async def lease(self, claim: Claim, waiting: Callable[[Ticket], None]) -> Lease:
        """Wait for a slot on one of the claim's backends; `waiting` is told the ticket.

        Raises `QueueFull`, `QueueTimeout` and `NoBackend`, each with `retry_after`.
        """
        began = self._clock()
        wait = self._enqueue(claim.model, claim.backends, began)
        waiting(wait.ticket)
        return Lease(self, await self._wait_for_slot(wait, began))

    def take_back(self, lease: Lease) -> None:
        """Take the slot of a lease that has ended. For `Lease.end` alone."""
        if task := lease.lingers_for:
            self._zombies[lease.backend] += 1
            task.add_done_callback(lambda _: self._bury(lease.backend))
        else:
            self._give_back(lease.backend)

    async def _wait_for_slot(self, wait: Wait, began: float) -> str:
        outcome = "left"
        try:
            backend = await wait.future
        except GatewayError as error:
            outcome = error.row.outcome
            raise
        except asyncio.CancelledError:
            self._abandon(wait)
            raise
        else:
            outcome = "granted"
            return backend
        finally:
            self._waits.pop(wait.ticket.number, None)
            self._hook.queue_wait(wait.ticket.model, outcome, self._clock() - began)

    def _enqueue(self, model: str, backends: tuple[str, ...], now: float) -> Wait:
        self._tickets += 1
        ticket = Ticket(self._tickets, model, backends, now + self._timeout)
        wait = Wait(ticket, asyncio.get_running_loop().create_future())
        self._waits[ticket.number] = wait
        self._deliver(self._scheduler.arrive(ticket, now))
        return wait

    def _abandon(self, wait: Wait) -> None:
        # The grant may have come in the same moment in which the client left: then it goes back.
        if wait.future.done() and not wait.future.cancelled() and wait.future.exception() is None:
            self._give_back(wait.future.result())
        else:
            self._scheduler.leave(wait.ticket)

    def _give_back(self, backend: str) -> None:
        self._deliver(self._scheduler.release(backend, self._clock()))

    def _bury(self, backend: str) -> None:
        self._zombies[backend] -= 1
        self._give_back(backend)

    def _deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            wait = self._waits.get(effect.ticket.number)
            if wait is None or wait.future.done():
                if isinstance(effect, Granted):
                    self._give_back(effect.backend)
            elif isinstance(effect, Granted):
                wait.future.set_result(effect.backend)
            else:
                wait.future.set_exception(effect.error)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        due = self._scheduler.next_tick(now)
        if due is not None:
            delay = max(0.0, due - now)
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._deliver(self._scheduler.tick(self._clock()))

    # --- what the relay reports --------------------------------------------------------------------

    def tried(self, backend: str, error: GatewayError | None) -> None:
        """Take note of how a try on a backend ended; None for a good end."""
        if isinstance(error, ConnectFailed | UpstreamReset | UpstreamTLS):
            self._failed(backend, error.row.outcome)
        elif not isinstance(error, UpstreamTimeout):
            self._answered(backend)

    def _failed(self, backend: str, reason: str) -> None:
        if self.up(backend):
            self._hook.backend_changed(backend, False, reason)
        self._deliver(self._scheduler.fail(backend, self._clock()))

    def _answered(self, backend: str) -> None:
        if not self.up(backend):
            self._hook.backend_changed(backend, True, "answered")
            self._deliver(self._scheduler.recover(backend, self._clock()))

    def served(self, model: str, seconds: float) -> None:
        """Take note of how long a whole answer took."""
        self._scheduler.learn(model, seconds)

    # --- views -------------------------------------------------------------------------------------

    def queue_depth(self, model: str) -> int:
        """Tickets waiting for this model."""
        return self._scheduler.depth(model)

    def in_flight(self, backend: str) -> int:
        """Slots taken on this backend, zombies included."""
        return self._scheduler.state(backend).busy

    def zombies(self, backend: str) -> int:
        """Slots held for answers that nobody waits for."""
        return self._zombies[backend]

    def up(self, backend: str) -> bool:
        """Whether the last attempt to reach this backend succeeded (or none was made yet)."""
        return self._scheduler.state(backend).failures == 0

    def usable(self) -> dict[str, bool]:
        """Every backend, and whether it may be asked."""
        now = self._clock()
        return {name: self._scheduler.state(name).rested(now) for name in self._zombies}

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """Position in the queue (from 1) and expected wait in seconds, while the ticket waits."""
        return self._scheduler.place(ticket)

    def aclose(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return f"<Dispatcher {self._scheduler!r}>"
