"""`GET /v1/models` and `GET /v1/models/{id}`: the models by name and by alias."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import Receive, Scope, Send

from gateway.api import responses
from gateway.api.door_context import DoorContext
from gateway.errors import ModelNotFound
from gateway.formats import openai

_NONE: Mapping[str, str] = MappingProxyType({})


class ModelsDoor:
    """ASGI endpoint for the list and for one model. One for the process."""

    def __init__(self, door_context: DoorContext) -> None:
        self._door_context = door_context
        self._created = int(door_context.now())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one request. The list has the models that the key may use."""
        _, tenant = self._door_context.admit(scope, "models")
        names = self._door_context.settings.names
        seen = [name for name, model in names.items() if tenant.sees(model.name)]
        wanted = scope.get("path_params", _NONE).get("model")
        if wanted is None:
            body = openai.write_models(seen, self._created)
        elif wanted in seen:
            body = openai.write_model(wanted, self._created)
        else:
            raise ModelNotFound("There is no model of that name. GET /v1/models lists them.", param="model")
        await responses.send_whole(send, 200, body, responses.JSON)
