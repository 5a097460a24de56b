"""What the doors to the relay share: who asks, for which model, and a first look at the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.types import Scope

from gateway import config
from gateway.api.browsers import BrowserRules
from gateway.api.leaving import Leaving
from gateway.api.life import Life
from gateway.api.middleware import Visit
from gateway.api.offload import Offload
from gateway.errors import BadRequest, Draining, ModelNotFound, Unauthorized
from gateway.relay import Relay
from gateway.scheduling.claim import Ticket
from gateway.telemetry.receipt import Door, Hook
from gateway.tenancy.failures import Failures
from gateway.tenancy.keys import ANONYMOUS, Headers, Keyring, Tenant
from gateway.upstream.background import Background
from gateway.wire import jsontext
from gateway.wire.events import Delta


@dataclass(slots=True)
class Desk:
    """Everything the doors work with. Only `reconfigure` changes it.

    `keyring` is None where keys are off; `now` is the wall clock, in Unix seconds; `new_id` makes an id
    with the given prefix; `place` tells a waiting ticket's position and expected wait in seconds.
    """

    settings: config.Config
    relay: Relay
    background: Background
    offload: Offload
    keyring: Keyring | None
    hook: Hook
    now: Callable[[], float]
    new_id: Callable[[str], str]
    life: Life
    place: Callable[[Ticket], tuple[int, float] | None]
    browsers: BrowserRules
    failures: Failures
    max_body: int = 0
    _written: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.max_body = self.settings.server.max_body

    def reconfigure(self, settings: config.Config, keyring: Keyring | None) -> None:
        """Receive by other settings from now on."""
        self.settings, self.keyring, self.max_body = settings, keyring, settings.server.max_body
        self.browsers.reconfigure(settings.server)
        self._written = {}

    def admit(self, scope: Scope, door: Door, *, keys: bool = True) -> tuple[Visit, Tenant]:
        """Open the door for whoever may come in, by the headers alone.

        Raises `Unauthorized`; `HostNotAllowed` and `OriginNotAllowed` where nobody needs a key; `Draining`
        when the gateway is about to end.
        """
        visit: Visit = scope["visit"]
        receipt = visit.receipt
        receipt.door = door
        tenant = ANONYMOUS
        if self.keyring is not None and keys:
            tenant = self._tenant(scope, visit.headers, self.keyring)
        else:
            self.browsers.require_ours(scope["method"], visit.headers)
        receipt.tenant = tenant.name
        if self.life.draining:
            raise Draining("The gateway is shutting down. Ask again.", retry_after=1)
        return visit, tenant

    def shows_backends(self, scope: Scope) -> bool:
        """Whether a request may see names of backends: it bears a key, or nobody needs one here."""
        headers = scope["visit"].headers
        if self.keyring is None:
            return self.browsers.answers(scope)
        try:
            self.keyring.known(scope["headers"], headers, self.now)
        except Unauthorized:
            return False
        return True

    def _tenant(self, scope: Scope, headers: Headers, keyring: Keyring) -> Tenant:
        memory: dict[str, Any] = scope["memory"]
        try:
            known = memory["known"] = keyring.known(scope["headers"], headers, self.now, memory.get("known"))
        except Unauthorized as error:
            self.hook.auth_failed(error.reason)
            if error.reason != "missing":
                client = scope["client"]
                error.delay = self.failures.delay(client[0] if client else "")
            raise
        return known.tenant

    def stay(self, scope: Scope) -> Leaving:
        """Serve as long as the client stays and the gateway lives; to be used with `with`."""
        return Leaving(scope["presence"], self.life)

    def model(self, asked: str, tenant: Tenant, visit: Visit) -> config.Model:
        """Find the model a request is for. Raises `ModelNotFound`, `ModelNotAllowed`, `BadRequest`."""
        name = asked or self.settings.server.default_model
        if not name:
            raise BadRequest("model is required.", param="model")
        model = self.settings.names.get(name)
        if model is None:
            raise ModelNotFound("There is no model of that name. GET /v1/models lists them.", param="model")
        if tenant.models is not None:
            tenant.require(model.name, name)
        visit.receipt.model = model.name
        return model

    def written(self, name: str) -> bytes:
        """A name that a model has, as JSON. There are no more of them than the configuration has."""
        written = self._written.get(name)
        if written is None:
            written = self._written[name] = jsontext.write(name)
        return written

    def identified(self, event: Delta) -> Delta:
        """Give tool calls an id whose backend gave them none."""
        if not event.tools:
            return event
        tools = tuple(
            replace(piece, id=self.new_id("call_")) if piece.name and not piece.id else piece
            for piece in event.tools
        )
        return event._replace(tools=tools)
