"""`POST /`: ChatGLM-6B's own API (`api.py`), in front of every model.

Responses have exactly the members that `api.py` sends. Errors have their own status codes and a JSON body,
which `api.py` does not have.
"""

from __future__ import annotations

import time
from functools import partial

from starlette.types import Receive, Scope, Send

from gateway.api.browsers import require_json_of_browsers
from gateway.api.door_context import DoorContext
from gateway.api.request_context import RequestContext, request_context
from gateway.api.whole import answer_whole
from gateway.errors import GatewayError
from gateway.formats import native, openai
from gateway.path.call import Call
from gateway.path.routing import Plan
from gateway.tenancy.keys import Tenant


class NativeDoor:
    """ASGI endpoint. One for the process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Serve one request. Raises every `GatewayError` from before the head of the response."""
        door_context = self._door_context
        request_context(scope).error_body = error_body
        keys = door_context.settings.server.native_auth == "keys"
        context, tenant = door_context.admit(scope, "native", keys=keys)
        require_json_of_browsers(context.headers)
        raw = door_context.whole_body(context)
        if raw is not None and door_context.fits(context, raw):
            request, plan = self._plan(tenant, context, raw)
        else:
            plan_it = partial(self._plan, tenant, context)
            request, plan = await door_context.wait_read(scope, receive, raw, plan_it)
            door_context.count(context, plan)
        del raw  # the plan has all that is still needed
        make_writer = partial(native.NativeWriter, request, self._date)
        with door_context.stay(context):
            await answer_whole(door_context, plan, context, make_writer)

    def _plan(self, tenant: Tenant, context: RequestContext, raw: bytes) -> tuple[native.NativeRequest, Plan]:
        """Parse and plan a request. Runs in a thread for large bodies."""
        request = native.read_request(raw)
        model = self._door_context.model(self._model_name(), tenant, context)
        whole, lean = (
            openai.chat_of_pairs(request, model.name, empty_halves=empty) for empty in (True, False)
        )
        return request, self._door_context.relay.routing.plan(Call(whole, tenant, lean), model)

    def _date(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._door_context.now()))

    def _model_name(self) -> str:
        settings = self._door_context.settings
        return settings.server.default_model or settings.resolved_models[0].name


def error_body(error: GatewayError) -> bytes:
    """Return the body of an error in the native API's format."""
    return native.write_error(error.message, error.row.status)
