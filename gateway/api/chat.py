"""`POST /v1/chat/completions`: OpenAI's chat, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from gateway.api import replies
from gateway.api.body import require_json
from gateway.api.door import Desk
from gateway.api.middleware import Visit, gateway_headers, note_error
from gateway.errors import ClientGone, GatewayError, UpstreamTruncated
from gateway.relay import Asking, Plan
from gateway.scheduling.claim import Ticket
from gateway.wire import openai, sse
from gateway.wire.events import Delta, Event, Finish, Passed, Repair, Usage


class ChatDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises every `GatewayError` that comes before the head of the answer."""
        desk = self._desk
        visit, tenant = desk.admit(scope, "chat")
        require_json(scope["headers"])
        raw = await desk.read(scope, receive)
        request = await desk.offload.run(len(raw), openai.read_chat, raw)
        visit.receipt.stream = request.stream
        model = desk.model(request.model, tenant, visit)
        plan = await desk.offload.run(len(raw), desk.relay.plan, Asking(request), model, tenant)
        asked = request.model or model.name
        if not request.stream:
            async with desk.stay(receive):
                await self._whole(plan, visit, asked, send)
            return
        streaming = _Streaming(desk, plan, visit, asked)
        try:
            async with desk.stay(receive):
                await streaming.run(send)
        except GatewayError as error:
            if not visit.began or isinstance(error, ClientGone):
                raise
            await streaming.fail(error, send)

    async def _whole(self, plan: Plan, visit: Visit, asked: str, send: Send) -> None:
        desk = self._desk
        choices: dict[int, openai.Choice] = {}
        usage: Usage | None = None
        passed = b""
        async with aclosing(desk.relay.events(plan, visit.receipt, lambda _: None)) as events:
            async for event in events:
                if isinstance(event, Passed):
                    passed = event.data
                elif isinstance(event, Usage):
                    usage = event
                elif not isinstance(event, Repair):
                    choice = choices.setdefault(event.choice, openai.Choice())
                    _add(choice, desk.identified(event))
        if usage is None or any(choice.finish is None for choice in choices.values()):
            raise UpstreamTruncated("The backend's answer broke off.")
        body = passed or openai.write_completion(
            answer_id=desk.new_id("chatcmpl-"),
            created=int(desk.now().timestamp()),
            model=asked,
            choices=choices,
            usage=usage,
            legacy=plan.request.legacy_functions,
        )
        await replies.send_whole(send, 200, body, [*replies.JSON, *gateway_headers(visit.receipt)])


def _add(choice: openai.Choice, event: Event) -> None:
    if isinstance(event, Delta):
        choice.add(event)
    elif isinstance(event, Finish):
        choice.finish = event.reason


class _Streaming:
    """One streamed answer.

    The head waits for the first content up to `server.stream_head_wait`, so that errors keep their
    status; from then on comments keep the connection alive until there is content. A failure after
    the head is one error event, without a finish reason and without `[DONE]`.
    """

    def __init__(self, desk: Desk, plan: Plan, visit: Visit, asked: str) -> None:
        self._desk = desk
        self._plan = plan
        self._visit = visit
        self._ticket: Ticket | None = None
        self._usage: Usage | None = None
        self._open: set[int] = set()
        self._passing = False
        self._writer = openai.ChunkWriter(
            answer_id=desk.new_id("chatcmpl-"),
            created=int(desk.now().timestamp()),
            model=asked,
            include_usage=plan.request.include_usage,
            legacy=plan.request.legacy_functions,
        )

    async def run(self, send: Send) -> None:
        """Send the whole answer. Raises every failure; whether the head has gone out, `visit.began` tells."""
        events = self._desk.relay.events(self._plan, self._visit.receipt, self._queued)
        async with aclosing(events):
            first = await self._wait_for_first(events, send)
            await self._send(first, send)
            async for event in events:
                await self._send(event, send)
        await self._end(send)

    async def fail(self, error: GatewayError, send: Send) -> None:
        """End a stream that has begun and cannot go on."""
        note_error(self._visit.receipt, error)
        await replies.send_event(send, sse.frame(replies.error_body(error)))
        await replies.end_stream(send)

    def _queued(self, ticket: Ticket) -> None:
        self._ticket = ticket

    async def _wait_for_first(self, events: AsyncGenerator[Event, None], send: Send) -> Event:
        settings = self._desk.settings
        first = self._desk.background.start(_first_content(events), "first content")
        try:
            await asyncio.wait({first}, timeout=settings.server.stream_head_wait)
            if first.done():
                event = first.result()
                await self._start(send)
                return event
            await self._start(send)
            while not first.done():
                await replies.send_event(send, sse.comment(self._news()))
                await asyncio.wait({first}, timeout=settings.queue.keepalive)
            return first.result()
        finally:
            if not first.done():
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)

    async def _start(self, send: Send) -> None:
        # Who counts is known only at the end: the usage chunk tells the counts themselves.
        await replies.start_stream(send, gateway_headers(self._visit.receipt, counted=False))

    def _news(self) -> str:
        place = self._desk.place(self._ticket) if self._ticket else None
        if place is None:
            return "generating"
        position, seconds = place
        return f"queued position={position} wait={max(1, round(seconds))}s"

    async def _send(self, event: Event, send: Send) -> None:
        if isinstance(event, Passed):
            self._passing = True
            await replies.send_event(send, event.data)
            return
        event = self._desk.identified(event)
        if isinstance(event, Delta):
            if event.empty:
                return
            self._open.add(event.choice)
            await replies.send_event(send, self._writer.delta(event))
        elif isinstance(event, Finish):
            self._open.discard(event.choice)
            await replies.send_event(send, self._writer.finish(event.reason, event.choice))
        elif isinstance(event, Usage):
            self._usage = event

    async def _end(self, send: Send) -> None:
        if self._open or self._usage is None:
            raise UpstreamTruncated("The backend's answer broke off.")
        told = self._passing or not self._plan.request.include_usage
        usage = b"" if told else self._writer.usage(self._usage)
        await replies.send_event(send, usage + sse.DONE)
        await replies.end_stream(send)


async def _first_content(events: AsyncGenerator[Event, None]) -> Event:
    async for event in events:
        if not (isinstance(event, Repair) or (isinstance(event, Delta) and event.empty)):
            return event
    raise UpstreamTruncated("The backend's answer ended before it began.")
