"""What a request asks of the dispatcher (`SlotRequest`), its place in a queue (`Ticket`), the outcome."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from gateway.errors import Unavailable

if TYPE_CHECKING:
    from gateway.scheduling.fair_queue import TicketLane


@dataclass(slots=True)
class SlotRequest:
    """What a request asks: one slot on one of `backends`, for a `model`, on behalf of a `tenant`.

    A larger `priority` goes first, a larger `weight` gets more turns. `size` is what the request holds in
    memory, in bytes. `affinity` names the session it belongs to, `prefix` holds the hashes of its
    beginnings, the shortest first (see `affinity.chain`); only the balancers of those names look at
    them. `waited` are the seconds that the request has waited already, before a try that failed. What may be
    served by several models (fallbacks) lists the backends of all of them and waits in the queue of `model`.
    `kinds` are those of its backends, noted when the fleet changes while it waits (see `BackendTable`).
    """

    model: str
    backends: tuple[str, ...]
    tenant: str = ""
    weight: int = 1
    priority: int = 0
    size: int = 0
    affinity: str = ""
    prefix: tuple[bytes, ...] = ()
    waited: float = 0.0
    kinds: frozenset[Hashable] = frozenset()


@dataclass(eq=False, slots=True)
class Ticket:
    """The place of a request that has to wait. Numbers rise in the order of arrival.

    `lane` and `order` belong to the queue: where the ticket waits, and the how manyth it was there. Without a
    lane it waits no more.
    """

    number: int
    slot_request: SlotRequest
    deadline: float
    lane: TicketLane | None = field(default=None, repr=False)
    order: int = field(default=0, repr=False)

    @property
    def model(self) -> str:
        """The model whose queue it waits in."""
        return self.slot_request.model


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The ticket holds a slot of this backend."""

    ticket: Ticket
    backend: str


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """The ticket is out, for this reason."""

    ticket: Ticket
    error: Unavailable


Effect: TypeAlias = SlotGranted | SlotRefused
