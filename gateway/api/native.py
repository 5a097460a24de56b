"""`POST /`: ChatGLM-6B's own protocol, to any model, for clients that know nothing else.

Answers exactly what `api.py` answers; errors have true status codes and a JSON body.
"""

from __future__ import annotations

import time
from functools import partial

from starlette.types import Receive, Scope, Send

from gateway.api.browsers import require_json_of_browsers
from gateway.api.door import Desk
from gateway.api.leaving import Presence
from gateway.api.middleware import Visit
from gateway.errors import GatewayError
from gateway.planning import Asking, Plan
from gateway.scheduling.claim import Ticket
from gateway.tenancy.keys import Tenant
from gateway.wire import native, openai
from gateway.wire.events import Delta


class NativeDoor:
    """An ASGI endpoint. One for the whole process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Serve one request."""
        desk = self._desk
        scope["visit"].error_body = error_body
        presence: Presence = scope["presence"]
        keys = desk.settings.server.native_auth == "keys"
        visit, tenant = desk.admit(scope, "native", keys=keys)
        require_json_of_browsers(visit.headers)
        raw = desk.whole_body(visit, presence)
        if raw is not None and desk.fits(visit, raw):
            asked, plan = self._understood(tenant, visit, raw)
        else:
            understood = partial(self._understood, tenant, visit)
            asked, plan = await desk.wait_read(scope, receive, raw, understood)
            desk.count(visit, plan)
        del raw  # what is still needed of it, the plan has
        with desk.stay(scope):
            text = await self._text(plan, visit)
            body = native.write_answer(
                asked, text, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(desk.now()))
            )
            await visit.answer(presence, body)

    def _understood(self, tenant: Tenant, visit: Visit, raw: bytes) -> tuple[native.NativeRequest, Plan]:
        """Read the request and plan it. Large ones do so beside the event loop."""
        asked = native.read_request(raw)
        model = self._desk.model(self._model_name(), tenant, visit)
        whole, lean = (openai.chat_of_pairs(asked, model.name, empty_halves=empty) for empty in (True, False))
        return asked, self._desk.relay.terms.plan(Asking(whole, tenant, lean), model)

    async def _text(self, plan: Plan, visit: Visit) -> str:
        answer = self._desk.relay.answer(plan, visit.receipt, _nobody_told)
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
        settings = self._desk.settings
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
