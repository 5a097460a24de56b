"""`GET /v1/models` and `/v1/models/{id}`: what may be asked for, by name and by alias."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import Receive, Scope, Send

from gateway.api import replies
from gateway.api.door import Desk
from gateway.errors import ModelNotFound
from gateway.wire import openai

_NONE: Mapping[str, str] = MappingProxyType({})


class ModelsDoor:
    """An ASGI endpoint for the list and for one entry. `created` is the gateway's start, epoch seconds."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._created = int(desk.now())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one request. A key sees the models it may use."""
        _, tenant = self._desk.admit(scope, "models")
        names = self._desk.settings.names
        seen = [name for name, model in names.items() if tenant.sees(model.name)]
        wanted = scope.get("path_params", _NONE).get("model")
        if wanted is None:
            body = openai.write_models(seen, self._created)
        elif wanted in seen:
            body = openai.write_model(wanted, self._created)
        else:
            raise ModelNotFound("There is no model of that name. GET /v1/models lists them.", param="model")
        await replies.send_whole(send, 200, body, replies.JSON)
