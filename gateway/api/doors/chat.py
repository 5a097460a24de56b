"""`POST /v1/chat/completions`: OpenAI's chat, streamed or whole."""

from __future__ import annotations

from functools import partial

from starlette.types import Receive, Scope, Send

from gateway.api.body import require_json
from gateway.api.browsers import require_json_of_browsers
from gateway.api.client_guard import ClientChannel
from gateway.api.door_context import DoorContext
from gateway.api.middleware import RequestContext
from gateway.api.stream import StreamSession
from gateway.api.whole import answer_whole
from gateway.formats import openai
from gateway.formats.openai.writer import ChatWriter
from gateway.path.call import Call
from gateway.path.routing import Plan
from gateway.tenancy.keys import Tenant

SESSION = b"x-session-affinity"
"""The header by which a client names the conversation; load generators and agents send it."""
LONGEST_SESSION = 256
"""How much of that name counts, in bytes."""


class ChatDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises every `GatewayError` that comes before the head of the response."""
        door_context = self._door_context
        client: ClientChannel = scope["presence"]
        context, tenant = door_context.admit(scope, "chat")
        require_json(context.headers)
        require_json_of_browsers(context.headers)
        raw = door_context.whole_body(context, client)
        if raw is not None and door_context.fits(context, raw):
            request, plan = self._plan(tenant, context, scope, raw)
        else:
            request, plan = await door_context.wait_read(
                scope, receive, raw, partial(self._plan, tenant, context, scope)
            )
            door_context.count(context, plan)
        del raw  # what is still needed of it, the plan has
        make_writer = partial(self._writer, request, plan, context)
        if request.stream:
            await StreamSession(door_context, plan, context, client, make_writer).serve(send)
            return
        with door_context.stay(client):
            await answer_whole(door_context, plan, context, client, make_writer)

    def _plan(
        self, tenant: Tenant, context: RequestContext, scope: Scope, raw: bytes
    ) -> tuple[openai.ChatRequest, Plan]:
        """Read the request and plan it; of large ones off the event loop.

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
        return request, self._door_context.relay.routing.plan(call, model)

    def _writer(self, request: openai.ChatRequest, plan: Plan, context: RequestContext) -> ChatWriter:
        door_context, receipt = self._door_context, context.receipt
        return ChatWriter(
            request,
            model=lambda: receipt.answered or plan.name,
            write_model=door_context.written,
            new_id=door_context.new_id,
            now=door_context.now,
        )
