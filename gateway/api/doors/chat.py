"""`POST /v1/chat/completions`: OpenAI's chat, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from starlette.types import Receive, Scope, Send

from gateway import config
from gateway.api import responses
from gateway.api.body import require_json
from gateway.api.browsers import require_json_of_browsers
from gateway.api.client_guard import ClientChannel
from gateway.api.door_context import DoorContext
from gateway.api.middleware import RequestContext, gateway_lines, note_error
from gateway.errors import ClientGone, GatewayError, InternalError, UpstreamTruncated, forget_trace
from gateway.formats import openai, sse, waiting
from gateway.formats.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.formats.headers import pairs
from gateway.path.answer import Answer
from gateway.path.routing import Call, Plan
from gateway.scheduling.slot_request import Ticket
from gateway.telemetry.receipt import Receipt
from gateway.tenancy.keys import Tenant

SESSION = b"x-session-affinity"
"""The header by which a client names the conversation; load generators and agents send it."""
LONGEST_SESSION = 256
"""How much of that name counts, in bytes."""
QUEUE_EVENTS = b"x-gateway-queue-events"
"""The header by which a client asks for events instead of comments while it waits, or for comments."""


class ChatDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises every `GatewayError` that comes before the head of the answer."""
        door_context = self._door_context
        client: ClientChannel = scope["presence"]
        context, tenant = door_context.admit(scope, "chat")
        require_json(context.headers)
        require_json_of_browsers(context.headers)
        raw = door_context.whole_body(context, client)
        if raw is not None and door_context.fits(context, raw):
            plan = self._understood(tenant, context, scope, raw)
        else:
            plan = await door_context.wait_read(
                scope, receive, raw, partial(self._understood, tenant, context, scope)
            )
            door_context.count(context, plan)
        del raw  # what is still needed of it, the plan has
        if not plan.request.stream:
            with door_context.stay(scope):
                await _answer_whole(door_context, plan, context, client)
            return
        streaming = StreamSession(door_context, plan, context, client)
        try:
            with door_context.stay(scope):
                await streaming.run(send)
        except GatewayError as error:
            if not context.began or isinstance(error, ClientGone):
                raise
            await streaming.fail(error, send)
            forget_trace(error)
        except Exception:  # a bug of ours, which is logged outside; no stream may end as if it were complete
            if context.began:
                await streaming.fail(InternalError("The gateway failed. Its log knows more."), send)
            raise

    def _understood(self, tenant: Tenant, context: RequestContext, scope: Scope, raw: bytes) -> Plan:
        """Read the request and plan it. Large ones do so beside the event loop.

        A deployment that the path names, as with Azure, is the model whatever the body says.
        """
        request = openai.read_chat(raw)
        if "path_params" in scope and (deployment := scope["path_params"].get("deployment")):
            request = request.of(deployment)
        context.receipt.stream = request.stream
        model = self._door_context.model(request.model, tenant, context)
        call = Call(request, tenant)
        if SESSION in context.headers:
            call.session = context.headers[SESSION][:LONGEST_SESSION].decode("latin-1")
        return self._door_context.relay.routing.plan(call, model)


def _nobody_told(_: Ticket) -> None:
    """Whoever wants a whole answer cannot be told that it waits."""


async def _answer_whole(
    door_context: DoorContext, plan: Plan, context: RequestContext, client: ClientChannel
) -> None:
    """Read the answer and send it."""
    answer = door_context.relay.answer(plan, context.receipt, _nobody_told)
    events: list[Event] = []
    try:
        while not answer.done:
            events += await answer.read()
    finally:
        if not answer.done:
            await answer.aclose()
    await context.answer(client, _whole(events, door_context, plan, context.receipt))


def _whole(events: list[Event], door_context: DoorContext, plan: Plan, receipt: Receipt) -> bytes:
    """The body of a whole answer: bytes that pass, or choices put together from their pieces."""
    for event in events:
        if type(event) is Passed:
            return event.data
        if type(event) is not Repair:
            break
    written = openai.write_text(events)
    if written is None:
        choices, usage = _put_together(events, door_context)
        written = openai.write_choices(choices, plan.request.legacy_functions), usage
    return openai.write_completion(
        answer_id=door_context.new_id("chatcmpl-"),
        created=int(door_context.now()),
        model=door_context.written(receipt.answered or plan.name),
        choices=written[0],
        usage=written[1],
    )


def _put_together(
    events: list[Event], door_context: DoorContext
) -> tuple[dict[int, openai.AnswerChoice], Usage]:
    choices: dict[int, openai.AnswerChoice] = {}
    usage: Usage | None = None
    for event in events:
        if isinstance(event, Usage):
            usage = event
        elif isinstance(event, Delta):
            choices.setdefault(event.choice, openai.AnswerChoice()).add(door_context.identified(event))
        elif isinstance(event, Finish):
            choices.setdefault(event.choice, openai.AnswerChoice()).finish = event.reason
    if usage is None or not choices or None in [choice.finish for choice in choices.values()]:
        raise UpstreamTruncated("The backend's answer broke off.")
    return choices, usage


