"""One answer: the loop over its attempts, and the only place where a request is repeated.

States (`GenerationState`) and transitions:

    WAITING      needs a slot on a backend of the plan's model
        -> ATTEMPTING   a slot has been granted
        -> WAITING      the configuration has changed, and other backends may serve the model now
        -> MOVING       no backend of the model can answer, and there are other models that may
    MOVING       needs a slot on a backend of one of the models that may answer instead
        -> ATTEMPTING   a slot has been granted; the request is that model's from now on
    ATTEMPTING   an attempt runs; no content has been given to the reader
        -> WAITING      it failed, and another backend, or the same one once more, may be asked
        -> MOVING       it failed, and only other models are left
        -> DELIVERING   content has been given to the reader
        -> WAITING      an ability does not accept the whole answer, and asks again
        -> DONE         the whole answer has been given
    DELIVERING   content has been given to the reader: a failure is final
        -> DONE
    DONE         the whole answer has been given

Every failure that is not repeated is raised to the reader, from any state. A reader that leaves closes the
generation, whatever its state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TypeAlias

from gateway.abilities.base import AskAgain
from gateway.dispatch.dispatcher import Lease
from gateway.errors import GatewayError, NoBackend, UpstreamBusy, UpstreamError, forget_trace
from gateway.formats.events import Event, Repair
from gateway.path.answer import Answer, ByteSink
from gateway.path.attempt import Attempt, AttemptState
from gateway.path.context import PathContext
from gateway.path.routing import Plan
from gateway.scheduling.retry import Failure, may_retry
from gateway.scheduling.slot_request import SlotRequest, Ticket
from gateway.telemetry.receipt import Receipt

REPEAT_PAUSE = 0.25
"""Seconds before the same backend is asked once more where no other can answer; at random down to half."""

OnWaiting: TypeAlias = Callable[[Ticket], None]
"""Is told the ticket of a request that has to wait for a slot."""


class GenerationState(Enum):
    """What a generation does; the transitions are in the module's docstring."""

    WAITING = "waiting"
    MOVING = "moving"
    ATTEMPTING = "attempting"
    DELIVERING = "delivering"
    DONE = "done"


