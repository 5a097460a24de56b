"""`POST /v1/chat/completions`: OpenAI's chat API, streamed or not."""

from __future__ import annotations

from functools import partial

from starlette.types import Receive, Scope, Send

from gateway.api.body import require_json
from gateway.api.browsers import require_json_of_browsers
from gateway.api.door_context import DoorContext
from gateway.api.request_context import RequestContext
from gateway.api.stream import StreamSession
from gateway.api.whole import answer_whole
from gateway.formats import openai
from gateway.formats.openai.writer import ChatWriter
from gateway.path.call import Call
from gateway.path.routing import Plan
from gateway.tenancy.keys import Tenant

SESSION = b"x-session-affinity"
"""Request header that names the conversation; requests of one conversation prefer the same backend."""
LONGEST_SESSION = 256
"""Bytes of that name that are used."""


class ChatDoor:
    """ASGI endpoint. One for the process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises every `GatewayError` from before the head of the response."""
        door_context = self._door_context
        context, tenant = door_context.admit(scope, "chat")
        require_json(context.headers)
        require_json_of_browsers(context.headers)
        raw = door_context.whole_body(context)
        if raw is not None and door_context.fits(context, raw):
            request, plan = self._plan(tenant, context, scope, raw)
        else:
            request, plan = await door_context.wait_read(
                scope, receive, raw, partial(self._plan, tenant, context, scope)
            )
            door_context.count(context, plan)
        del raw  # the plan has all that is still needed
        make_writer = partial(self._writer, request, plan, context)
        if request.stream:
            await StreamSession(door_context, plan, context, make_writer).serve(send)
            return
        with door_context.stay(context):
            await answer_whole(door_context, plan, context, make_writer)

    def _plan(
        self, tenant: Tenant, context: RequestContext, scope: Scope, raw: bytes
    ) -> tuple[openai.ChatRequest, Plan]:
        """Parse and plan a request. Runs in a thread for large bodies.

        A deployment named by the path (Azure's clients) replaces the model named by the body.
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
