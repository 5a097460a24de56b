"""Copies of a share of the requests to another model; its answers are compared with the callers' and dropped.

Rules. No caller waits for a copy: it is made when the caller's answer has ended, and its failure changes
nothing, neither the health of its backend nor what is learned of it. It takes a slot only if one is free at
that moment, and gives it up for whoever has to wait, where its server can be stopped. Copies are bounded in
number and time; what is not made is counted. Of both answers no text is kept.

Theory of operation. `ShadowTraffic.watch` wraps the answers of a share of the requests; the wrapper takes
an `AnswerFingerprint` of what has been read. The end of the answer starts the copy as a task of its own, on
a relay that never waits for slots, tries once, and reports nothing (`_Spare`). The body of a request is
held by the request itself until its answer has ended, then by its copy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway import config
from gateway.background import Background
from gateway.dispatch.dispatcher import Dispatcher, Lease
from gateway.errors import BadRequest, GatewayError, ModelNotFound, NoBackend, QueueFull, forget_trace
from gateway.formats.events import Event
from gateway.formats.fingerprint import AnswerFingerprint
from gateway.path.answer import Answer
from gateway.path.context import PathContext
from gateway.path.relay import Relay
from gateway.path.routing import Plan
from gateway.scheduling import traffic_split
from gateway.scheduling.slot_request import SlotRequest, Ticket
from gateway.telemetry.comparison import ComparedAnswer, Comparison, Observer, Skip
from gateway.telemetry.receipt import Receipt
from gateway.upstream.backend import Backend

LARGE = 65_536
"""Requests of this size and more, in bytes, are translated in a thread."""

COPIES = 4
"""Factor for the memory of a request while it is copied: body, parsed values, and two translations."""


class Room(Protocol):
    """Counts the memory that requests hold."""

    def borrow(self, size: int) -> bool:
        """Take bytes from the budget if they are available; return whether they were."""

    def give(self, size: int) -> None:
        """Return bytes to the budget."""


Beside = Callable[[Callable[[], Plan]], Awaitable[Plan]]
"""Runs a function in a thread and returns its result."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The target of copies of requests for the model `of`."""

    of: str
    model: config.ModelSettings
    settings: config.ShadowSettings


@dataclass(slots=True)
class _Seen:
    """What is known about one of the two answers. `ended` is in monotonic seconds."""

    receipt: Receipt
    outline: AnswerFingerprint = field(default_factory=AnswerFingerprint)
    outcome: str = "ok"
    ended: float = 0.0

    def side(self) -> ComparedAnswer:
        """Return the values for the log and the metrics."""
        receipt, outline = self.receipt, self.outline
        began = self.ended if receipt.granted is None else receipt.granted
        first = None if receipt.first_token is None else receipt.first_token - began
        return ComparedAnswer(
            receipt.backend, self.outcome, outline.finish, outline.characters, first, self.ended - began
        )


@dataclass(slots=True, eq=False)
class _Copy:
    """One copy. `plan` is the plan of the client's request until the copy has its own."""

    plan: Plan
    target: _Target
    caller: _Seen
    mine: _Seen
    last: list[Event]
    gave_way: bool = False
    held: int = 0

    def may_stop_on(self, backends: tuple[str, ...]) -> bool:
        """Return True if ending the copy frees a slot of one of these backends at once."""
        name = self.mine.receipt.backend
        if self.gave_way or name not in backends or name not in self.plan.outgoing:
            return False
        backend, outgoing = self.plan.routing.fleet[name], self.plan.outgoing[name]
        streams = outgoing.streams and not backend.no_streams
        return ((backend.abandon_stream if streams else backend.abandon_whole) or outgoing.abandon) == "close"


