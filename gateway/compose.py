"""The composition root: builds every object once and joins them. Importing does nothing."""

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
from gateway.path.context import PathContext
from gateway.path.relay import Relay
from gateway.path.shadow import ShadowTraffic
from gateway.scheduling.balancers import Balancer, balancer
from gateway.scheduling.health import HealthRules
from gateway.scheduling.scheduler import BackendTable
from gateway.telemetry.logs.events import EventLog
from gateway.telemetry.logs.writer import Loss
from gateway.telemetry.metrics.exporter import Metrics, ServiceState
from gateway.telemetry.receipt import Hooks
from gateway.tenancy.failures import AuthFailures
from gateway.tenancy.keys import Keyring
from gateway.upstream.backend import Backend, limits, probe_path, profile
from gateway.upstream.health_monitor import HealthMonitor
from gateway.upstream.prober import Prober, ProbeTarget, trial_for
from gateway.upstream.transport import GatewayTransport


@dataclass(slots=True)
class Gateway:
    """Everything that was built. `data` and `admin` are the two planes' ASGI applications.

    `lifecycle` is told when the gateway is about to end: readiness goes, new requests are refused.
    `settings` are those of the file; everybody goes by them with the servers that DNS names in the place of
    services.
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
    _door_context: DoorContext
    _admin_rules: BrowserRules
    _balancers: _Balancers
    _new_backend: Callable[[config.BackendSettings], Backend]

    @property
    def browsers(self) -> BrowserRules:
        """What web pages may do on the data plane."""
        return self._door_context.browsers

    def start(self) -> None:
        """Begin to look for and after the backends; needs the running event loop. Ends with `aclose`."""
        self.prober.start(self.dispatcher, self.background)
        self.discovery.start(self._rediscovered, self.dispatcher.at_work, self.background)

    def reconfigure(self, settings: config.Config) -> None:
        """Go by another configuration from now on, all of it at once; what is in flight ends as it began.

        A backend whose server and manner of asking are the same stays as it is, with its connections and
        health; so does what DNS has named for a service that asks for the same name. Raises `OSError` where
        a certificate cannot be read; nothing has changed then.
        """
        self._go_by(config.expanded(settings, self.discovery.kept(settings)))
        self.settings = settings
        self.discovery.reconfigure(settings)
        self.metrics.configured(config.digest(settings), time.time())

    def _rediscovered(self) -> None:
        """Go by the servers that DNS names now."""
        self._go_by(config.expanded(self.settings, self.discovery.members))

    def _go_by(self, settings: config.Config) -> None:
        """Have everybody go by these settings, in which no service is left."""
        fleet = {one.name: self._kept(one) or self._new_backend(one) for one in settings.backends}
        checks, healths, keyring = _checks(settings, fleet), _healths(settings), _keyring(settings)
        handed_out = _handed_out(settings, self._balancers)
        gone = {name: one for name, one in self.fleet.items() if fleet.get(name) is not one}
        for backend in gone.values():
            backend.retired = True
        for one in settings.backends:
            fleet[one.name].settings = one
        self.fleet, queue = fleet, settings.queue
        self.health_monitor.reconfigure({name: healths[name] for name in healths if name not in gone})
        self.health_monitor.reconfigure(healths)
        server = settings.server
        self.memory.reconfigure(server.memory or self.memory.limit, server.memory_wait)
        self._door_context.relay.reconfigure(settings, fleet)
        self.shadow.reconfigure(settings, fleet)
        self._door_context.reconfigure(settings, keyring)
        self._admin_rules.reconfigure(settings.server)
        self.metrics.reconfigure([one.name for one in settings.resolved_models], _slots(settings))
        self.dispatcher.reconfigure(handed_out, length=queue.length, timeout=queue.timeout, size=queue.bytes)
        self.prober.reconfigure(fleet, checks, self.dispatcher, self.background)
        for backend in gone.values():
            self.background.start(backend.retire(), f"end of {backend.name}")

    def _kept(self, settings: config.BackendSettings) -> Backend | None:
        """The backend of that name, if it is still the same."""
        backend = self.fleet.get(settings.name)
        return backend if backend is not None and backend.serves(settings) else None

    async def aclose(self) -> None:
        """End whatever still runs and close every connection to backends."""
        await self.shadow.aclose()  # before the rest: what ends here may leave cards at work
        await self.background.aclose()
        self.offload.close()
        self.dispatcher.aclose()
        for backend in self.fleet.values():
            await backend.aclose()


@dataclass(frozen=True, slots=True)
class _Common:
    """What many parts are built with."""

    logs: EventLog
    hooks: Hooks
    memory: MemoryBudget
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    new_id: IdGenerator = field(default_factory=IdGenerator)
    background: Background = field(default_factory=Background)
    offload: Offload = field(default_factory=Offload)

    def note(self, backend: str, what: str) -> None:
        """Log a note about a backend."""
        _note(self.logs, backend, what)

    def stamp(self, prefix: str) -> tuple[str, int]:
        """Return an id with a prefix, and the Unix time."""
        return self.new_id(prefix), int(time.time())


def create_app(
    settings: config.Config,
    logs: EventLog,
    *,
    transport: GatewayTransport | None = None,
) -> Gateway:
    """Build the gateway for one configuration. `transport` replaces the real one in tests."""
    written, settings = settings, config.expanded(settings, {})
    common = _Common(logs, Hooks(logs), _memory(settings))
    health_monitor = _health_monitor(settings, common.hooks)

    def new_backend(one: config.BackendSettings) -> Backend:
        deserted = partial(health_monitor.deserted, one.name)
        return Backend(one, clock=time.monotonic, transport=transport, deserted=deserted)

    fleet = {one.name: new_backend(one) for one in settings.backends}
    balancers = _Balancers()
    dispatcher = _dispatcher(settings, common.hooks, health_monitor, balancers)
    metrics = _metrics(settings, dispatcher, lambda: discovery.services(), lambda: logs.lost, common.memory)
    discovery = DnsDiscovery(written, logs, metrics, time.time)
    metrics.configured(config.digest(written), time.time())
    common.hooks.add(metrics)
    prober = Prober(
        fleet, _checks(settings, fleet), health_monitor, time.monotonic, metrics.probed, logs.crash
    )
    shadow = _shadow(common, settings, fleet, dispatcher, metrics)
    door_context = _door_context(
        common, settings, _relay(common, settings, fleet, dispatcher, shadow), dispatcher
    )
    closed = BrowserRules(settings.server, settings.admin.address, pages=False)
    data, admin = _planes(common, settings, door_context, dispatcher, metrics, discovery, closed)
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
        _door_context=door_context,
        _admin_rules=closed,
        _balancers=balancers,
        _new_backend=new_backend,
    )


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
        time.monotonic,
        common.note,
        random.random,
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
        time.monotonic,
        common.note,
        random.random,
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
        keyring=_keyring(settings),
        hook=common.hooks,
        now=time.time,
        new_id=common.new_id,
        lifecycle=common.lifecycle,
        place=dispatcher.place,
        browsers=BrowserRules(settings.server, settings.server.address),
        failures=AuthFailures(time.monotonic),
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
            clock=time.monotonic,
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


class _Balancers:
    """The balancers of all models. One that a model keeps over a reload remembers what it has learned."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, Balancer]] = {}

    def of(self, settings: config.Config) -> dict[str, Balancer]:
        """Those of a configuration, by model."""
        wanted = {model.name: model.balance for model in settings.resolved_models}
        for name, balance in wanted.items():
            if self._made.get(name, ("",))[0] != balance:
                self._made[name] = balance, balancer(balance, random.random)
        self._made = {name: self._made[name] for name in wanted}
        return {name: made for name, (_, made) in self._made.items()}


