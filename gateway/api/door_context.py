"""`DoorContext`: what every door needs: authentication, lookup of the model, reading of the body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from starlette.types import Receive, Scope

from gateway import config
from gateway.api.body import read_body, whole_body
from gateway.api.browsers import BrowserRules
from gateway.api.client_guard import ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.api.memory_budget import OWN, READING, MemoryBudget, weight
from gateway.api.middleware import Untried
from gateway.api.offload import Offload, light
from gateway.api.request_context import RequestContext, request_context
from gateway.background import Background
from gateway.errors import BadRequest, BodyTooLarge, Draining, ModelNotFound, Unauthorized
from gateway.formats import jsontext
from gateway.path.relay import Relay
from gateway.path.routing import Plan
from gateway.scheduling.slot_request import Ticket
from gateway.telemetry.receipt import LONGEST_ASKED, Door, Hook
from gateway.tenancy.failures import AuthFailures
from gateway.tenancy.keys import ANONYMOUS, Keyring, Tenant, credential

Read = TypeVar("Read")


def _address(scope: Scope) -> str:
    """Return the client's address; "" on a Unix socket."""
    peer = scope["client"]
    return peer[0] if peer else ""


@dataclass(slots=True)
class DoorContext:
    """What every door needs. One for the process, shared by all doors. Only `reconfigure` changes it.

    Attributes:
        keyring: None if no keys are required.
        now: the wall clock, in Unix seconds.
        new_id: returns a new id with the given prefix.
        place: returns a waiting ticket's position in the queue and its expected wait in seconds.
        max_body: the largest accepted body, in bytes.
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
        """Use other settings."""
        self.settings, self.keyring = settings, keyring
        self.max_body = min(settings.server.max_body, self.memory.largest)
        self.browsers.reconfigure(settings.server)
        self._written = {}

    def admit(self, scope: Scope, door: Door, *, keys: bool = True) -> tuple[RequestContext, Tenant]:
        """Authenticate a request from its headers; return its context and its tenant.

        With `keys` False the door needs no key, whatever the settings are. Raises `Unauthorized` and
        `Untried`; `HostNotAllowed` and `OriginNotAllowed` if no key is needed; `Draining` during a
        shutdown.
        """
        context = request_context(scope)
        receipt = context.receipt
        receipt.door = door
        tenant = ANONYMOUS
        if self.keyring is not None and keys:
            tenant = self._tenant(scope, context, self.keyring)
        else:
            self.browsers.require_ours(scope["method"], context.headers)
        receipt.tenant = tenant.name
        if self.lifecycle.draining:
            raise Draining("The gateway is shutting down. Ask again.", retry_after=1)
        return context, tenant

    def shows_backends(self, scope: Scope) -> bool:
        """Return True if a request may see names of backends: it has a valid key, or none is required."""
        context = request_context(scope)
        headers = context.headers
        if self.keyring is None:
            return self.browsers.answers(scope)
        if credential(scope["headers"], headers) is None:
            return False
        try:
            self._tenant(scope, context, self.keyring)
        except (Unauthorized, Untried):
            return False
        return True

    def _tenant(self, scope: Scope, context: RequestContext, keyring: Keyring) -> Tenant:
        headers, remembered = context.headers, context.client.remembered
        before = remembered.get("known")
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
            remembered["known"] = known
        return known.tenant

    def whole_body(self, context: RequestContext) -> bytes | None:
        """Return the body if all of it has arrived, else None. Raises what `api.body.whole_body` raises."""
        return whole_body(context.headers, context.client, self.max_body)

    def fits(self, context: RequestContext, raw: bytes) -> bool:
        """Return True if a body can be parsed at once: it is light, and its memory could be taken."""
        size = len(raw)
        return light(raw) and self.memory.seize(context, OWN + READING * size)

    async def wait_read(
        self, scope: Scope, receive: Receive, raw: bytes | None, read: Callable[[bytes], Read]
    ) -> Read:
        """Return `read(body)`, waiting until there is memory for it. Heavy bodies are parsed in a thread.

        `raw` is the body, or None if it has to be received. Raises `NoMemory` and what `read_body` and `read`
        raise.
        """
        context = request_context(scope)
        memory = self.memory

        def take(size: int) -> Awaitable[None]:
            return memory.take(context, OWN + READING * size)

        with self.stay(context):
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
        """Count the translated bodies of a plan; `wait_read` has counted one of them."""
        sizes = {id(one): len(one.body) for one in plan.outgoing.values()}
        if len(sizes) > 1:
            self.memory.set(context, context.held + sum(sizes.values()) - min(sizes.values()))

    def stay(self, context: RequestContext) -> ClientGuard:
        """Return a context manager whose block is cancelled when the client leaves or the gateway ends."""
        return ClientGuard(context.client, self.lifecycle)

    def model(self, asked: str, tenant: Tenant, context: RequestContext) -> config.ModelSettings:
        """Return the model of a request. Raises `ModelNotFound`, `ModelNotAllowed` and `BadRequest`."""
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
        """Return the name of a configured model as JSON. Cached: there are only as many names as models."""
        written = self._written.get(name)
        if written is None:
            written = self._written[name] = jsontext.write(name)
        return written