class ShadowTraffic:
    """Makes the copies. One for the process.

    Arguments: `chance` returns a random number from 0 to 1; `beside` runs the translation of large requests
    in a thread; `room` counts the memory of copies; `note` logs notes about backends; `observers` are told
    of every copy; `crash` logs unexpected exceptions.
    """

    def __init__(
        self,
        settings: config.Config,
        fleet: Mapping[str, Backend],
        dispatcher: Dispatcher,
        background: Background,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
        chance: Callable[[], float],
        *,
        observers: Sequence[Observer],
        crash: Callable[[str, BaseException], None],
        beside: Beside,
        room: Room | None = None,
    ) -> None:
        self._relay = Relay(
            PathContext(
                settings, fleet, _Spare(dispatcher), background, clock, note, chance, crash=crash, copies=True
            )
        )
        self._background = background
        self._clock = clock
        self._chance = chance
        self._observers = observers
        self._crash = crash
        self._beside = beside
        self._room = room
        self._targets = _targets(settings)
        self._running: dict[asyncio.Task[None], _Copy] = {}
        self._numbers: Counter[str] = Counter()
        self._closed = False
        dispatcher.on_wait(self._give_way)

    def reconfigure(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        """Use other settings. Copies that run, and answers being read, end with the former ones."""
        self._relay.reconfigure(settings, fleet)
        self._targets = _targets(settings)

    def watch(self, answer: Answer, plan: Plan, receipt: Receipt) -> Answer:
        """Return the answer, wrapped if a copy of its request is to be made when it has ended."""
        target = self._targets.get(plan.model.name)
        if target is None or plan.instead or self._closed:
            return answer
        if not traffic_split.chosen(target.settings.share, self._chance()):
            return answer
        mine = Receipt(receipt.request_id, receipt.door, receipt.received, model=target.model.name)
        return _Watched(answer, _Copy(plan, target, _Seen(receipt), _Seen(mine), []), self._begin)

    def close(self) -> None:
        """End all copies and make no more."""
        self._closed = True
        for task in self._running:
            task.cancel()

    async def aclose(self) -> None:
        """End all copies and wait until they have ended."""
        self.close()
        await asyncio.gather(*self._running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)

    def __repr__(self) -> str:
        return f"<ShadowTraffic {len(self._running)} copies{' closed' if self._closed else ''}>"

    # --- the way of a copy -------------------------------------------------------------------------

    def _begin(self, copy: _Copy, error: GatewayError | None, *, left: bool) -> None:
        """Copy a request whose answer has ended, if there is something to compare."""
        caller, target = copy.caller, copy.target
        caller.ended = self._clock()
        if error is not None:
            caller.outcome = error.row.outcome
        if left or caller.receipt.answered or not caller.receipt.attempts:
            self._skip(copy, "unanswered")
        elif self._closed:
            self._skip(copy, "shutdown")
        elif self._numbers[target.of] >= target.settings.at_once or not self._has_room(copy):
            self._skip(copy, "full")
        else:
            self._numbers[target.of] += 1
            task = self._background.start(self._run(copy), f"copy of {caller.receipt.request_id}")
            self._running[task] = copy
            task.add_done_callback(self._ended)

    def _has_room(self, copy: _Copy) -> bool:
        """Take the memory for a copy. The request returns its own memory when it ends."""
        if self._room is None:
            return True
        size = COPIES * max(len(one.body) for one in copy.plan.outgoing.values())
        if not self._room.borrow(size):
            return False
        copy.held = size
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        copy = self._running.pop(task)
        if self._room is not None:
            self._room.give(copy.held)
        self._numbers[copy.target.of] -= 1
        if task.cancelled():  # perhaps before it had begun
            self._skip(copy, "gave_way" if copy.gave_way else "shutdown")
        elif (error := task.exception()) is not None:
            self._crash(copy.caller.receipt.request_id, error)

    async def _run(self, copy: _Copy) -> None:
        copy.caller.outline.take(copy.last)
        try:
            copy.plan = plan = await self._planned(copy)
        except (BadRequest, ModelNotFound):
            self._skip(copy, "unfit")
            return
        if not plan.alone:  # choices side by side would take several slots
            self._skip(copy, "unfit")
            return
        try:
            await self._answered(copy, plan)
        except (QueueFull, NoBackend) as error:  # no slot is free, or a reload has taken the model away
            self._skip(copy, "busy" if isinstance(error, QueueFull) else "unfit")
            forget_trace(error)
            return
        except TimeoutError:
            copy.mine.outcome = "total_timeout"
        except GatewayError as error:
            copy.mine.outcome = error.row.outcome
            forget_trace(error)
        copy.mine.ended = self._clock()
        comparison = _compared(copy)
        for observer in self._observers:
            observer.shadowed(comparison)

    async def _planned(self, copy: _Copy) -> Plan:
        """Return the plan of the copy. Raises `BadRequest` and `ModelNotFound`."""
        routing, call, target = self._relay.routing, copy.plan.call, copy.target.model
        size = max(len(one.body) for one in copy.plan.outgoing.values())

        def plan() -> Plan:
            return routing.plan(call.of(target.name), target)

        return plan() if size <= LARGE else await self._beside(plan)

    async def _answered(self, copy: _Copy, plan: Plan) -> None:
        """Read the whole answer. Raises `QueueFull` where no slot is free, and how else it can end."""
        mine = copy.mine
        mine.receipt.received = self._clock()
        answer = self._relay.answer(plan, mine.receipt, _nobody_told)
        try:
            async with asyncio.timeout(copy.target.settings.timeout):
                while not answer.done:
                    mine.outline.take(await answer.read())
        finally:
            if not answer.done:
                await answer.aclose()

    def _give_way(self, slot_request: SlotRequest) -> None:
        """End a copy that holds a slot which a request waits for."""
        for task, copy in self._running.items():
            if copy.may_stop_on(slot_request.backends):
                copy.gave_way = True
                task.cancel()
                return

    def _skip(self, copy: _Copy, reason: Skip) -> None:
        for observer in self._observers:
            observer.shadow_skipped(copy.target.of, copy.target.model.name, reason)


def _targets(settings: config.Config) -> dict[str, _Target]:
    return {
        model.name: _Target(model.name, settings.names[model.shadow.model], model.shadow)
        for model in settings.resolved_models
        if model.shadow is not None
    }


def _compared(copy: _Copy) -> Comparison:
    caller, mine = copy.caller, copy.mine
    same: bool | None = None
    if caller.outcome == mine.outcome == "ok" and caller.outline.legible and mine.outline.legible:
        same = caller.outline.digest == mine.outline.digest
    return Comparison(
        request_id=caller.receipt.request_id,
        model=copy.target.of,
        shadow=copy.target.model.name,
        caller=caller.side(),
        copy=mine.side(),
        same_text=same,
    )


def _nobody_told(_: Ticket) -> None:
    """Do nothing: a copy does not wait."""


class _Watched(Answer):
    """Wraps an answer and takes its fingerprint while it is read. Calls `over` once, at its end."""

    def __init__(self, answer: Answer, copy: _Copy, over: Callable[..., None]) -> None:
        self._answer = answer
        self._copy = copy
        self._over: Callable[..., None] | None = over

    async def read(self) -> list[Event]:
        # What the reader has got and handed on is looked at now, while the next piece is on its way.
        copy = self._copy
        copy.caller.outline.take(copy.last)
        copy.last = []
        try:
            events = copy.last = await self._answer.read()
        except GatewayError as error:
            self._end(error)
            raise
        if self._answer.done:
            self.done = True
            self._end(None)
        return events

    async def aclose(self) -> None:
        try:
            self._end(None, left=True)
        finally:
            await self._answer.aclose()

    def _end(self, error: GatewayError | None, *, left: bool = False) -> None:
        over, self._over = self._over, None
        if over is not None:
            over(self._copy, error, left=left)


class _Spare:
    """The dispatcher for copies: gives a slot only if one is free now, and records no results."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def lease(self, slot_request: SlotRequest, waiting: Callable[[Ticket], None]) -> Lease:  # noqa: ARG002 - see Slots
        """Return a slot that is free now. Raises `QueueFull`."""
        if (lease := self.seize(slot_request)) is None:
            raise QueueFull("No slot is free for a copy.")
        return lease

    def seize(self, slot_request: SlotRequest) -> Lease | None:
        """Return a slot that is free now, but not on a recovering backend: its capacity is for users."""
        well = tuple(name for name in slot_request.backends if self._dispatcher.state(name).share == 1)
        return self._dispatcher.seize(replace(slot_request, backends=well), counted=False) if well else None

    def tried(
        self, backend: str, error: GatewayError | None, request: object | None = None, tenant: str = ""
    ) -> None:
        """Do nothing: results of copies do not count for the backend."""

    def repeated(self, backend: str) -> None:
        """Do nothing: copies are not sent again."""

    def served(self, model: str, seconds: float, backend: str = "") -> None:
        """Do nothing: durations of copies are not learned."""

    def queue_depth(self, model: str) -> int:
        """Return the number of requests that wait for the model."""
        return self._dispatcher.queue_depth(model)
