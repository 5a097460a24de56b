"""Answers a request whole: reads all of the answer, then sends it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.client_guard import ClientChannel
from gateway.api.door_context import DoorContext
from gateway.api.middleware import RequestContext
from gateway.formats.events import Event, Passed, Repair
from gateway.formats.writer import Writer
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket


async def answer_whole(
    door_context: DoorContext,
    plan: Plan,
    context: RequestContext,
    client: ClientChannel,
    make_writer: Callable[[], Writer],
) -> None:
    """Read the answer and send it. Raises every way in which an answer can fail.

    `make_writer` is called only where the backend's own bytes cannot go to the client.
    """
    answer = door_context.relay.answer(plan, context.receipt, _ignore_ticket)
    events: list[Event] = []
    try:
        while not answer.done:
            events += await answer.read()
    finally:
        if not answer.done:
            await answer.aclose()
    await context.answer(client, _passed(events) or make_writer().whole(events))


def _passed(events: list[Event]) -> bytes | None:
    """The backend's own bytes, where they may go to the client."""
    for event in events:
        if type(event) is Passed:
            return event.data
        if type(event) is not Repair:
            break
    return None


def _ignore_ticket(_: Ticket) -> None:
    """A client that wants a whole answer cannot be told that it waits."""
