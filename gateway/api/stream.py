"""The life of one streamed response, whatever API it is written for.

Stages: the head waits for the first content, up to `server.stream_head_wait`, so that errors keep their
status. If that passes, the head is sent, and keep-alives tell the client that it waits. Content follows. A
failure behind the head is one in-band error, without an end mark; a failure before it is raised, and
becomes a response of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Send

from gateway import config
from gateway.api import responses
from gateway.api.client_guard import ClientChannel
from gateway.api.door_context import DoorContext
from gateway.api.middleware import RequestContext, gateway_lines, note_error
from gateway.errors import ClientGone, GatewayError, InternalError, UpstreamTruncated, forget_trace
from gateway.formats.events import Delta, Event, Passed, Repair
from gateway.formats.headers import pairs
from gateway.formats.writer import StreamWriter
from gateway.path.answer import Answer
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket

QUEUE_EVENTS = b"x-gateway-queue-events"
"""The header by which a client asks for events instead of comments while it waits, or for comments."""


class StreamSession:
    """One streamed response. Used once, by the task of its request.

    Args:
        door_context: what all doors share.
        plan: where the call may go.
        context: the request.
        client: the connection that the response is sent on.
        make_writer: makes the writer; not called for a stream that passes unread, until its end.
    """

    def __init__(
        self,
        door_context: DoorContext,
        plan: Plan,
        context: RequestContext,
        client: ClientChannel,
        make_writer: Callable[[], StreamWriter],
    ) -> None:
        self._door_context = door_context
        self._plan = plan
        self._context = context
        self._client = client
        self._make_writer = make_writer
        self._writer: StreamWriter | None = None
        self._passed = False  # bytes of the backend have gone to the client unread
        self._ticket: Ticket | None = None
        self._keepalive: asyncio.Task[None] | None = None

    async def serve(self, send: Send) -> None:
        """Send the whole response. Raises the failures that come before its head, and `ClientGone`."""
        try:
            with self._door_context.stay(self._client):
                await self._run(send)
        except GatewayError as error:
            if not self._context.began or isinstance(error, ClientGone):
                raise
            await self._fail(error, send)
            forget_trace(error)
        except Exception:  # a bug of ours, logged by the middleware; no stream may end as if it were complete
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
        """End a stream that has begun and cannot go on."""
        note_error(self._context.receipt, error)
        await responses.end_stream(send, self.writer.error(error))

    @property
    def writer(self) -> StreamWriter:
        """The writer of this response, made when it is first needed."""
        if self._writer is None:
            self._writer = self._make_writer()
        return self._writer

    # --- until there is content --------------------------------------------------------------------

    def _queued(self, ticket: Ticket) -> None:
        self._ticket = ticket

    async def _wait_first(self, answer: Answer, send: Send) -> list[Event]:
        # Few streams need a keep-alive: a timer costs less than a task that waits for each of them.
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
        # Who counts the tokens is known only at the end; the usage itself tells the counts.
        lines = gateway_lines(self._context.receipt, counted=False)
        await responses.start_stream(send, pairs(lines))

    def _keepalive_piece(self) -> bytes:
        style = self._style()
        if style == "none":
            return b""
        place = self._door_context.place(self._ticket) if self._ticket else None
        return self.writer.waiting(place, style)

    def _style(self) -> config.KeepaliveStyle:
        """The style that the client asked for, else the configured one."""
        wish = self._context.headers.get(QUEUE_EVENTS, b"").strip().lower()
        style = self._door_context.settings.queue.style
        if wish == b"true":
            return "events"
        return "comments" if wish == b"false" and style == "events" else style

    # --- content -----------------------------------------------------------------------------------

    def _send(self, events: list[Event]) -> Awaitable[None]:
        """Send what came together in one piece."""
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
    """Whether the client will see something of the event, or the end."""
    return not (isinstance(event, Repair) or (isinstance(event, Delta) and event.empty))
