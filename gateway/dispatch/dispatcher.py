"""Hands out Leases: the async shell around the scheduler's pure decisions; waits, wakes, times out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.scheduling.fair_queue import BackendState
from gateway.scheduling.health import State
from gateway.scheduling.scheduler import MOST_BYTES, BackendTable, Scheduler
from gateway.scheduling.slot_request import Effect, SlotGranted, SlotRequest, Ticket
from gateway.telemetry.receipt import Hook
from gateway.upstream.health_monitor import HealthMonitor


class Lease:
    """A held slot of one backend. Comes from `Dispatcher.lease`; whoever holds it ends it, whatever happens.

    A card that cannot be interrupted works on after its client left: `linger` keeps the slot taken
    until `task`, which knows when the card is free, has ended.
    """

    __slots__ = ("_dispatcher", "_task", "backend")

    def __init__(self, dispatcher: Dispatcher, backend: str) -> None:
        self.backend = backend
        self._dispatcher: Dispatcher | None = dispatcher
        self._task: asyncio.Task[Any] | None = None

    def linger(self, task: asyncio.Task[Any]) -> None:
        """Keep the slot until `task` is done, even past the end of the lease."""
        self._task = task

    def end(self) -> bool:
        """Give the slot back, now or when what lingers has ended. A second time does nothing.

        True if somebody who waited has got it.
        """
        dispatcher = self._dispatcher
        if dispatcher is None:
            return False
        self._dispatcher = None
        if self._task is None or self._task.done():
            return dispatcher.give_back(self.backend)
        dispatcher.keep_until(self.backend, self._task)
        return False

    def __repr__(self) -> str:
        lingers = self._task is not None and not self._task.done()
        ended = self._dispatcher is None
        return f"<Lease {self.backend}{' ended' if ended else ''}{' lingering' if lingers else ''}>"


class SlotSource(Protocol):
    """Where a relay gets its leases and tells how tries ended: a `Dispatcher`, or what stands for one."""

    async def lease(self, slot_request: SlotRequest, waiting: Callable[[Ticket], None]) -> Lease:
        """See `Dispatcher.lease`."""

    def seize(self, slot_request: SlotRequest) -> Lease | None:
        """See `Dispatcher.seize`."""

    def tried(
        self, backend: str, error: GatewayError | None, request: object | None = None, tenant: str = ""
    ) -> None:
        """See `Dispatcher.tried`."""

    def repeated(self, backend: str) -> None:
        """See `Dispatcher.repeated`."""

    def served(self, model: str, seconds: float, backend: str = "") -> None:
        """See `Dispatcher.served`."""

    def queue_depth(self, model: str) -> int:
        """See `Dispatcher.queue_depth`."""


class Dispatcher:
    """The one place where requests wait. Safe against leaving at any moment: a slot is never lost.

    `length` bounds the queue of each model, `size` the bytes of all who wait, `timeout` (seconds) how long.
    """

    def __init__(
        self,
        fleet: BackendTable,
        *,
        length: int,
        timeout: float,
        clock: Callable[[], float],
        hook: Hook,
        health_monitor: HealthMonitor,
        size: int = MOST_BYTES,
    ) -> None:
        self._health_monitor = health_monitor
        health_monitor.listen(self.changed)
        self._scheduler = Scheduler(self._watched(fleet), length=length, size=size)
        self._timeout = timeout
        self._clock = clock
        self._hook = hook
        self.at_once: defaultdict[str, int] = defaultdict(int)
        """How many requests of each model have not waited; only these the hook is not told of."""
        self._on_wait: list[Callable[[SlotRequest], None]] = []
        self._waits: dict[int, asyncio.Future[str]] = {}
        self._zombies: dict[str, int] = {}
        self._tickets = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def _watched(self, fleet: BackendTable) -> BackendTable:
        return replace(fleet, availability={**self._health_monitor.healths, **fleet.availability})

    # --- leases ------------------------------------------------------------------------------------

    async def lease(self, slot_request: SlotRequest, waiting: Callable[[Ticket], None]) -> Lease:
        """Get a slot, at once or after a wait, of which `waiting` is told with its ticket.

        Cancelled, it leaves the queue and takes nothing with it. Raises `QueueFull`, `QueueTimeout`,
        `NoBackend` and `Draining`, each with `retry_after`.
        """
        return self.seize(slot_request) or await self._wait_for_slot(slot_request, waiting)

    def seize(self, slot_request: SlotRequest, *, counted: bool = True) -> Lease | None:
        """Get a slot if that needs no waiting; `counted` among the requests that did not wait."""
        backend = self._scheduler.seize(slot_request, self._clock())
        if backend is None:
            return None
        if counted:
            self.at_once[slot_request.model] += 1
        return Lease(self, backend)

    async def _wait_for_slot(self, slot_request: SlotRequest, waiting: Callable[[Ticket], None]) -> Lease:
        began = self._clock()
        self._tickets += 1
        ticket = Ticket(self._tickets, slot_request, began + self._timeout - slot_request.waited)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waits[ticket.number] = future
        outcome = "left"
        try:
            try:
                self._deliver(self._scheduler.arrive(ticket, began))
                if not future.done():
                    waiting(ticket)
                    for listener in self._on_wait:
                        listener(slot_request)
                backend = await future
                outcome = "granted"
            except GatewayError as error:
                outcome = error.row.outcome
                raise
            finally:
                del self._waits[ticket.number]
                self._hook.queue_wait(slot_request.model, outcome, self._clock() - began)
        except BaseException:  # whatever it is: no place in the queue is left, and no slot
            self._abandon(ticket, future)
            raise
        finally:
            del future  # it may hold an error whose traceback refers to this frame
        return Lease(self, backend)

    def _abandon(self, ticket: Ticket, future: asyncio.Future[str]) -> None:
        # The grant may have come in the same moment in which the client left: then it goes back.
        if future.done() and not future.cancelled() and future.exception() is None:
            self.give_back(future.result())
        else:
            self._scheduler.leave(ticket)

    def give_back(self, backend: str) -> bool:
        """Take a slot back and hand it on: what `Lease.end` does. True if somebody has got it."""
        effects = self._scheduler.release(backend, self._clock())
        if effects:
            self._deliver(effects)
        return bool(effects)

    def keep_until(self, backend: str, task: asyncio.Task[Any]) -> None:
        """Keep a slot whose lease has ended until `task` has: a zombie."""
        self._zombies[backend] = self._zombies.get(backend, 0) + 1
        task.add_done_callback(lambda _: self._bury(backend))

    def _bury(self, backend: str) -> None:
        self._zombies[backend] -= 1
        self.give_back(backend)

    def _deliver(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            future = self._waits.get(effect.ticket.number)
            if future is None or future.done():
                if isinstance(effect, SlotGranted):
                    self.give_back(effect.backend)
            elif isinstance(effect, SlotGranted):
                future.set_result(effect.backend)
            else:
                future.set_exception(effect.error)
        self._set_timer()

    # --- time --------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """See that a tick comes in time. A timer that is due before is left: it will set the next."""
        due = self._scheduler.next_tick()
        if due is None or (self._timer is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        delay = max(0.0, due - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._deliver(self._scheduler.tick(self._clock()))

    def on_wait(self, listener: Callable[[SlotRequest], None]) -> None:
        """Call `listener` with each request that has to wait, so that it can end work that matters less."""
        self._on_wait.append(listener)

    # --- slots without a request -------------------------------------------------------------------

    def hold(self, backend: str) -> bool:
        """Take a slot of a backend whatever its health, for a trial; False if none is free."""
        return self._scheduler.hold(backend)

    def let_go(self, backend: str) -> None:
        """Give that slot back."""
        self.give_back(backend)

    # --- what attempts report ----------------------------------------------------------------------

    def tried(
        self, backend: str, error: GatewayError | None, request: object | None = None, tenant: str = ""
    ) -> None:
        """Note how an attempt ended: its error, None for a whole answer. See `BackendHealth.tried`."""
        self._health_monitor.tried(backend, error, request, tenant)

    def repeated(self, backend: str) -> None:
        """Take note that a used connection was closed as a request went out, which is sent once more."""
        self._health_monitor.repeated(backend)

    def changed(self, backend: str) -> None:
        """Take note that a backend's fitness was told something and may be different now."""
        self._deliver(self._scheduler.changed(backend, self._clock()))

    def served(self, model: str, seconds: float, backend: str = "") -> None:
        """Take note of how long a whole answer took, and on which backend."""
        self._scheduler.learn(model, seconds, backend)

    # --- changes of the whole ----------------------------------------------------------------------

    def drain(self) -> None:
        """Answer all who wait with `Draining`, and from now on all who would have to wait."""
        self._deliver(self._scheduler.drain())

    def reconfigure(
        self, fleet: BackendTable, *, length: int, timeout: float, size: int = MOST_BYTES
    ) -> None:
        """Go on with another fleet, which the ward knows already; see `Scheduler.reconfigure`.

        Who waits already keeps the old time-out.
        """
        self._timeout = timeout
        now = self._clock()
        self._deliver(self._scheduler.reconfigure(self._watched(fleet), now, length=length, size=size))

    # --- views -------------------------------------------------------------------------------------

    def queue_depth(self, model: str) -> int:
        """Tickets waiting for this model."""
        return self._scheduler.depth(model)

    def in_flight(self, backend: str) -> int:
        """Slots taken on this backend, zombies included."""
        return self._scheduler.state(backend).busy

    def at_work(self, backend: str) -> bool:
        """Whether a backend has a slot taken, also one that is gone."""
        return self._scheduler.at_work(backend)

    def zombies(self, backend: str) -> int:
        """Slots held for answers that nobody waits for."""
        return self._zombies.get(backend, 0)

    def up(self, backend: str) -> bool:
        """Whether this backend may be asked."""
        return self._health_monitor.up(backend)

    def health(self, backend: str) -> State:
        """How this backend is, in one word."""
        return self._health_monitor.state(backend)

    def usable(self) -> dict[str, bool]:
        """Every backend, and whether it may be asked."""
        return self._scheduler.usable(self._clock())

    def state(self, backend: str) -> BackendState:
        """What the scheduler knows of a backend; not to be changed."""
        return self._scheduler.state(backend)

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """Position in the queue (from 1) and expected wait in seconds, while the ticket waits."""
        return self._scheduler.place(ticket)

    def aclose(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return f"<Dispatcher {self._scheduler!r}>"
