"""The composition root: `create_app` builds every object and connects them. Importing it has no effect."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from gateway import __version__, config, memory_limits
from gateway.admin.pages import MetricsPage, VersionPage
from gateway.api import routes
from gateway.api.browsers import BrowserRules, LocalPage
from gateway.api.door_context import DoorContext
from gateway.api.doors.chat import ChatDoor
from gateway.api.doors.health import LivenessDoor, ReadinessDoor, Sight, everybody
from gateway.api.doors.models import ModelsDoor
from gateway.api.doors.native import NativeDoor
from gateway.api.ids import IdGenerator
from gateway.api.lifecycle import Lifecycle
from gateway.api.memory_budget import MemoryBudget
from gateway.api.middleware import RequestMiddleware
from gateway.api.offload import Offload
from gateway.background import Background
from gateway.config import Address
from gateway.discovery.dns import DnsDiscovery
from gateway.dispatch.dispatcher import Dispatcher
from gateway.parts import (
    BalancerSet,
    Commit,
    ConfigChange,
    Part,
    backend_table,
    backends_part,
    dispatcher_part,
    health_part,
    health_rules,
    keyring,
    probe_targets,
    slots,
)
from gateway.path.context import PathContext
from gateway.path.relay import Relay
from gateway.path.shadow import ShadowTraffic
from gateway.telemetry.logs.events import EventLog
from gateway.telemetry.logs.writer import Loss
from gateway.telemetry.metrics.exporter import Metrics, ServiceState
from gateway.telemetry.receipt import Hooks
from gateway.tenancy.failures import AuthFailures
from gateway.upstream.backend import Backend
from gateway.upstream.health_monitor import HealthMonitor
from gateway.upstream.prober import Prober
from gateway.upstream.transport import GatewayTransport


@dataclass(slots=True)
class Gateway:
    """All parts of one running gateway. `data` and `admin` are the ASGI applications of its two planes.

    Attributes:
        lifecycle: the stage of a shutdown.
        settings: the configuration as the file says it, with services that DNS resolves.
        fleet: the backends in use, by name.
    """

    data: ASGIApp
    admin: ASGIApp
    dispatcher: Dispatcher
    background: Background
    offload: Offload
    metrics: Metrics
    fleet: dict[str, Backend]
    lifecycle: Lifecycle
    memory: MemoryBudget
    health_monitor: HealthMonitor
    prober: Prober
    discovery: DnsDiscovery
    shadow: ShadowTraffic
    settings: config.Config
    _common: _Common
    _door_context: DoorContext
    _parts: tuple[Part, ...]
    _new_backend: Callable[[config.BackendSettings], Backend]

    @property
    def browsers(self) -> BrowserRules:
        """The rules for web pages on the data plane."""
        return self._door_context.browsers

    def start(self) -> None:
        """Start probing and discovery. Needs the running event loop; `aclose` ends both."""
        self.prober.start(self.dispatcher, self.background)
        self.discovery.start(self._rediscovered, self.dispatcher.at_work, self.background)

    def reconfigure(self, settings: config.Config) -> None:
        """Use another configuration, as a whole. Requests in flight end with the former one.

        A backend whose server and settings for asking it have not changed keeps its connections and health. A
        service that still has the same DNS name keeps the servers found for it. Raises `OSError` if a
        certificate cannot be read; nothing has changed then.
        """
        self._apply(config.expanded(settings, self.discovery.kept(settings)))
        self.settings = settings
        self.discovery.reconfigure(settings)
        self.metrics.configured(config.digest(settings), self._common.now())

    def _rediscovered(self) -> None:
        """Use the servers that DNS names now."""
        self._apply(config.expanded(self.settings, self.discovery.members))

    def _apply(self, settings: config.Config) -> None:
        """Prepare all parts for these settings, which have no service left; then commit all of them."""
        fleet = {one.name: self._kept(one) or self._new_backend(one) for one in settings.backends}
        gone = {name: one for name, one in self.fleet.items() if fleet.get(name) is not one}
        change = ConfigChange(settings, fleet, gone)
        commits = [prepare(change) for prepare in self._parts]
        self.fleet = fleet
        for commit in commits:
            commit()
        for backend in gone.values():
            self.background.start(backend.retire(), f"end of {backend.name}")

    def _kept(self, settings: config.BackendSettings) -> Backend | None:
        """Return the present backend of that name if it is the same server, asked in the same way."""
        backend = self.fleet.get(settings.name)
        return backend if backend is not None and backend.serves(settings) else None

    async def aclose(self) -> None:
        """End everything that still runs and close all connections to backends."""
        await self.shadow.aclose()  # first: ending a copy may leave background work for its backend
        await self.background.aclose()
        self.offload.close()
        self.dispatcher.aclose()
        for backend in self.fleet.values():
            await backend.aclose()


@dataclass(frozen=True, slots=True)
class _Common:
    """What many parts are built with: shared services, the clocks, and the source of chance.

    `clock` is monotonic, `now` is Unix time, both in seconds; `chance` returns a random number from 0 to 1.
    """

    logs: EventLog
    hooks: Hooks
    memory: MemoryBudget
    clock: Callable[[], float]
    now: Callable[[], float]
    chance: Callable[[], float]
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    new_id: IdGenerator = field(default_factory=IdGenerator)
    background: Background = field(default_factory=Background)
    offload: Offload = field(default_factory=Offload)

    def note(self, backend: str, what: str) -> None:
        """Log a note about a backend."""
        _note(self.logs, backend, what)

    def stamp(self, prefix: str) -> tuple[str, int]:
        """Return a new id with a prefix, and the Unix time."""
        return self.new_id(prefix), int(self.now())


def create_app(
    settings: config.Config,
    logs: EventLog,
    *,
    transport: GatewayTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    chance: Callable[[], float] = random.random,
) -> Gateway:
    """Build the gateway for one configuration.

    Args:
        settings: the checked configuration.
        logs: the log.
        transport: connects to backends; None for the real network.
        clock: a monotonic clock, in seconds.
        now: the wall clock, in Unix seconds.
        chance: returns a random number from 0 to 1.

    Raises `OSError` if a certificate cannot be read.
    """
    written, settings = settings, config.expanded(settings, {})
    common = _Common(logs, Hooks(logs), _memory(settings), clock, now, chance)
    health_monitor = HealthMonitor({}, clock=clock, chance=chance, hook=common.hooks)
    health_monitor.reconfigure(health_rules(settings))

    def new_backend(one: config.BackendSettings) -> Backend:
        deserted = partial(health_monitor.deserted, one.name)
        return Backend(one, clock=clock, transport=transport, deserted=deserted)

    fleet = {one.name: new_backend(one) for one in settings.backends}
    balancers = BalancerSet(chance)
    dispatcher = _dispatcher(common, settings, health_monitor, balancers)
    metrics = _metrics(settings, dispatcher, lambda: discovery.services(), lambda: logs.lost, common.memory)
    discovery = DnsDiscovery(written, logs, metrics, now)
    metrics.configured(config.digest(written), now())
    common.hooks.add(metrics)
    prober = Prober(fleet, probe_targets(settings, fleet), health_monitor, clock, metrics.probed, logs.crash)
    shadow = _shadow(common, settings, fleet, dispatcher, metrics)
    relay = _relay(common, settings, fleet, dispatcher, shadow)
    door_context = _door_context(common, settings, relay, dispatcher)
    admin_rules = BrowserRules(settings.server, settings.admin.address, pages=False)
    data, admin = _planes(common, settings, door_context, dispatcher, metrics, discovery, admin_rules)
    return Gateway(
        data=data,
        admin=admin,
        dispatcher=dispatcher,
        background=common.background,
        offload=common.offload,
        metrics=metrics,
        fleet=fleet,
        lifecycle=common.lifecycle,
        memory=common.memory,
        health_monitor=health_monitor,
        prober=prober,
        shadow=shadow,
        discovery=discovery,
        settings=written,
        _common=common,
        _door_context=door_context,
        _parts=(
            backends_part,
            health_part(health_monitor),
            _requests_part(common.memory, relay, shadow, door_context, admin_rules),
            _metrics_part(metrics),
            dispatcher_part(dispatcher, balancers),
            _prober_part(prober, dispatcher, common.background),
        ),
        _new_backend=new_backend,
    )


def _requests_part(
    memory: MemoryBudget,
    relay: Relay,
    shadow: ShadowTraffic,
    door_context: DoorContext,
    admin_rules: BrowserRules,
) -> Part:
    """Return the part of the memory budget, the relay, shadow traffic, the doors and the browser rules."""

    def prepare(change: ConfigChange) -> Commit:
        settings, server = change.settings, change.settings.server
        keys = keyring(settings)

        def commit() -> None:
            memory.reconfigure(server.memory or memory.limit, server.memory_wait)
            relay.reconfigure(settings, change.fleet)
            shadow.reconfigure(settings, change.fleet)
            door_context.reconfigure(settings, keys)
            admin_rules.reconfigure(server)

        return commit

    return prepare


def _metrics_part(metrics: Metrics) -> Part:
    def prepare(change: ConfigChange) -> Commit:
        models = [one.name for one in change.settings.resolved_models]
        return partial(metrics.reconfigure, models, slots(change.settings))

    return prepare


def _prober_part(prober: Prober, dispatcher: Dispatcher, background: Background) -> Part:
    def prepare(change: ConfigChange) -> Commit:
        targets = probe_targets(change.settings, change.fleet)
        return partial(prober.reconfigure, change.fleet, targets, dispatcher, background)

    return prepare


def _shadow(
    common: _Common,
    settings: config.Config,
    fleet: Mapping[str, Backend],
    dispatcher: Dispatcher,
    metrics: Metrics,
) -> ShadowTraffic:
    return ShadowTraffic(
        settings,
        fleet,
        dispatcher,
        common.background,
        common.clock,
        common.note,
        common.chance,
        observers=(common.logs, metrics),
        crash=common.logs.crash,
        beside=common.offload.run,
        room=common.memory,
    )


def _relay(
    common: _Common,
    settings: config.Config,
    fleet: Mapping[str, Backend],
    dispatcher: Dispatcher,
    shadow: ShadowTraffic,
) -> Relay:
    context = PathContext(
        settings,
        fleet,
        dispatcher,
        common.background,
        common.clock,
        common.note,
        common.chance,
        stamp=common.stamp,
        crash=common.logs.crash,
    )
    return Relay(context, shadow.watch)


def _door_context(
    common: _Common, settings: config.Config, relay: Relay, dispatcher: Dispatcher
) -> DoorContext:
    return DoorContext(
        settings=settings,
        relay=relay,
        background=common.background,
        offload=common.offload,
        keyring=keyring(settings),
        hook=common.hooks,
        now=common.now,
        new_id=common.new_id,
        lifecycle=common.lifecycle,
        place=dispatcher.place,
        browsers=BrowserRules(settings.server, settings.server.address),
        failures=AuthFailures(common.clock),
        memory=common.memory,
    )


def _planes(
    common: _Common,
    settings: config.Config,
    door_context: DoorContext,
    dispatcher: Dispatcher,
    metrics: Metrics,
    discovery: DnsDiscovery,
    admin_rules: BrowserRules,
) -> tuple[ASGIApp, ASGIApp]:
    """Return the applications of the data plane and of the admin plane."""
    relay = door_context.relay
    ready = partial(
        ReadinessDoor,
        dispatcher.usable,
        lambda: common.lifecycle.leaving,
        discovery.services,
        lambda: _faults(relay.routing.fleet),
    )

    def middleware(browsers: BrowserRules) -> Middleware:
        return Middleware(
            RequestMiddleware,
            hook=common.hooks,
            crash_log=common.logs,
            clock=common.clock,
            new_id=common.new_id,
            lifecycle=common.lifecycle,
            browsers=browsers,
        )

    data = _data_plane(door_context, ready(door_context.shows_backends), middleware(door_context.browsers))
    address = settings.admin.address
    return data, _admin_plane(metrics, ready, admin_rules, address, middleware(admin_rules))


def _faults(fleet: Mapping[str, Backend]) -> dict[str, str]:
    return {name: backend.fault for name, backend in fleet.items() if backend.fault}


def _data_plane(door_context: DoorContext, ready: ReadinessDoor, reception: Middleware) -> ASGIApp:
    doors = routes.data_routes(
        chat=ChatDoor(door_context), native=NativeDoor(door_context), models=ModelsDoor(door_context)
    )
    return routes.application([*doors, *routes.health_routes(live=LivenessDoor(), ready=ready)], reception)


def _admin_plane(
    metrics: Metrics,
    ready: Callable[[Sight], ReadinessDoor],
    rules: BrowserRules,
    address: Address,
    reception: Middleware,
) -> ASGIApp:
    page, version = MetricsPage(metrics), VersionPage(__version__)
    pages = routes.admin_routes(
        metrics=LocalPage(page, rules, address), version=LocalPage(version, rules, address)
    )
    sight = rules.answers if address.is_local else everybody
    return routes.application(
        [*pages, *routes.health_routes(live=LivenessDoor(), ready=ready(sight))], reception
    )


def _memory(settings: config.Config) -> MemoryBudget:
    server = settings.server
    return MemoryBudget(server.memory or memory_limits.for_requests(), server.memory_wait)


def _dispatcher(
    common: _Common, settings: config.Config, health_monitor: HealthMonitor, balancers: BalancerSet
) -> Dispatcher:
    made = balancers.made_for(settings)
    balancers.keep(made)
    return Dispatcher(
        backend_table(settings, made),
        length=settings.queue.length,
        size=settings.queue.bytes,
        timeout=settings.queue.timeout,
        clock=common.clock,
        hook=common.hooks,
        health_monitor=health_monitor,
    )


def _metrics(
    settings: config.Config,
    dispatcher: Dispatcher,
    services: Callable[[], Mapping[str, ServiceState]],
    lost_lines: Callable[[], Mapping[Loss, int]],
    memory: MemoryBudget,
) -> Metrics:
    return Metrics(
        models=[model.name for model in settings.resolved_models],
        backends=slots(settings),
        live=dispatcher,
        version=__version__,
        services=services,
        lost_lines=lost_lines,
        memory=memory,
    )


NOTES = {
    "role_history": "This server answers requests without a history and fails at every one with pairs in it: "
    'is it dialect "chatglm3-native"? ChatGLM3 and GLM-4 behind POST / take a history of roles.',
    "prompt_window": "This server cuts prompts as long as this one. If it keeps more, set prompt_window.",
}
"""The log messages for notes of dialects. Each note is logged once for each backend."""


def _note(logs: EventLog, backend: str, what: str) -> None:
    logs.note(NOTES.get(what, what), level="warning", backend=backend)
