"""`POST /`: ChatGLM-6B's own protocol, to any model, for clients that know nothing else.

Answers exactly what `api.py` answers; errors have true status codes and a JSON body.
"""

from __future__ import annotations

import time
from functools import partial

from starlette.types import Receive, Scope, Send

from gateway.api.browsers import require_json_of_browsers
from gateway.api.client_guard import ClientChannel
from gateway.api.door_context import DoorContext
from gateway.api.middleware import RequestContext
from gateway.errors import GatewayError
from gateway.formats import native, openai
from gateway.formats.events import Delta
from gateway.path.routing import Call, Plan
from gateway.scheduling.slot_request import Ticket
from gateway.tenancy.keys import Tenant


class NativeDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Serve one request."""
        door_context = self._door_context
        scope["visit"].error_body = error_body
        client: ClientChannel = scope["presence"]
        keys = door_context.settings.server.native_auth == "keys"
        context, tenant = door_context.admit(scope, "native", keys=keys)
        require_json_of_browsers(context.headers)
        raw = door_context.whole_body(context, client)
        if raw is not None and door_context.fits(context, raw):
            asked, plan = self._understood(tenant, context, raw)
        else:
            understood = partial(self._understood, tenant, context)
            asked, plan = await door_context.wait_read(scope, receive, raw, understood)
            door_context.count(context, plan)
        del raw  # what is still needed of it, the plan has
        with door_context.stay(scope):
            text = await self._text(plan, context)
            body = native.write_answer(
                asked, text, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(door_context.now()))
            )
            await context.answer(client, body)

    def _understood(
        self, tenant: Tenant, context: RequestContext, raw: bytes
    ) -> tuple[native.NativeRequest, Plan]:
        """Read the request and plan it. Large ones do so beside the event loop."""
        asked = native.read_request(raw)
        model = self._door_context.model(self._model_name(), tenant, context)
        whole, lean = (openai.chat_of_pairs(asked, model.name, empty_halves=empty) for empty in (True, False))
        return asked, self._door_context.relay.routing.plan(Call(whole, tenant, lean), model)

    async def _text(self, plan: Plan, context: RequestContext) -> str:
        answer = self._door_context.relay.answer(plan, context.receipt, _nobody_told)
        deltas: list[Delta] = []
        try:
            while not answer.done:
                deltas += [event for event in await answer.read() if isinstance(event, Delta)]
        finally:
            if not answer.done:
                await answer.aclose()
        text = "".join([delta.text for delta in deltas]).strip()
        return text or "".join(map(_reasoning, deltas)).strip()

    def _model_name(self) -> str:
        settings = self._door_context.settings
        return settings.server.default_model or settings.resolved_models[0].name


def _reasoning(delta: Delta) -> str:
    """What a model said that has only thought: it is all there is."""
    text = delta.extras.get("reasoning_content")
    return text if isinstance(text, str) else ""


def error_body(error: GatewayError) -> bytes:
    """The error as native clients read it."""
    return native.write_error(error.message, error.row.status)


def _nobody_told(_: Ticket) -> None:
    """Native clients cannot be told that they wait."""
