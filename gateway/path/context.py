"""`PathContext`: the objects that every generation and attempt uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway import config
from gateway.background import Background
from gateway.dialects.base import Stamp, unstamped
from gateway.dispatch.dispatcher import SlotSource
from gateway.errors import GatewayError, UpstreamGarbled
from gateway.path.backend_notes import BackendNotes
from gateway.path.routing import RoutingTable
from gateway.scheduling.retry import RetryBudget
from gateway.telemetry.receipt import Receipt
from gateway.upstream.backend import Backend


class PathContext:
    """The collaborators of a path. One for the process, and one for the copies of shadow traffic.

    Args:
        settings: the configuration, with discovered backends in it.
        fleet: the backends by name.
        dispatcher: hands out slots.
        background: runs tasks that outlive their request.
        clock: monotonic seconds.
        log_note: logs a note about a backend (its name, the text).
        chance: returns a random number from 0 to 1.
        stamp: returns an id with a prefix, and the Unix time, for answers whose backend sends neither.
        crash: logs an unexpected exception, with the id of the request.
        copies: True for shadow copies: one attempt, no fallback models.
    """

    def __init__(
        self,
        settings: config.Config,
        fleet: Mapping[str, Backend],
        dispatcher: SlotSource,
        background: Background,
        clock: Callable[[], float],
        log_note: Callable[[str, str], None],
        chance: Callable[[], float],
        *,
        stamp: Stamp = unstamped,
        crash: Callable[[str, BaseException], None] | None = None,
        copies: bool = False,
    ) -> None:
        self.dispatcher = dispatcher
        self.background = background
        self.clock = clock
        self.chance = chance
        self.stamp = stamp
        self.notes = BackendNotes(log_note)
        self.retry_budget = RetryBudget(settings.retries.budget, settings.retries.least)
        self._crash = crash
        self._copies = copies
        self.routing = self._routing(settings, fleet)

    def reconfigure(self, settings: config.Config, fleet: Mapping[str, Backend]) -> None:
        """Use other settings. Attempts in flight keep the old ones; waiting requests are planned again."""
        self.routing = self._routing(settings, fleet)
        self.retry_budget.reconfigure(settings.retries.budget, settings.retries.least)

    def _routing(self, settings: config.Config, fleet: Mapping[str, Backend]) -> RoutingTable:
        routing = RoutingTable(settings, fleet, self.chance)
        return routing.for_copies() if self._copies else routing

    def unexpected(self, error: Exception, receipt: Receipt) -> GatewayError:
        """Return the error for an exception that was raised while a backend's answer was read.

        It means that the answer has a form that the code does not expect. Raises `error` itself where the
        answer cannot be the reason.
        """
        if isinstance(error, MemoryError | OSError):
            raise error
        if self._crash is not None:
            self._crash(receipt.request_id, error)
        return UpstreamGarbled("The backend's answer cannot be understood.")
