"""`POST /v1/chat/completions`: OpenAI's chat, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from starlette.types import Receive, Scope, Send

from gateway import config
from gateway.answer import Answer
from gateway.api import replies
from gateway.api.body import require_json
from gateway.api.browsers import require_json_of_browsers
from gateway.api.door import Desk
from gateway.api.leaving import Presence
from gateway.api.middleware import Visit, gateway_lines, note_error
from gateway.errors import ClientGone, GatewayError, InternalError, UpstreamTruncated, forget_trace
from gateway.planning import Asking, Plan
from gateway.scheduling.claim import Ticket
from gateway.telemetry.receipt import Receipt
from gateway.tenancy.keys import Tenant
from gateway.wire import news, openai, sse
from gateway.wire.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.wire.headers import pairs

SESSION = b"x-session-affinity"
"""The header by which a client names the conversation; load generators and agents send it."""
LONGEST_SESSION = 256
"""How much of that name counts, in bytes."""
QUEUE_EVENTS = b"x-gateway-queue-events"
"""The header by which a client asks for events instead of comments while it waits, or for comments."""


class ChatDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises every `GatewayError` that comes before the head of the answer."""
        desk = self._desk
        presence: Presence = scope["presence"]
        visit, tenant = desk.admit(scope, "chat")
        require_json(visit.headers)
        require_json_of_browsers(visit.headers)
        raw = desk.whole_body(visit, presence)
        if raw is not None and desk.fits(visit, raw):
            plan = self._understood(tenant, visit, scope, raw)
        else:
            plan = await desk.wait_read(scope, receive, raw, partial(self._understood, tenant, visit, scope))
            desk.count(visit, plan)
        del raw  # what is still needed of it, the plan has
        if not plan.request.stream:
            with desk.stay(scope):
                await _answer_whole(desk, plan, visit, presence)
            return
        streaming = _Streaming(desk, plan, visit, presence)
        try:
            with desk.stay(scope):
                await streaming.run(send)
        except GatewayError as error:
            if not visit.began or isinstance(error, ClientGone):
                raise
            await streaming.fail(error, send)
            forget_trace(error)
        except Exception:  # a bug of ours, which is logged outside; no stream may end as if it were complete
            if visit.began:
                await streaming.fail(InternalError("The gateway failed. Its log knows more."), send)
            raise

    def _understood(self, tenant: Tenant, visit: Visit, scope: Scope, raw: bytes) -> Plan:
        """Read the request and plan it. Large ones do so beside the event loop.

        A deployment that the path names, as with Azure, is the model whatever the body says.
        """
        request = openai.read_chat(raw)
        if "path_params" in scope and (deployment := scope["path_params"].get("deployment")):
            request = request.of(deployment)
        visit.receipt.stream = request.stream
        model = self._desk.model(request.model, tenant, visit)
        asking = Asking(request, tenant)
        if SESSION in visit.headers:
            asking.session = visit.headers[SESSION][:LONGEST_SESSION].decode("latin-1")
        return self._desk.relay.terms.plan(asking, model)


def _nobody_told(_: Ticket) -> None:
    """Whoever wants a whole answer cannot be told that it waits."""


async def _answer_whole(desk: Desk, plan: Plan, visit: Visit, presence: Presence) -> None:
    """Read the answer and send it."""
    answer = desk.relay.answer(plan, visit.receipt, _nobody_told)
    events: list[Event] = []
    try:
        while not answer.done:
            events += await answer.read()
    finally:
        if not answer.done:
            await answer.aclose()
    await visit.answer(presence, _whole(events, desk, plan, visit.receipt))


def _whole(events: list[Event], desk: Desk, plan: Plan, receipt: Receipt) -> bytes:
    """The body of a whole answer: bytes that pass, or choices put together from their pieces."""
    for event in events:
        if type(event) is Passed:
            return event.data
        if type(event) is not Repair:
            break
    written = openai.write_text(events)
    if written is None:
        choices, usage = _put_together(events, desk)
        written = openai.write_choices(choices, plan.request.legacy_functions), usage
    return openai.write_completion(
        answer_id=desk.new_id("chatcmpl-"),
        created=int(desk.now()),
        model=desk.written(receipt.answered or plan.name),
        choices=written[0],
        usage=written[1],
    )


def _put_together(events: list[Event], desk: Desk) -> tuple[dict[int, openai.Choice], Usage]:
    choices: dict[int, openai.Choice] = {}
    usage: Usage | None = None
    for event in events:
        if isinstance(event, Usage):
            usage = event
        elif isinstance(event, Delta):
            choices.setdefault(event.choice, openai.Choice()).add(desk.identified(event))
        elif isinstance(event, Finish):
            choices.setdefault(event.choice, openai.Choice()).finish = event.reason
    if usage is None or not choices or None in [choice.finish for choice in choices.values()]:
        raise UpstreamTruncated("The backend's answer broke off.")
    return choices, usage