def _memory(settings: config.Config) -> MemoryBudget:
    server = settings.server
    return MemoryBudget(server.memory or memory_limits.for_requests(), server.memory_wait)


def _keyring(settings: config.Config) -> Keyring | None:
    return Keyring(settings.keys) if settings.auth_required else None


def _slots(settings: config.Config) -> dict[str, int]:
    return {backend.name: backend.slots for backend in settings.backends}


def _dispatcher(
    settings: config.Config, hooks: Hooks, health_monitor: HealthMonitor, balancers: _Balancers
) -> Dispatcher:
    return Dispatcher(
        _handed_out(settings, balancers),
        length=settings.queue.length,
        size=settings.queue.bytes,
        timeout=settings.queue.timeout,
        clock=time.monotonic,
        hook=hooks,
        health_monitor=health_monitor,
    )


def _handed_out(settings: config.Config, balancers: _Balancers) -> BackendTable:
    return BackendTable(
        slots=_slots(settings),
        models={model.name: model.backends for model in settings.resolved_models},
        weights={backend.name: backend.weight for backend in settings.backends},
        balancers=balancers.of(settings),
        kinds={
            (model.name, one.name): (one.dialect, profile(one, model))
            for model in settings.resolved_models
            for one in settings.backends_of(model)
        },
    )


def _health_monitor(settings: config.Config, hooks: Hooks) -> HealthMonitor:
    health_monitor = HealthMonitor({}, clock=time.monotonic, chance=random.random, hook=hooks)
    health_monitor.reconfigure(_healths(settings))
    return health_monitor


def _healths(settings: config.Config) -> dict[str, tuple[int, HealthRules]]:
    return {one.name: (one.slots, _rules(settings.health_of(one))) for one in settings.backends}


def _rules(health: config.HealthSettings) -> HealthRules:
    interval = health.interval if health.probes else None
    return HealthRules(health.fall, health.rise, health.slow_start, interval)


def _checks(settings: config.Config, fleet: dict[str, Backend]) -> dict[str, ProbeTarget]:
    """How each backend is looked after; a trial is for the first model it serves."""
    checks: dict[str, ProbeTarget] = {}
    for backend in settings.backends:
        health, dialect = settings.health_of(backend), fleet[backend.name].dialect
        model = next(one for one in settings.resolved_models if backend.name in one.backends)
        checks[backend.name] = ProbeTarget(
            path=probe_path(backend),
            timeout=health.timeout,
            trial=trial_for(dialect, fleet[backend.name].profile(model)),
            limits=limits(settings.timeouts_for(model, backend)),
            probed=health.probes,
        )
    return checks


def _metrics(
    settings: config.Config,
    dispatcher: Dispatcher,
    services: Callable[[], Mapping[str, ServiceState]],
    lost_lines: Callable[[], Mapping[Loss, int]],
    memory: MemoryBudget,
) -> Metrics:
    return Metrics(
        models=[model.name for model in settings.resolved_models],
        backends=_slots(settings),
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
"""What the log says of the notes that dialects make, once a backend."""


def _note(logs: EventLog, backend: str, what: str) -> None:
    logs.note(NOTES.get(what, what), level="warning", backend=backend)
