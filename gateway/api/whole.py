"""Answers a request with one complete response."""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.door_context import DoorContext
from gateway.api.request_context import RequestContext
from gateway.formats.events import Event, Passed, Repair
from gateway.formats.writer import Writer
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket


async def answer_whole(
    door_context: DoorContext, plan: Plan, context: RequestContext, make_writer: Callable[[], Writer]
) -> None:
    """Read the whole answer of a backend and send it. Raises every error that an answer can end with.

    `make_writer` is called only if the backend's bytes cannot be passed to the client unchanged.
    """
    answer = door_context.relay.answer(plan, context.receipt, _ignore_ticket)
    events: list[Event] = []
    try:
        while not answer.done:
            events += await answer.read()
    finally:
        if not answer.done:
            await answer.aclose()
    await context.answer(_passed(events) or make_writer().whole(events))


def _passed(events: list[Event]) -> bytes | None:
    """Return the backend's own bytes if they may be passed to the client unchanged, else None."""
    for event in events:
        if type(event) is Passed:
            return event.data
        if type(event) is not Repair:
            break
    return None


def _ignore_ticket(_: Ticket) -> None:
    """Do nothing: the client of a complete response cannot be told its position in the queue."""
