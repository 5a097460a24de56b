"""What all doors work with: authentication, the model that is asked for, and reading of the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from gateway import config
from gateway.api.body import read_body, whole_body
from gateway.api.browsers import BrowserRules
from gateway.api.client_guard import ClientChannel, ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.api.memory_budget import OWN, READING, MemoryBudget, weight
from gateway.api.middleware import RequestContext, Untried
from gateway.api.offload import Offload, light
from gateway.background import Background
from gateway.errors import BadRequest, BodyTooLarge, Draining, ModelNotFound, Unauthorized
from gateway.formats import jsontext
from gateway.path.relay import Relay
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket
from gateway.telemetry.receipt import LONGEST_ASKED, Door, Hook
from gateway.tenancy.failures import AuthFailures
from gateway.tenancy.keys import ANONYMOUS, Headers, Keyring, Tenant, credential

Read = TypeVar("Read")


def _address(scope: Scope) -> str:
    """Where a request comes from; "" for a Unix socket."""
    peer = scope["client"]
    return peer[0] if peer else ""


@dataclass(slots=True)
class DoorContext:
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
    lifecycle: Lifecycle
    place: Callable[[Ticket], tuple[int, float] | None]
    browsers: BrowserRules
    failures: AuthFailures
    memory: MemoryBudget
    max_body: int = 0
    _written: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.max_body = min(self.settings.server.max_body, self.memory.largest)

    def reconfigure(self, settings: config.Config, keyring: Keyring | None) -> None:
        """Receive by other settings from now on."""
        self.settings, self.keyring = settings, keyring
        self.max_body = min(settings.server.max_body, self.memory.largest)
        self.browsers.reconfigure(settings.server)
        self._written = {}

    def admit(self, scope: Scope, door: Door, *, keys: bool = True) -> tuple[RequestContext, Tenant]:
        """Open the door for whoever may come in, by the headers alone.

        Raises `Unauthorized`, `Untried`; `HostNotAllowed` and `OriginNotAllowed` where nobody needs a key;
        `Draining` when the gateway is about to end.
        """
        context: RequestContext = scope["visit"]
        receipt = context.receipt
        receipt.door = door
        tenant = ANONYMOUS
        if self.keyring is not None and keys:
            tenant = self._tenant(scope, context.headers, self.keyring)
        else:
            self.browsers.require_ours(scope["method"], context.headers)
        receipt.tenant = tenant.name
        if self.lifecycle.draining:
            raise Draining("The gateway is shutting down. Ask again.", retry_after=1)
        return context, tenant

    def shows_backends(self, scope: Scope) -> bool:
        """Whether a request may see names of backends: it bears a key, or nobody needs one here."""
        headers = scope["visit"].headers
        if self.keyring is None:
            return self.browsers.answers(scope)
        if credential(scope["headers"], headers) is None:
            return False
        try:
            self._tenant(scope, headers, self.keyring)
        except (Unauthorized, Untried):
            return False
        return True

    def _tenant(self, scope: Scope, headers: Headers, keyring: Keyring) -> Tenant:
        memory: dict[str, Any] = scope["memory"]
        before = memory.get("known")
        try:
            known = keyring.known(scope["headers"], headers, self.now, before)
        except Unauthorized as error:
            self.hook.auth_failed(error.reason)
            if error.reason != "missing":
                error.delay = self.failures.delay(_address(scope))
            raise
        if known is not before:
            address, name = _address(scope), known.tenant.name
            wait = self.failures.trial(address, name)
            if wait:
                raise Untried(wait, partial(self.failures.trust, address, name))
            memory["known"] = known
        return known.tenant

    def whole_body(self, context: RequestContext, client: ClientChannel) -> bytes | None:
        """Give the whole body, if it has come already; None where it must be read. Raises as `whole_body`."""
        return whole_body(context.headers, client, self.max_body)

    def fits(self, context: RequestContext, raw: bytes) -> bool:
        """Whether a body can be read at once: it is light, and there is memory for it, which is taken."""
        size = len(raw)
        return light(raw) and self.memory.seize(context, OWN + READING * size)

    async def wait_read(
        self, scope: Scope, receive: Receive, raw: bytes | None, read: Callable[[bytes], Read]
    ) -> Read:
        """Do with a body, `raw` or what is received, what `read` does, as soon as there is memory for it.

        Heavy ones are read beside the loop. Raises `NoMemory`, and as `read_body` and `read`.
        """
        context: RequestContext = scope["visit"]
        memory = self.memory

        def take(size: int) -> Awaitable[None]:
            return memory.take(context, OWN + READING * size)

        with self.stay(scope["presence"]):
            if raw is None:
                raw = await read_body(context.headers, receive, self.max_body, take)
            await take(len(raw))
            if light(raw):
                return read(raw)
            need = OWN + len(raw) + await self.offload.run(weight, raw)
            if need > memory.limit:
                raise BodyTooLarge("The body holds more values than there is memory for. Send fewer of them.")
            await memory.take(context, need)
            return await self.offload.run(read, raw)

    def count(self, context: RequestContext, plan: Plan) -> None:
        """Count the bytes for backends of several kinds, of which one had been foreseen."""
        sizes = {id(one): len(one.body) for one in plan.outgoing.values()}
        if len(sizes) > 1:
            self.memory.set(context, context.held + sum(sizes.values()) - min(sizes.values()))

    def stay(self, client: ClientChannel) -> ClientGuard:
        """Guard a block: it is cancelled when the client leaves or the gateway ends. Use with `with`."""
        return ClientGuard(client, self.lifecycle)

    def model(self, asked: str, tenant: Tenant, context: RequestContext) -> config.ModelSettings:
        """Find the model a request is for. Raises `ModelNotFound`, `ModelNotAllowed`, `BadRequest`."""
        name = asked or self.settings.server.default_model
        if not name:
            raise BadRequest("model is required.", param="model")
        model = self.settings.names.get(name)
        if model is None:
            context.receipt.asked = name[:LONGEST_ASKED]
            raise ModelNotFound("There is no model of that name. GET /v1/models lists them.", param="model")
        if tenant.models is not None:
            context.receipt.asked = name[:LONGEST_ASKED]
            tenant.require(model.name, name)
        context.receipt.model = model.name
        return model

    def written(self, name: str) -> bytes:
        """A name that a model has, as JSON. There are no more of them than the configuration has."""
        written = self._written.get(name)
        if written is None:
            written = self._written[name] = jsontext.write(name)
        return written
