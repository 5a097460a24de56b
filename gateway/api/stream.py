"""`StreamSession`: one streamed response, from its head to its end, for every API.

Stages of a response:

    1. The head waits for the first content, at most `server.stream_head_wait` seconds. An error in this stage
       is raised and becomes a response with its own status code.
    2. If there is no content by then, the head is sent, followed by keep-alives until there is content.
    3. The content is sent.
    4. The end: the writer's end mark, or, after an error, one error event without an end mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Send

from gateway import config
from gateway.api import responses
from gateway.api.door_context import DoorContext
from gateway.api.request_context import RequestContext, gateway_lines, note_error
from gateway.errors import ClientGone, GatewayError, InternalError, UpstreamTruncated, forget_trace
from gateway.formats.events import Delta, Event, Passed, Repair
from gateway.formats.headers import pairs
from gateway.formats.writer import StreamWriter
from gateway.path.answer import Answer
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket

QUEUE_EVENTS = b"x-gateway-queue-events"
"""Request header: `true` asks for queue events as keep-alives, `false` for comments."""


class StreamSession:
    """One streamed response. Used once, by the task of its request.

    Args:
        door_context: what all doors share.
        plan: where the call may go.
        context: the request.
        make_writer: makes the writer, when it is first needed: for a stream passed on unread, at its end.
    """

    def __init__(
        self,
        door_context: DoorContext,
        plan: Plan,
        context: RequestContext,
        make_writer: Callable[[], StreamWriter],
    ) -> None:
        self._door_context = door_context
        self._plan = plan
        self._context = context
        self._client = context.client
        self._make_writer = make_writer
        self._writer: StreamWriter | None = None
        self._passed = False  # True once bytes of the backend have been passed on unread
        self._ticket: Ticket | None = None
        self._keepalive: asyncio.Task[None] | None = None

    async def serve(self, send: Send) -> None:
        """Send the whole response. Raises errors that occur before its head is sent, and `ClientGone`."""
        try:
            with self._door_context.stay(self._context):
                await self._run(send)
        except GatewayError as error:
            if not self._context.began or isinstance(error, ClientGone):
                raise
            await self._fail(error, send)
            forget_trace(error)
        except Exception:  # a bug, logged by the middleware; the stream must not look complete
            if self._context.began:
                await self._fail(InternalError("The gateway failed. Its log knows more."), send)
            raise

    async def _run(self, send: Send) -> None:
        answer = self._door_context.relay.answer(self._plan, self._context.receipt, self._queued)
        try:
            first = await self._wait_first(answer, send)
            if not self._context.began:
                await self._send_head(send)
            await self._send(first)
            while not answer.done:
                await answer.flow(self._client)
                await self._send(await answer.read())
        finally:
            if not answer.done:
                await answer.aclose()
        self.writer.passed = self._passed
        await responses.end_stream(send, self.writer.end())

    async def _fail(self, error: GatewayError, send: Send) -> None:
        """End a stream whose head has been sent with an error event."""
        note_error(self._context.receipt, error)
        await responses.end_stream(send, self.writer.error(error))

    @property
    def writer(self) -> StreamWriter:
        """The writer of this response. Made when it is first used."""
        if self._writer is None:
            self._writer = self._make_writer()
        return self._writer

    # --- until there is content --------------------------------------------------------------------

    def _queued(self, ticket: Ticket) -> None:
        self._ticket = ticket

    async def _wait_first(self, answer: Answer, send: Send) -> list[Event]:
        # Few streams need a keep-alive, and a timer for each stream costs less than a task.
        wait = self._door_context.settings.server.stream_head_wait
        timer = asyncio.get_running_loop().call_later(wait, self._start_keepalive, send)
        try:
            while not answer.done:
                events = await answer.read()
                if any(map(_is_shown, events)):
                    return events
        finally:
            timer.cancel()
            if self._keepalive is not None:
                self._keepalive.cancel()
                await asyncio.wait({self._keepalive})
                self._keepalive = None
        raise UpstreamTruncated("The backend's answer ended before it began.")

    def _start_keepalive(self, send: Send) -> None:
        background = self._door_context.background
        self._keepalive = background.start(self._keep_alive(send), "a waiting stream's keep-alive")

    async def _keep_alive(self, send: Send) -> None:
        await self._send_head(send)
        while True:
            piece = self._keepalive_piece()
            if piece:
                await self._client.push(piece)
            await asyncio.sleep(self._door_context.settings.queue.keepalive)

    async def _send_head(self, send: Send) -> None:
        # The source of the token counts is known only at the end of the stream.
        lines = gateway_lines(self._context.receipt, counted=False)
        await responses.start_stream(send, pairs(lines))

    def _keepalive_piece(self) -> bytes:
        style = self._style()
        if style == "none":
            return b""
        place = self._door_context.place(self._ticket) if self._ticket else None
        return self.writer.waiting(place, style)

    def _style(self) -> config.KeepaliveStyle:
        """Return the keep-alive style that the client asked for, else the configured one."""
        wish = self._context.headers.get(QUEUE_EVENTS, b"").strip().lower()
        style = self._door_context.settings.queue.style
        if wish == b"true":
            return "events"
        return "comments" if wish == b"false" and style == "events" else style

    # --- content -----------------------------------------------------------------------------------

    def _send(self, events: list[Event]) -> Awaitable[None]:
        """Send events that arrived together in one write."""
        if len(events) == 1 and isinstance(event := events[0], Passed):
            self._passed = True
            return self._client.push(event.data)
        return self._client.push(b"".join([self._written(event) for event in events]))

    def _written(self, event: Event) -> bytes:
        if isinstance(event, Passed):
            self._passed = True
            return event.data
        return self.writer.event(event)


def _is_shown(event: Event) -> bool:
    """Return True if the event results in bytes for the client."""
    return not (isinstance(event, Repair) or (isinstance(event, Delta) and event.empty))
