"""Begins the answer to a planned call: one generation, or several side by side, and their shadow copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gateway import config
from gateway.path.answer import Answer, ParallelChoices
from gateway.path.context import PathContext
from gateway.path.generation import Generation, OnWaiting
from gateway.path.routing import Plan, RoutingTable
from gateway.telemetry.receipt import Receipt
from gateway.upstream.backend import Backend

Watch: TypeAlias = Callable[[Answer, Plan, Receipt], Answer]
"""Wraps an answer that has begun, so that it is copied when it has ended."""


class Relay:
    """Turns plans into answers. One for the process, and one for the copies of shadow traffic.

    `watch` is shown the answers of models that have a shadow.
    """

    def __init__(self, context: PathContext, watch: Watch | None = None) -> None:
        self.context = context
        self._watch = watch

    @property
    def routing(self) -> RoutingTable:
        """The routing table of the present configuration."""
        return self.context.routing

    def reconfigure(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        """Use other settings for requests from now on, and for those that wait."""
        self.context.reconfigure(settings, fleet)

    def answer(self, plan: Plan, receipt: Receipt, on_waiting: OnWaiting) -> Answer:
        """Return the answer to a call. Nothing is sent before it is read. The caller closes it.

        `on_waiting` is told the ticket each time when the request has to wait for a slot.
        """
        context = self.context
        context.retry_budget.earn(context.clock())
        receipt.ignored = plan.ignored
        if plan.instead:
            receipt.answered = plan.model.name
        if plan.canary is not None:
            receipt.canary = plan.canary.told
        answer: Answer = Generation(context, plan, receipt, on_waiting)
        if not plan.alone:
            others = (Generation(context, plan, receipt, on_waiting) for _ in range(plan.request.n - 1))
            answer = ParallelChoices([answer, *others], receipt, context.background)
        if plan.model.shadow is not None and self._watch is not None:
            return self._watch(answer, plan, receipt)
        return answer
