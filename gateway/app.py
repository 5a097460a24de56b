"""The composition root: builds every object once and joins them. Importing does nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from gateway import __version__, allowance, config
from gateway.admin.pages import MetricsPage, VersionPage
from gateway.api import routes
from gateway.api.browsers import BrowserRules, LocalPage
from gateway.api.chat import ChatDoor
from gateway.api.door import Desk
from gateway.api.health import Live, Ready, Sight, everybody
from gateway.api.ids import Ids
from gateway.api.life import Life
from gateway.api.memory import Memory
from gateway.api.middleware import Reception
from gateway.api.models import ModelsDoor
from gateway.api.native import NativeDoor
from gateway.api.offload import Offload
from gateway.config import Address
from gateway.dispatcher import Dispatcher
from gateway.relay import Relay
from gateway.scheduling.balancers import Balancer, balancer
from gateway.scheduling.health import Rules
from gateway.scheduling.scheduler import Fleet
from gateway.shadow import Shadow
from gateway.telemetry.logs import Logs
from gateway.telemetry.metrics import Metrics, Service
from gateway.telemetry.receipt import Hooks
from gateway.telemetry.writer import Loss
from gateway.tenancy.failures import Failures
from gateway.tenancy.keys import Keyring
from gateway.upstream.backend import Backend, limits, probe_path, profile
from gateway.upstream.background import Background
from gateway.upstream.discovery import Discovery
from gateway.upstream.prober import Check, Prober, trial_for
from gateway.upstream.transport import Transport
from gateway.upstream.ward import Ward


@dataclass(slots=True)
class Gateway:
    """Everything that was built. `data` and `admin` are the two planes' ASGI applications.

    `life` is told when the gateway is about to end: readiness goes, new requests are refused. `settings` are
    those of the file; everybody goes by them with the servers that DNS names in the place of services.
    """

    data: ASGIApp
    admin: ASGIApp
    dispatcher: Dispatcher
    background: Background
    offload: Offload
    metrics: Metrics
    fleet: dict[str, Backend]
    life: Life
    memory: Memory
    ward: Ward
    prober: Prober
    discovery: Discovery
    shadow: Shadow
    settings: config.Config
    _desk: Desk
    _admin_rules: BrowserRules
    _balancers: _Balancers
    _new_backend: Callable[[config.Backend], Backend]

    @property
    def browsers(self) -> BrowserRules:
        """What web pages may do on the data plane."""
        return self._desk.browsers

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
        self.ward.reconfigure({name: healths[name] for name in healths if name not in gone})
        self.ward.reconfigure(healths)
        server = settings.server
        self.memory.reconfigure(server.memory or self.memory.limit, server.memory_wait)
        self._desk.relay.reconfigure(settings, fleet)
        self.shadow.reconfigure(settings, fleet)
        self._desk.reconfigure(settings, keyring)
        self._admin_rules.reconfigure(settings.server)
        self.metrics.reconfigure([one.name for one in settings.resolved_models], _slots(settings))
        self.dispatcher.reconfigure(handed_out, length=queue.length, timeout=queue.timeout, size=queue.bytes)
        self.prober.reconfigure(fleet, checks, self.dispatcher, self.background)
        for backend in gone.values():
            self.background.start(backend.retire(), f"end of {backend.name}")

    def _kept(self, settings: config.Backend) -> Backend | None:
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
    memory = _memory(settings)
    hooks = Hooks(logs)
    written, settings = settings, config.expanded(settings, {})
    ward = _ward(settings, hooks)

    def new_backend(one: config.Backend) -> Backend:
        deserted = partial(ward.deserted, one.name)
        return Backend(one, clock=time.monotonic, transport=transport, deserted=deserted)

    fleet = {one.name: new_backend(one) for one in settings.backends}
    balancers = _Balancers()
    dispatcher = _dispatcher(settings, hooks, ward, balancers)
    metrics = _metrics(settings, dispatcher, lambda: discovery.services(), lambda: logs.lost, memory)
    discovery = Discovery(written, logs, metrics, time.time)
    metrics.configured(config.digest(written), time.time())
    hooks.add(metrics)
    prober = Prober(fleet, _checks(settings, fleet), ward, time.monotonic, metrics.probed, logs.crash)
    common = (background, time.monotonic, lambda *note: _note(logs, *note), random.random)
    relay = Relay(settings, fleet, dispatcher, *common)
    relay.stamp = lambda prefix: (new_id(prefix), int(time.time()))
    told = (logs, metrics)
    shadow = Shadow(
        settings,
        fleet,
        dispatcher,
        *common,
        observers=told,
        crash=logs.crash,
        beside=offload.run,
        room=memory,
    )
    relay.shadow, relay.crash = shadow.watch, logs.crash
    desk = Desk(
        settings=settings,
        relay=relay,
        background=background,
        offload=offload,
        keyring=_keyring(settings),
        hook=hooks,
        now=time.time,
        new_id=new_id,
        life=life,
        place=dispatcher.place,
        browsers=BrowserRules(settings.server, settings.server.address),
        failures=Failures(time.monotonic),
        memory=memory,
    )
    ready = partial(
        Ready, dispatcher.usable, lambda: life.leaving, discovery.services, lambda: _faults(relay.terms.fleet)
    )

    def reception(browsers: BrowserRules) -> Middleware:
        return Middleware(
            Reception,
            hook=hooks,
            crash_log=logs,
            clock=time.monotonic,
            new_id=new_id,
            life=life,
            browsers=browsers,
        )

    closed = BrowserRules(settings.server, settings.admin.address, pages=False)
    return Gateway(
        data=_data_plane(desk, ready(desk.shows_backends), reception(desk.browsers)),
        admin=_admin_plane(metrics, ready, closed, settings.admin.address, reception(closed)),
        dispatcher=dispatcher,
        background=background,
        offload=offload,
        metrics=metrics,
        fleet=fleet,
        life=life,
        memory=memory,
        ward=ward,
        prober=prober,
        shadow=shadow,
        discovery=discovery,
        settings=written,
        _desk=desk,
        _admin_rules=closed,
        _balancers=balancers,
        _new_backend=new_backend,
    )


def _faults(fleet: Mapping[str, Backend]) -> dict[str, str]:
    return {name: backend.fault for name, backend in fleet.items() if backend.fault}


def _data_plane(desk: Desk, ready: Ready, reception: Middleware) -> ASGIApp:
    doors = routes.data_routes(chat=ChatDoor(desk), native=NativeDoor(desk), models=ModelsDoor(desk))
    return routes.application([*doors, *routes.health_routes(live=Live(), ready=ready)], reception)


def _admin_plane(
    metrics: Metrics,
    ready: Callable[[Sight], Ready],
    rules: BrowserRules,
    address: Address,
    reception: Middleware,
) -> ASGIApp:
    page, version = MetricsPage(metrics), VersionPage(__version__)
    pages = routes.admin_routes(
        metrics=LocalPage(page, rules, address), version=LocalPage(version, rules, address)
    )
    sight = rules.answers if address.is_local else everybody
    return routes.application([*pages, *routes.health_routes(live=Live(), ready=ready(sight))], reception)


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


def _memory(settings: config.Config) -> Memory:
    server = settings.server
    return Memory(server.memory or allowance.for_requests(), server.memory_wait)


def _keyring(settings: config.Config) -> Keyring | None:
    return Keyring(settings.keys) if settings.auth_required else None


def _slots(settings: config.Config) -> dict[str, int]:
    return {backend.name: backend.slots for backend in settings.backends}


def _dispatcher(settings: config.Config, hooks: Hooks, ward: Ward, balancers: _Balancers) -> Dispatcher:
    return Dispatcher(
        _handed_out(settings, balancers),
        length=settings.queue.length,
        size=settings.queue.bytes,
        timeout=settings.queue.timeout,
        clock=time.monotonic,
        hook=hooks,
        ward=ward,
    )


def _handed_out(settings: config.Config, balancers: _Balancers) -> Fleet:
    return Fleet(
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


def _ward(settings: config.Config, hooks: Hooks) -> Ward:
    ward = Ward({}, clock=time.monotonic, chance=random.random, hook=hooks)
    ward.reconfigure(_healths(settings))
    return ward


def _healths(settings: config.Config) -> dict[str, tuple[int, Rules]]:
    return {one.name: (one.slots, _rules(settings.health_of(one))) for one in settings.backends}


def _rules(health: config.Health) -> Rules:
    interval = health.interval if health.probes else None
    return Rules(health.fall, health.rise, health.slow_start, interval)


def _checks(settings: config.Config, fleet: dict[str, Backend]) -> dict[str, Check]:
    """How each backend is looked after; a trial is for the first model it serves."""
    checks: dict[str, Check] = {}
    for backend in settings.backends:
        health, dialect = settings.health_of(backend), fleet[backend.name].dialect
        model = next(one for one in settings.resolved_models if backend.name in one.backends)
        checks[backend.name] = Check(
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
    services: Callable[[], Mapping[str, Service]],
    lost_lines: Callable[[], Mapping[Loss, int]],
    memory: Memory,
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


def _note(logs: Logs, backend: str, what: str) -> None:
    logs.note(NOTES.get(what, what), level="warning", backend=backend)