class Generation(Answer):
    """One answer to a planned call. Owned and read by one task.

    Args:
        context: the collaborators of the path.
        plan: where the call may go, translated.
        receipt: the record of the request.
        on_waiting: is told the ticket each time when the request has to wait for a slot.
    """

    def __init__(self, context: PathContext, plan: Plan, receipt: Receipt, on_waiting: OnWaiting) -> None:
        self.state = GenerationState.WAITING
        self.done = False
        self._context = context
        self._plan = plan
        self._receipt = receipt
        self._on_waiting = on_waiting
        self._backends = plan.backends  # those that may still be asked
        self._planned_by = plan.routing  # the latest routing table that was tried, successfully or not
        self._attempt: Attempt | None = None
        self._attempts = 0  # on the plan's model
        self._waited = 0.0  # seconds, in all
        self._first_failure: GatewayError | None = None  # of the model asked for; raised if none can answer
        self._retry_reason = ""  # outcome of the failed attempt, on the receipt when the next one starts
        self._repeatable = ""  # the backend that may be asked once more where no other can answer
        self._repeated = False
        self._corrected = False  # an ability has asked again, which it may do once
        self._other_models: list[Plan] | None = None  # None while the request is still its own model's

    async def read(self) -> list[Event]:
        """Return the next pieces, maybe none. Raises the failure that ends the answer."""
        while True:
            try:
                attempt = self._attempt
                if attempt is None:
                    queued, request = self._context.clock(), self._slot_request()
                    lease = self._context.dispatcher.seize(request) if request else None
                    attempt = (
                        self._start_attempt(lease, queued)
                        if lease
                        else await self._wait_attempt(request, queued)
                    )
                try:
                    events = attempt.noted(await attempt.read())
                except GatewayError:
                    raise
                except Exception as error:  # noqa: BLE001 - logged, and becomes the backend's failure
                    raise self._context.unexpected(error, self._receipt) from None
                if attempt.state is AttemptState.OVER:
                    if attempt.is_open():
                        await attempt.close()
                    self.state, self.done = GenerationState.DONE, True
                    self._attempt = None  # it refers to this generation: together they would be a cycle
                    if attempt.settle("ok"):  # let the request that has got its slot send first
                        await asyncio.sleep(0)
                    if attempt.correction is not None:
                        self._ask_again(attempt.correction)
                        continue
            except GatewayError as error:
                await self._end_attempt(error)
                forget_trace(error)
                continue
            if self.state is GenerationState.ATTEMPTING and any(type(one) is not Repair for one in events):
                self.state = GenerationState.DELIVERING
            return events

    async def flow(self, sink: ByteSink) -> None:
        """Pass bytes on as they come, once content has been given; returns when `read` is needed."""
        attempt = self._attempt
        if attempt is not None and self.state is GenerationState.DELIVERING:
            await attempt.flow(sink)

    async def aclose(self) -> None:
        """Leave the answer; an attempt in flight ends as one whose client has left."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None and not self.done:
            await attempt.leave()

    def _may_correct(self) -> bool:
        """Return True if an ability may ask again: once, within the total time-out and the retry budget."""
        plan, context, now = self._plan, self._context, self._context.clock()
        total = plan.routing.limits[plan.model.name, self._receipt.backend].total
        if self._corrected or plan.routing.attempts == 1 or now - self._receipt.received >= total:
            return False
        return context.retry_budget.spend(now)

    def _ask_again(self, correction: AskAgain) -> None:
        """Send what an ability asks in the place of the request whose answer it did not accept."""
        self.state, self.done, self._attempt = GenerationState.WAITING, False, None
        self._corrected = True
        self._plan = self._context.routing.corrected(self._plan, correction.request)
        self._planned_by = self._plan.routing
        self._backends, self._attempts = self._plan.backends, 0
        self._retry_reason = correction.reason

    # --- waiting for a slot ------------------------------------------------------------------------

    def _slot_request(self) -> SlotRequest | None:
        """Return what the next attempt needs; None where another model has to answer."""
        changed = self._plan.routing is not self._context.routing
        if changed and (self._backends or self._other_models is None):
            self._replan()
        if self._backends or self._other_models is None:
            return self._plan.slot_request(self._backends, self._waited)
        return None

    async def _wait_attempt(self, request: SlotRequest | None, queued: float) -> Attempt:
        context, receipt = self._context, self._receipt
        try:
            if request is not None:
                lease = await context.dispatcher.lease(request, self._on_waiting)
            else:
                lease = await self._wait_other_model(self._other_models or [])
            if self._plan.routing is not context.routing:  # the configuration has changed meanwhile
                lease = await self._wait_fitting(lease)
        finally:
            granted = context.clock()
            self._waited += granted - queued
            receipt.queue_seconds += granted - queued
        return self._start_attempt(lease, granted)

    def _start_attempt(self, lease: Lease, granted: float) -> Attempt:
        receipt = self._receipt
        receipt.granted = granted
        self._attempts += 1
        if self._retry_reason:
            receipt.retries += (self._retry_reason,)
            self._retry_reason = ""
        try:
            attempt = self._attempt = Attempt(
                self._context, self._plan, lease, receipt, granted, may_correct=self._may_correct
            )
        except BaseException:  # nothing else holds the lease yet
            lease.end()
            raise
        self.state = GenerationState.ATTEMPTING
        return attempt

    async def _wait_other_model(self, plans: list[Plan]) -> Lease:
        """Wait for a slot of another model: the first that has one free, else the first that gets one.

        From then on the request is that model's.
        """
        self._other_models = []  # all of them are waited for here; none is left after that
        while True:
            routing, plans = self._context.routing, self._current(plans)
            try:
                lease = await self._wait_any(plans)
            except NoBackend:
                if self._context.routing is routing:
                    raise
                continue  # the backends are gone by a reload, which may have brought others
            try:  # a reload meanwhile may have granted a backend that none of the plans knew
                plans = self._current(plans)
                plan = next((one for one in plans if lease.backend in one.outgoing), None)
            except BaseException:
                lease.end()
                raise
            if plan is not None:
                break
            lease.end()
        self._other_models = [one for one in plans if one is not plan]
        self._receipt.answered = plan.model.name
        self._plan, self._backends, self._attempts = plan, plan.backends, 0
        return lease

    async def _wait_any(self, plans: list[Plan]) -> Lease:
        dispatcher, waited = self._context.dispatcher, self._waited
        for plan in plans:
            if (lease := dispatcher.seize(plan.slot_request(plan.backends, waited))) is not None:
                return lease
        request = plans[0].slot_request(plans[0].backends, waited)
        request.backends = tuple(dict.fromkeys(name for plan in plans for name in plan.backends))
        return await dispatcher.lease(request, self._on_waiting)

    def _current(self, plans: list[Plan]) -> list[Plan]:
        """Return these plans, made again where the routing table has changed.

        Raises `NoBackend` where none is left.
        """
        routing = self._context.routing
        if all(plan.routing is routing for plan in plans):
            return plans
        renewed: dict[str, Plan] = {}
        for plan in plans:
            with suppress(GatewayError):
                one = routing.renewed(plan)
                if one.backends and one.alone:
                    renewed.setdefault(one.model.name, one)
        if not renewed:
            raise NoBackend("No backend of this model can be reached.", retry_after=1.0)
        return list(renewed.values())

    async def _wait_fitting(self, lease: Lease) -> Lease:
        """Return a lease that fits the present routing table: this one, if its backend still does."""
        while self._plan.routing is not self._context.routing:
            try:
                plan = self._replan()
                fits = lease.backend in plan.outgoing
            except BaseException:
                lease.end()
                raise
            if not fits:
                lease.end()
                request = plan.slot_request(self._backends, self._waited)
                lease = await self._context.dispatcher.lease(request, self._on_waiting)
        return lease

    def _replan(self) -> Plan:
        routing = self._planned_by = self._context.routing
        plan = self._plan = routing.renewed(self._plan)
        if plan.instead:
            self._receipt.answered = plan.model.name
        self._backends = self._untried(plan) or plan.backends
        return plan

    def _untried(self, plan: Plan) -> tuple[str, ...]:
        tried = {attempt.backend for attempt in self._receipt.attempts}
        return tuple(name for name in plan.backends if name not in tried)

    # --- after a failure ---------------------------------------------------------------------------

    async def _end_attempt(self, error: GatewayError) -> None:
        """Decide what follows a failure: return where `read` shall go on with another attempt, else raise."""
        attempt, self._attempt = self._attempt, None
        delivering = self.state is GenerationState.DELIVERING or self.done
        if attempt is None:
            if await self._may_wait_again(error):
                return
        else:
            await attempt.fail(error)
            if await self._may_attempt_again(error, attempt, delivering=delivering):
                self.state = GenerationState.WAITING
                return
        if self._plan.canary is not None and not delivering and self._return_to_model(error):
            self.state = GenerationState.WAITING
            return
        failure = self._first_failure = self._first_failure or error
        if delivering:
            raise error
        if self._other_models is None:
            self._other_models = self._elsewhere(error)
        if not self._other_models:
            raise failure
        self._backends, self._retry_reason = (), ""
        self.state = GenerationState.MOVING

    async def _may_wait_again(self, error: GatewayError) -> bool:
        """Whether a request that has got no slot has another backend to wait for."""
        if self._other_models is not None or not isinstance(error, NoBackend):
            return False
        if self._planned_by is not self._context.routing:
            return True  # the backends it waited for are gone by a reload, which may have brought others
        if self._repeatable:  # all others are out
            await self._pause_before_repeat()
            return True
        return False

    async def _may_attempt_again(self, error: GatewayError, attempt: Attempt, *, delivering: bool) -> bool:
        """Whether another backend of the model, or the same one after a pause, may be asked."""
        context, plan, own_model = self._context, self._plan, self._other_models is None
        if own_model:  # how another model failed is not what the client should be told
            self._first_failure = error
        # A backend that is busy has said when to ask again, and is not asked again before.
        if not isinstance(error, UpstreamBusy):
            self._backends = tuple(name for name in self._backends if name != attempt.backend.name)
        self._repeatable = attempt.backend.name if self._worth_repeating(error) else ""
        failure = Failure(error.row.retryable, delivering, self._attempts)
        # A new configuration may have backends that did not exist when this was planned.
        others = bool(self._backends) or (plan.routing is not context.routing and own_model)
        if not (others or self._repeatable):
            return False
        if not may_retry(failure, plan.routing.attempts, context.retry_budget, context.clock()):
            return False
        self._retry_reason = error.row.outcome
        if not others:
            await self._pause_before_repeat()
        return True

    def _worth_repeating(self, error: GatewayError) -> bool:
        """Whether the backend that failed may be asked once more: it has answered with a 5xx."""
        failed = isinstance(error, UpstreamError) and error.status >= 500
        if not failed or self._repeated or self._plan.canary is not None:
            return False
        plan, name = self._plan, self._receipt.backend
        total = plan.routing.limits[plan.model.name, name].total
        return self._context.clock() + REPEAT_PAUSE - self._receipt.received < total

    async def _pause_before_repeat(self) -> None:
        """Wait a little, then have the backend that failed asked once more."""
        self._backends, self._repeatable, self._repeated = (self._repeatable,), "", True
        seconds = REPEAT_PAUSE * (1 - 0.5 * self._context.chance())
        self._waited += seconds
        await asyncio.sleep(seconds)

    def _return_to_model(self, error: GatewayError) -> bool:
        """Start over with the model that was asked, as its canary has failed; false where that cannot be."""
        receipt, asked = self._receipt, self._context.routing.returned(self._plan, error)
        if asked is None or asked.canary is None:
            return False
        self._plan, self._attempts, self._first_failure, self._retry_reason = asked, 0, None, ""
        self._backends = self._untried(asked) or asked.backends
        receipt.canary, receipt.answered = asked.canary.told, asked.model.name if asked.instead else ""
        return True

    def _elsewhere(self, error: GatewayError) -> list[Plan]:
        """Return plans for the models that may answer now.

        None for one choice of several: all choices of an answer must come from one model.
        """
        plan = self._plan
        if not plan.alone:
            return []
        failed = plan.canary.told.model if plan.canary is not None else ""  # or it could not have taken this
        plans = self._context.routing.elsewhere(plan.call, plan.model, error)
        return [one for one in plans if one.alone and one.model.name != failed]