class _Streaming:
    """One streamed answer.

    The head waits for the first content up to `server.stream_head_wait`, so that errors keep their
    status; from then on comments, or events for who wants them, keep the connection alive until there is
    content. A failure after the head is one error event, without a finish reason and without `[DONE]`.
    """

    def __init__(self, desk: Desk, plan: Plan, visit: Visit, presence: Presence) -> None:
        self._desk = desk
        self._plan = plan
        self._visit = visit
        self._presence = presence
        self._ticket: Ticket | None = None
        self._usage: Usage | None = None
        self._open: set[int] = set()
        self._passing = False
        self._writer: openai.ChunkWriter | None = None
        self._id, self._created = "", 0  # of the chunks that are sent while it waits, and of all after them
        self._comforter: asyncio.Task[None] | None = None

    async def run(self, send: Send) -> None:
        """Send the whole answer. Raises every failure; whether the head has gone out, `visit.began` tells."""
        answer = self._desk.relay.answer(self._plan, self._visit.receipt, self._queued)
        try:
            first = await self._wait_for_first(answer, send)
            if not self._visit.began:
                await self._start(send)
            await self._send(first)
            while not answer.done:
                await answer.flow(self._presence)
                await self._send(await answer.read())
        finally:
            if not answer.done:
                await answer.aclose()
        await self._end(send)

    async def fail(self, error: GatewayError, send: Send) -> None:
        """End a stream that has begun and cannot go on."""
        note_error(self._visit.receipt, error)
        await replies.end_stream(send, sse.frame(replies.error_body(error)))

    def _queued(self, ticket: Ticket) -> None:
        self._ticket = ticket

    # --- until there is content --------------------------------------------------------------------

    async def _wait_for_first(self, answer: Answer, send: Send) -> list[Event]:
        # Hardly any stream needs comfort: a timer costs less than a task that waits for each of them.
        wait = self._desk.settings.server.stream_head_wait
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
        self._comforter = self._desk.background.start(self._comfort(send), "a waiting stream's comments")

    async def _comfort(self, send: Send) -> None:
        await self._start(send)
        while True:
            told = self._news()
            if told:
                await self._presence.push(told)
            await asyncio.sleep(self._desk.settings.queue.keepalive)

    async def _start(self, send: Send) -> None:
        # Who counts is known only at the end: the usage chunk tells the counts themselves.
        lines = gateway_lines(self._visit.receipt, counted=False)
        await replies.start_stream(send, pairs(lines))

    def _news(self) -> bytes:
        style = self._style()
        if style == "none":
            return b""
        if style == "chunks":
            desk = self._desk
            self._id = self._id or desk.new_id("chatcmpl-")
            self._created = self._created or int(desk.now())
            return news.chunk(self._id, self._created, self._plan.name)
        place = self._desk.place(self._ticket) if self._ticket else None
        return news.event(place) if style == "events" else news.comment(place)

    def _style(self) -> config.KeepaliveStyle:
        """As the client says, else as the configuration does."""
        wish = self._visit.headers.get(QUEUE_EVENTS, b"").strip().lower()
        style = self._desk.settings.queue.style
        if wish == b"true":
            return "events"
        return "comments" if wish == b"false" and style == "events" else style

    # --- from then on ------------------------------------------------------------------------------

    def _send(self, events: list[Event]) -> Awaitable[None]:
        """Send what came together in one piece."""
        if len(events) == 1 and isinstance(event := events[0], Passed):
            self._passing = True
            return self._presence.push(event.data)
        return self._presence.push(b"".join([self._written(event) for event in events]))

    def _written(self, event: Event) -> bytes:
        if isinstance(event, Passed):
            self._passing = True
            return event.data
        if isinstance(event, Delta):
            if event.empty:
                return b""
            self._open.add(event.choice)
            return self._chunks.delta(self._desk.identified(event))
        if isinstance(event, Finish):
            self._open.discard(event.choice)
            return self._chunks.finish(event.reason, event.choice)
        if isinstance(event, Usage):
            self._usage = event
        return b""

    @property
    def _chunks(self) -> openai.ChunkWriter:
        if self._writer is None:
            desk, request = self._desk, self._plan.request
            self._writer = openai.ChunkWriter(
                answer_id=self._id or desk.new_id("chatcmpl-"),
                created=self._created or int(desk.now()),
                model=self._visit.receipt.answered or self._plan.name,
                include_usage=request.include_usage,
                legacy=request.legacy_functions,
            )
        return self._writer

    async def _end(self, send: Send) -> None:
        if self._open or self._usage is None:
            raise UpstreamTruncated("The backend's answer broke off.")
        told = self._passing or not self._plan.request.include_usage
        usage = b"" if told else self._chunks.usage(self._usage)
        await replies.end_stream(send, usage + sse.DONE)


def _shows(event: Event) -> bool:
    """Whether the client will see something of it, or the end."""
    return not (isinstance(event, Repair) or (isinstance(event, Delta) and event.empty))
