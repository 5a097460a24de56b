"""The composition root: builds every object once and joins them. Importing does nothing."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from gateway import __version__, config
from gateway.admin.pages import MetricsPage, VersionPage
from gateway.api import routes
from gateway.api.chat import ChatDoor
from gateway.api.door import Desk
from gateway.api.health import Live, Ready
from gateway.api.ids import Ids
from gateway.api.life import Life
from gateway.api.middleware import Reception
from gateway.api.models import ModelsDoor
from gateway.api.native import NativeDoor
from gateway.api.offload import Offload
from gateway.dispatcher import Dispatcher
from gateway.relay import Relay
from gateway.scheduling.balancers import balancer
from gateway.scheduling.scheduler import Fleet
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.receipt import Hooks
from gateway.tenancy.keys import Keyring
from gateway.upstream.backend import Backend
from gateway.upstream.background import Background
from gateway.upstream.transport import Transport


@dataclass(slots=True)
class Gateway:
    """Everything that was built. `data` and `admin` are the two planes' ASGI applications.

    `life` is told when the gateway is about to end: readiness goes, new requests are refused.
    """

    data: ASGIApp
    admin: ASGIApp
    dispatcher: Dispatcher
    background: Background
    offload: Offload
    metrics: Metrics
    fleet: dict[str, Backend]
    life: Life

    async def aclose(self) -> None:
        """End whatever still runs and close every connection to backends."""
        await self.background.aclose()
        self.offload.close()
        self.dispatcher.aclose()
        for backend in self.fleet.values():
            await backend.aclose()


def create_app(
    settings: config.Config,
    logs: Logs,
    *,
    transport: Transport | None = None,
) -> Gateway:
    """Build the gateway for one configuration. `transport` replaces the real one in tests."""
    life = Life()
    new_id = Ids()
    background = Background()
    offload = Offload()
    fleet = {
        backend.name: Backend(backend, clock=time.monotonic, transport=transport)
        for backend in settings.backends
    }
    hooks = Hooks(logs)
    dispatcher = _dispatcher(settings, hooks)
    metrics = _metrics(settings, dispatcher)
    hooks.add(metrics)
    relay = Relay(settings, fleet, dispatcher, background, time.monotonic, lambda *note: _note(logs, *note))
    desk = Desk(
        settings=settings,
        relay=relay,
        background=background,
        offload=offload,
        keyring=Keyring(settings.keys) if settings.auth_required else None,
        hook=hooks,
        now=_now,
        new_id=new_id,
        life=life,
        max_body=settings.server.max_body,
        place=dispatcher.place,
    )
    reception = Middleware(
        Reception,
        hook=hooks,
        crash_log=logs,
        clock=time.monotonic,
        new_id=new_id,
        life=life,
    )
    probes = routes.health_routes(live=Live(), ready=Ready(dispatcher.usable, lambda: life.draining))
    doors = routes.data_routes(chat=ChatDoor(desk), native=NativeDoor(desk), models=ModelsDoor(desk))
    pages = routes.admin_routes(metrics=MetricsPage(metrics), version=VersionPage(__version__))
    return Gateway(
        data=routes.application([*doors, *probes], reception),
        admin=routes.application([*pages, *probes], reception),
        dispatcher=dispatcher,
        background=background,
        offload=offload,
        metrics=metrics,
        fleet=fleet,
        life=life,
    )


def _dispatcher(settings: config.Config, hooks: Hooks) -> Dispatcher:
    return Dispatcher(
        _handed_out(settings),
        length=settings.queue.length,
        size=settings.queue.bytes,
        timeout=settings.queue.timeout,
        clock=time.monotonic,
        hook=hooks,
    )


def _handed_out(settings: config.Config) -> Fleet:
    return Fleet(
        slots={backend.name: backend.slots for backend in settings.backends},
        models={model.name: model.backends for model in settings.resolved_models},
        weights={backend.name: backend.weight for backend in settings.backends},
        balancers={model.name: balancer(model.balance, random.random) for model in settings.resolved_models},
    )


def _metrics(settings: config.Config, dispatcher: Dispatcher) -> Metrics:
    return Metrics(
        models=[model.name for model in settings.resolved_models],
        backends={backend.name: backend.slots for backend in settings.backends},
        live=dispatcher,
        version=__version__,
    )


NOTES = {
    "prompt_window": "This server cuts prompts as long as this one. If it keeps more, set prompt_window.",
}
"""What the log says of the notes that dialects make, once a backend."""


def _note(logs: Logs, backend: str, what: str) -> None:
    logs.note(NOTES.get(what, what), level="warning", backend=backend)


def _now() -> datetime:
    return datetime.now(UTC)