class StreamSession:
    """One streamed answer.

    The head waits for the first content up to `server.stream_head_wait`, so that errors keep their
    status; from then on comments, or events for who wants them, keep the connection alive until there is
    content. A failure after the head is one error event, without a finish reason and without `[DONE]`.
    """

    def __init__(
        self, door_context: DoorContext, plan: Plan, context: RequestContext, client: ClientChannel
    ) -> None:
        self._door_context = door_context
        self._plan = plan
        self._context = context
        self._client = client
        self._ticket: Ticket | None = None
        self._usage: Usage | None = None
        self._open: set[int] = set()
        self._passing = False
        self._writer: openai.ChunkWriter | None = None
        self._id, self._created = "", 0  # of the chunks that are sent while it waits, and of all after them
        self._comforter: asyncio.Task[None] | None = None

    async def run(self, send: Send) -> None:
        """Send the whole answer. Raises every failure; whether the head has gone out, `visit.began` tells."""
        answer = self._door_context.relay.answer(self._plan, self._context.receipt, self._queued)
        try:
            first = await self._wait_for_first(answer, send)
            if not self._context.began:
                await self._start(send)
            await self._send(first)
            while not answer.done:
                await answer.flow(self._client)
                await self._send(await answer.read())
        finally:
            if not answer.done:
                await answer.aclose()
        await self._end(send)

    async def fail(self, error: GatewayError, send: Send) -> None:
        """End a stream that has begun and cannot go on."""
        note_error(self._context.receipt, error)
        await responses.end_stream(send, sse.frame(responses.error_body(error)))

    def _queued(self, ticket: Ticket) -> None:
        self._ticket = ticket

    # --- until there is content --------------------------------------------------------------------

    async def _wait_for_first(self, answer: Answer, send: Send) -> list[Event]:
        # Hardly any stream needs comfort: a timer costs less than a task that waits for each of them.
        wait = self._door_context.settings.server.stream_head_wait
        timer = asyncio.get_running_loop().call_later(wait, self._begin_comfort, send)
        try:
            while not answer.done:
                events = await answer.read()
                if any(map(_shows, events)):
                    return events
        finally:
            timer.cancel()
            if self._comforter is not None:
                self._comforter.cancel()
                await asyncio.wait({self._comforter})
                self._comforter = None
        raise UpstreamTruncated("The backend's answer ended before it began.")

    def _begin_comfort(self, send: Send) -> None:
        self._comforter = self._door_context.background.start(
            self._comfort(send), "a waiting stream's comments"
        )

    async def _comfort(self, send: Send) -> None:
        await self._start(send)
        while True:
            told = self._news()
            if told:
                await self._client.push(told)
            await asyncio.sleep(self._door_context.settings.queue.keepalive)

    async def _start(self, send: Send) -> None:
        # Who counts is known only at the end: the usage chunk tells the counts themselves.
        lines = gateway_lines(self._context.receipt, counted=False)
        await responses.start_stream(send, pairs(lines))

    def _news(self) -> bytes:
        style = self._style()
        if style == "none":
            return b""
        if style == "chunks":
            door_context = self._door_context
            self._id = self._id or door_context.new_id("chatcmpl-")
            self._created = self._created or int(door_context.now())
            return waiting.chunk(self._id, self._created, self._plan.name)
        place = self._door_context.place(self._ticket) if self._ticket else None
        return waiting.event(place) if style == "events" else waiting.comment(place)

    def _style(self) -> config.KeepaliveStyle:
        """As the client says, else as the configuration does."""
        wish = self._context.headers.get(QUEUE_EVENTS, b"").strip().lower()
        style = self._door_context.settings.queue.style
        if wish == b"true":
            return "events"
        return "comments" if wish == b"false" and style == "events" else style

    # --- from then on ------------------------------------------------------------------------------

    def _send(self, events: list[Event]) -> Awaitable[None]:
        """Send what came together in one piece."""
        if len(events) == 1 and isinstance(event := events[0], Passed):
            self._passing = True
            return self._client.push(event.data)
        return self._client.push(b"".join([self._written(event) for event in events]))

    def _written(self, event: Event) -> bytes:
        if isinstance(event, Passed):
            self._passing = True
            return event.data
        if isinstance(event, Delta):
            if event.empty:
                return b""
            self._open.add(event.choice)
            return self._chunks.delta(self._door_context.identified(event))
        if isinstance(event, Finish):
            self._open.discard(event.choice)
            return self._chunks.finish(event.reason, event.choice)
        if isinstance(event, Usage):
            self._usage = event
        return b""

    @property
    def _chunks(self) -> openai.ChunkWriter:
        if self._writer is None:
            door_context, request = self._door_context, self._plan.request
            self._writer = openai.ChunkWriter(
                answer_id=self._id or door_context.new_id("chatcmpl-"),
                created=self._created or int(door_context.now()),
                model=self._context.receipt.answered or self._plan.name,
                include_usage=request.include_usage,
                legacy=request.legacy_functions,
            )
        return self._writer

    async def _end(self, send: Send) -> None:
        if self._open or self._usage is None:
            raise UpstreamTruncated("The backend's answer broke off.")
        told = self._passing or not self._plan.request.include_usage
        usage = b"" if told else self._chunks.usage(self._usage)
        await responses.end_stream(send, usage + sse.DONE)


def _shows(event: Event) -> bool:
    """Whether the client will see something of it, or the end."""
    return not (isinstance(event, Repair) or (isinstance(event, Delta) and event.empty))
