"""What a request asks of the dispatcher (`SlotRequest`), its place in the queue (`Ticket`), the outcome."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from gateway.errors import Unavailable

if TYPE_CHECKING:
    from gateway.scheduling.fair_queue import TicketLane


@dataclass(slots=True)
class SlotRequest:
    """A request for one slot on one of `backends`, for `model`, on behalf of `tenant`.

    A request with a higher `priority` is served first, and a tenant with a larger `weight` gets more turns.
    `size` is the memory that the request holds, in bytes. `affinity` is the key of its session, and
    `prefix` holds the hashes of the prompt's prefixes, shortest first (see `affinity.chain`); only the
    balancers `session` and `prefix` use them. `waited` is the time that the request has already waited
    before an earlier attempt that failed, in seconds. A request that several models may serve (fallbacks)
    lists the backends of all of them and waits in the queue of `model`. `kinds` are the kinds of its
    backends (see `BackendTable`). They are recorded when the configuration changes while the request waits.
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
    """The place of a waiting request in the queue. Ticket numbers increase in order of arrival.

    The queue sets `lane` and `order`: the lane in which the ticket waits, and its arrival index within that
    lane. `lane` is None if the ticket does not wait.
    """

    number: int
    slot_request: SlotRequest
    deadline: float
    lane: TicketLane | None = field(default=None, repr=False)
    order: int = field(default=0, repr=False)

    @property
    def model(self) -> str:
        """The model in whose queue the ticket waits."""
        return self.slot_request.model


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The ticket holds a slot of this backend."""

    ticket: Ticket
    backend: str


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """The ticket has left the queue without a slot, with this error."""

    ticket: Ticket
    error: Unavailable


Effect: TypeAlias = SlotGranted | SlotRefused
