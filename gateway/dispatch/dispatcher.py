"""Hands out leases: the asynchronous shell that waits, wakes and times out around the pure scheduler."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.scheduling.fair_queue import BackendState
from gateway.scheduling.health_states import State
from gateway.scheduling.scheduler import MOST_BYTES, BackendTable, Scheduler
from gateway.scheduling.slot_request import Effect, SlotGranted, SlotRequest, Ticket
from gateway.telemetry.receipt import Hook
from gateway.upstream.health_monitor import HealthMonitor


class Lease:
    """The right to one slot of a backend, from `Dispatcher.lease`. Its holder must always call `end`.

    Some backends cannot be interrupted and continue to generate after the client has disconnected. In this
    case `linger` keeps the slot taken until `task` has ended, which watches for the end of the generation.
    """

    __slots__ = ("_dispatcher", "_task", "backend")

    def __init__(self, dispatcher: Dispatcher, backend: str) -> None:
        self.backend = backend
        self._dispatcher: Dispatcher | None = dispatcher
        self._task: asyncio.Task[Any] | None = None

    def linger(self, task: asyncio.Task[Any]) -> None:
        """Keep the slot until `task` is done, even after `end` was called."""
        self._task = task

    def end(self) -> bool:
        """Return the slot now, or when the lingering task is done. A second call does nothing.

        Returns True if the slot was granted to a waiting request.
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
    """What the path of a request uses to get leases and to report results: a `Dispatcher` or a substitute."""

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
    """The only place where requests wait. A task may be cancelled at any moment without losing a slot.

    `length` limits the queue of each model, `size` limits the bytes of all waiting requests, and `timeout`
    limits the waiting time in seconds.
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
        """How many requests of each model got a slot without waiting. The hook is not called for these
        requests."""
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
        """Return a lease, at once or after waiting.

        If the request must wait, `waiting` is called with its ticket. If the task is cancelled, the request
        leaves the queue and no slot is lost. Raises `QueueFull`, `QueueTimeout`, `NoBackend` or `Draining`,
        each with `retry_after`.
        """
        return self.seize(slot_request) or await self._wait_for_slot(slot_request, waiting)

    def seize(self, slot_request: SlotRequest, *, counted: bool = True) -> Lease | None:
        """Return a lease if no waiting is necessary, else None.

        If `counted` is true, the request is counted in `at_once`.
        """
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
        except BaseException:  # any exception: neither a ticket nor a slot is lost
            self._abandon(ticket, future)
            raise
        finally:
            del future  # breaks a cycle: its error's traceback refers to this frame
        return Lease(self, backend)

    def _abandon(self, ticket: Ticket, future: asyncio.Future[str]) -> None:
        # The slot may have been granted in the moment in which the client disconnected. Then it is
        # returned.
        if future.done() and not future.cancelled() and future.exception() is None:
            self.give_back(future.result())
        else:
            self._scheduler.leave(ticket)

    def give_back(self, backend: str) -> bool:
        """Return a slot to the scheduler. Return True if it was granted to a waiting request."""
        effects = self._scheduler.release(backend, self._clock())
        if effects:
            self._deliver(effects)
        return bool(effects)

    def keep_until(self, backend: str, task: asyncio.Task[Any]) -> None:
        """Keep a slot whose lease has ended until `task` is done. Such a slot is counted as a zombie."""
        self._zombies[backend] = self._zombies.get(backend, 0) + 1
        task.add_done_callback(lambda _: self._release_zombie(backend))

    def _release_zombie(self, backend: str) -> None:
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
        """Schedule the next tick. A timer that is due earlier is kept; its tick schedules the next one."""
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
        """Take a slot of a backend for a trial, regardless of its health. Return False if none is free."""
        return self._scheduler.hold(backend)

    def let_go(self, backend: str) -> None:
        """Return a slot that was taken with `hold`."""
        self.give_back(backend)

    # --- what attempts report ----------------------------------------------------------------------

    def tried(
        self, backend: str, error: GatewayError | None, request: object | None = None, tenant: str = ""
    ) -> None:
        """Record the end of an attempt: its error, or None if complete. See `BackendHealth.tried`."""
        self._health_monitor.tried(backend, error, request, tenant)

    def repeated(self, backend: str) -> None:
        """Record that a reused connection was closed while a request was sent; it is sent again."""
        self._health_monitor.repeated(backend)

    def changed(self, backend: str) -> None:
        """Apply a change of a backend's availability to the queues."""
        self._deliver(self._scheduler.changed(backend, self._clock()))

    def served(self, model: str, seconds: float, backend: str = "") -> None:
        """Record how many seconds a complete answer took, and on which backend."""
        self._scheduler.learn(model, seconds, backend)

    # --- changes of the whole ----------------------------------------------------------------------

    def drain(self) -> None:
        """Refuse all waiting requests with `Draining`, and from now on all that would have to wait."""
        self._deliver(self._scheduler.drain())

    def reconfigure(
        self, fleet: BackendTable, *, length: int, timeout: float, size: int = MOST_BYTES
    ) -> None:
        """Replace the backends and models; see `Scheduler.reconfigure`.

        The health monitor must already know the new backends. Requests that already wait keep the old
        time-out.
        """
        self._timeout = timeout
        now = self._clock()
        self._deliver(self._scheduler.reconfigure(self._watched(fleet), now, length=length, size=size))

    # --- views -------------------------------------------------------------------------------------

    def queue_depth(self, model: str) -> int:
        """Return how many requests wait for this model."""
        return self._scheduler.depth(model)

    def in_flight(self, backend: str) -> int:
        """Return how many slots of this backend are taken, including zombies."""
        return self._scheduler.state(backend).busy

    def at_work(self, backend: str) -> bool:
        """Return True if a slot of this backend is taken, even if the backend was removed."""
        return self._scheduler.at_work(backend)

    def zombies(self, backend: str) -> int:
        """Return how many slots are held for answers that no client waits for."""
        return self._zombies.get(backend, 0)

    def up(self, backend: str) -> bool:
        """Return True if requests may be sent to this backend."""
        return self._health_monitor.up(backend)

    def health(self, backend: str) -> State:
        """Return the health state of this backend."""
        return self._health_monitor.state(backend)

    def usable(self) -> dict[str, bool]:
        """Return for every configured backend if requests may be sent to it."""
        return self._scheduler.usable(self._clock())

    def state(self, backend: str) -> BackendState:
        """Return the scheduler's state of a backend. The caller must not change it."""
        return self._scheduler.state(backend)

    def place(self, ticket: Ticket) -> tuple[int, float] | None:
        """Return the ticket's position (from 1) and expected wait in seconds; None if it does not wait."""
        return self._scheduler.place(ticket)

    def aclose(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return f"<Dispatcher {self._scheduler!r}>"
