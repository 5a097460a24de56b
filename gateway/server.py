"""Runs the two planes with uvicorn in one event loop, from the first socket to a clean end.

uvicorn's own handling of signals and its lifespan protocol are not used: the gateway begins and ends
both planes itself, so that readiness goes before the listeners do.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from gateway import __version__, config, descriptors, memory_limits
from gateway.api.lifecycle import Lifecycle
from gateway.compose import Gateway, create_app
from gateway.config.binding import obstacles
from gateway.descriptors import DescriptorLimits
from gateway.formats.headers import Lines
from gateway.http1 import ClientConnection, ConnectionAdmission
from gateway.http1.admission import no_lines
from gateway.listeners import BACKLOG, Listeners, accept_waiting, listening, require_keys, watch_clients
from gateway.reload import Reloader
from gateway.telemetry.logs.events import EventLog, Format, configure
from gateway.telemetry.logs.terminal import banner, in_colour, reachable
from gateway.telemetry.logs.writer import errors_aside, hold_standard_descriptors, writer_to
from gateway.telemetry.metrics.exporter import Metrics
from gateway.upstream.transport import GatewayTransport

LAST_ARRIVALS = 0.2
"""Seconds that who has just connected has to send a request, where somebody else listens already."""
LAST_WORDS = 5
"""Seconds that requests have, after the drain limit, to tell their clients that they end."""
MOMENT = 0.2
"""Seconds that a forced end leaves for the same."""
LAST_LINES = 1.0
"""Seconds that the log's reader has at the end to take what waits."""
TELL_AGAIN = 10.0
"""Seconds between two lines of the log that say that no descriptor is left."""
FIRST_LOOKS = 1.0
"""Seconds that the banner waits for the first probes of the backends."""
LAG_TICK = 0.5
"""Seconds between two looks at how late the event loop is."""
THRESHOLDS = (10_000, 20, 1_000)
"""Net allocations before a young collection, and how many of those before one of the next generation.

With 2,000 a translated request costs a fifth more, with 256 in flight two fifths: all that they hold is
looked at again and again. A young collection of 10,000 objects holds the loop for about a millisecond."""
CLEAN_UP = 5.0
"""Seconds between two looks whether memory can be given back."""


class _Plane(uvicorn.Server):
    """One listener. Ends when `should_exit` is set; `force_exit` ends it at once.

    `own`: its socket is this process's alone, so that who waits there would be lost with it.
    """

    def __init__(
        self, app: ASGIApp, drain: float, admission: ConnectionAdmission, backlog: int, *, own: bool = True
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ClientConnection,  # never "auto": its fallback parser lets smuggled requests pass
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="warning",  # its "started" and "finished" are told better by our own log
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=backlog,
            )
        )
        self.allow(drain)
        self.server_state = self.admission = admission
        self.up = asyncio.Event()
        self._own = own
        self.sockets: list[socket.socket] = []

    def allow(self, drain: float) -> None:
        """Let requests in flight have this many seconds at the end."""
        self.config.timeout_graceful_shutdown = math.ceil(drain) + LAST_WORDS

    def reconfigure(self, server: config.ServerSettings) -> None:
        """Keep other limits from now on."""
        self.admission.reconfigure(server)
        for sock in self.sockets:
            with contextlib.suppress(OSError):  # it listens no more
                watch_clients(sock, server)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and say so."""
        self.sockets = sockets or []
        await super().startup(sockets)
        self.up.set()

    def hang_up(self) -> None:
        """Close every connection as it is: from Python 3.12 on a server ends only when its last one has."""
        for connection in tuple(self.server_state.connections):
            transport: asyncio.Transport | None = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def stop_listening(self) -> None:
        """Accept what waits to be accepted, then nothing more. Open connections stay."""
        waiting = [sock.dup() for sock in self.sockets]
        for server in getattr(self, "servers", ()):
            server.close()
        await asyncio.sleep(0.01)  # an event loop may close the sockets themselves a little later
        link = partial(ClientConnection, self.config, self.server_state, self.lifespan.state)
        for sock in waiting:
            with sock:
                if self._own:
                    await accept_waiting(sock, link)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: also see to the clients' time limits."""
        with contextlib.suppress(MemoryError):  # the next sweep sees to it
            self.admission.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)


@dataclass(frozen=True, slots=True)
class RunningPlanes:
    """A gateway that takes requests. URLs have no slash at the end; `hurried`: its end is forced."""

    url: str
    admin_url: str
    gateway: Gateway
    planes: tuple[_Plane, _Plane]
    hurried: asyncio.Event
    limit: int | None = None

    @property
    def settings(self) -> config.Config:
        """The configuration in force."""
        return self.gateway.settings

    def reconfigure(self, settings: config.Config) -> None:
        """Go by another configuration; see `Gateway.reconfigure`. Addresses and the log stay as they are.

        Raises `OSError` too where everybody could use a socket that systemd has opened to others.
        """
        for sock in self.planes[0].sockets:
            require_keys(sock, settings)
        self.gateway.reconfigure(settings)
        self.planes[0].allow(settings.server.drain)
        for plane in self.planes:
            plane.reconfigure(settings.server)
        _confine(self.planes, descriptors.room(settings, self.limit))

    def end_now(self) -> None:
        """Do not wait for requests in flight any longer: tell them, and hang up a moment later."""
        self.hurried.set()
        self.gateway.lifecycle.end()
        for plane in self.planes:
            plane.force_exit = True
            asyncio.get_running_loop().call_later(MOMENT, plane.hang_up)


@contextlib.asynccontextmanager
async def running(
    settings: config.Config, *, logs: EventLog | None = None, transport: GatewayTransport | None = None
) -> AsyncIterator[RunningPlanes]:
    """Run the gateway for the length of an `async with`.

    Raises OSError when an address cannot be bound. At the end it goes on for `server.drain_delay` seconds
    without being ready, then requests in flight have `server.drain` seconds to finish.
    """
    with listening(settings.server, settings.admin.address) as listeners:
        data, admin = listeners.data, listeners.admin
        require_keys(data, settings)
        logs = logs or configure("json", "critical", writer_to(sys.stderr))
        gateway = create_app(settings, logs, transport=transport)
        limit = descriptors.raised(settings)
        room = descriptors.room(settings, limit)
        backlog = room.backlog if room is not None else BACKLOG
        own = not listeners.handed_over
        planes = (
            _Plane(
                gateway.data,
                settings.server.drain,
                _admission(settings, gateway, logs, gateway.browsers.early_lines),
                backlog,
                own=own,
            ),
            _Plane(gateway.admin, 1, _admission(settings, gateway, logs, no_lines), backlog, own=own),
        )
        _confine(planes, room)
        _tell_room(logs, settings, room)
        hurried = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            serving = [
                group.create_task(plane.serve(sockets=[sock]))
                for plane, sock in zip(planes, (data, admin), strict=True)
            ]
            lag = group.create_task(_watch_lag(gateway.metrics))
            rest = group.create_task(_clean_up(gateway))
            try:
                await asyncio.gather(*(plane.up.wait() for plane in planes))
                gateway.start()
                yield RunningPlanes(_url(data), _url(admin), gateway, planes, hurried, limit)
            finally:
                await _take_leave(gateway.lifecycle, gateway.settings.server.drain_delay, hurried)
                await _stop_listening(planes, listeners, hurried)
                gateway.lifecycle.drain()
                gateway.shadow.close()  # nobody waits for copies
                gateway.dispatcher.drain()  # who waits for a slot would hardly get one: others can serve them
                lag.cancel()
                rest.cancel()
                await _end(planes, serving, gateway.lifecycle, gateway.settings.server.drain)
                await gateway.aclose()


def _admission(
    settings: config.Config, gateway: Gateway, logs: EventLog, cors: Callable[[bytes | None], Lines]
) -> ConnectionAdmission:
    told = -math.inf

    def refused(reason: str) -> None:
        nonlocal told
        gateway.metrics.client_refused(reason)
        now = asyncio.get_running_loop().time()
        if reason == "out_of_descriptors" and now - told >= TELL_AGAIN:
            told = now
            logs.note("No file descriptor is left for more clients: raise the limit.", level="error")

    return ConnectionAdmission(settings.server, refused, cors)


def _confine(planes: tuple[_Plane, _Plane], room: DescriptorLimits | None) -> None:
    """Let clients not take the descriptors that backends and the other plane need."""
    for plane, most in zip(planes, (room.data, room.admin) if room else (math.inf, math.inf), strict=True):
        if room is None:
            plane.admission.confine(most)
        else:
            plane.admission.confine(most, room.turned_away)


def _tell_room(logs: EventLog, settings: config.Config, room: DescriptorLimits | None) -> None:
    most = settings.server.max_connections
    if room is not None and most > room.data:
        logs.note(
            "The limit of file descriptors is too low for server.max_connections: raise it (ulimit -n,"
            " LimitNOFILE) or lower the setting.",
            level="warning",
            limit=room.limit,
            wanted=descriptors.wanted(settings),
            max_connections=most,
            clients=room.data,
        )


async def _take_leave(lifecycle: Lifecycle, delay: float, hurried: asyncio.Event) -> None:
    """Say that the gateway is not ready, and serve on until those who send requests have heard."""
    lifecycle.take_leave()
    if delay:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await hurried.wait()


async def _stop_listening(
    planes: tuple[_Plane, _Plane], listeners: Listeners, hurried: asyncio.Event
) -> None:
    """Release both addresses: another gateway can have them while this one drains.

    Where somebody else listens already, who has come to this one is served, and idle connections are closed.
    """
    for plane in planes:
        await plane.stop_listening()
    if listeners.outlive and not hurried.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_ARRIVALS):
                await hurried.wait()
        for connection in tuple(planes[0].admission.connections):
            connection.shutdown()


async def _end(
    planes: tuple[_Plane, _Plane], serving: list[asyncio.Task[None]], lifecycle: Lifecycle, drain: float
) -> None:
    data, admin = planes
    data.should_exit = True
    await asyncio.wait({serving[0]}, timeout=drain)
    lifecycle.end()  # what has not finished is told so, and ends well-formed
    await asyncio.wait({serving[0]}, timeout=LAST_WORDS)
    data.hang_up()
    await asyncio.wait({serving[0]})
    # The admin plane last: who scrapes it over a connection of before goes on to while the data plane drains.
    admin.should_exit = True
    await asyncio.wait({serving[1]}, timeout=LAST_WORDS)
    admin.hang_up()
    await asyncio.wait({serving[1]})


async def _watch_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_TICK
        await asyncio.sleep(LAG_TICK)
        metrics.observe_lag(max(0.0, loop.time() - due))


async def _clean_up(gateway: Gateway) -> None:
    """Collect what is left of requests when none is served, and give the memory of bursts back."""
    most = 0
    while True:
        await asyncio.sleep(CLEAN_UP)
        used = gateway.memory.used
        most = max(most, used)
        if used < most // 2:
            most = used
            if not gateway.lifecycle.visitors:
                gc.collect()
            memory_limits.trim()


def serve(settings: config.Config, path: Path | None = None, given: config.Given | None = None) -> int:
    """Run until SIGTERM or SIGINT; give the exit status.

    It is 0 after a clean end, 1 after a forced one or where an address cannot be bound. `path` is the file
    that `settings` were loaded from; SIGHUP has it read again, with what is `given` over it. None: nothing.
    """
    # What has been loaded stays for good. Requests leave no reference cycles, so a full collection, which
    # would stop the loop for as long as the live objects need, can wait until nobody is served.
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    memory_limits.tune()
    hold_standard_descriptors()
    with errors_aside(LAST_LINES), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings, path, given or {}))


async def _serve(settings: config.Config, path: Path | None, given: config.Given) -> int:
    logs = logs_of(settings.log)
    stops: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        on_signal(loop, number, partial(stops.put_nowait, number.name))
    try:
        return await _serve_until(settings, path, logs, stops, given)
    except OSError as error:
        reasons = obstacles(settings, path, given) or [error.strerror or "unknown"]
        logs.note("An address cannot be bound.", level="critical", reason="; ".join(reasons))
        return 1
    finally:
        logs.flush(LAST_LINES)


async def _serve_until(
    settings: config.Config,
    path: Path | None,
    logs: EventLog,
    stops: asyncio.Queue[str],
    given: config.Given,
) -> int:
    async with contextlib.AsyncExitStack() as stack:
        run = await stack.enter_async_context(running(settings, logs=logs))
        reloader = Reloader(path, run, logs, run.gateway.metrics, given) if path is not None else None
        reloads = None if reloader is None else run.gateway.background.start(reloader.run(), "reloads")
        _on_hangups(stops, reloader)
        if for_people(settings.log):
            await _welcome(run, logs, path)
        else:
            logs.started(__version__, data=run.url, admin=run.admin_url, backends=len(settings.backends))
        reason = await stops.get()
        if reloads is not None:
            reloads.cancel()
        logs.stopped(reason)
        return await _close(stack, run, stops)


def for_people(log: config.LogSettings) -> bool:
    """Whether the log is for a terminal."""
    return log.format == "terminal" or (
        log.format == "auto" and sys.stdout is not None and sys.stdout.isatty()
    )


def logs_of(log: config.LogSettings) -> EventLog:
    """Begin to log to standard output, in the form that the configuration asks for."""
    form: Format = "console" if log.format == "console" else "terminal" if for_people(log) else "json"
    stdout = sys.stdout
    return configure(form, log.level, writer_to(stdout), access=log.access, colour=in_colour(stdout))


async def _welcome(run: RunningPlanes, logs: EventLog, path: Path | None) -> None:
    """Print the banner, once the first probes have told which backends are up, or `FIRST_LOOKS` later."""
    gateway = run.gateway
    await gateway.prober.wait_first_looks(FIRST_LOOKS)
    models = config.expanded(gateway.settings, gateway.discovery.members).resolved_models
    lines = banner(
        version=__version__,
        url=reachable(run.url),
        admin_url=reachable(run.admin_url),
        models={model.name: model.backends for model in models},
        usable=gateway.health_monitor.usable(),
        config=str(path or "none: made from the command line"),
    )
    logs.welcomed(lines)


def _on_hangups(stops: asyncio.Queue[str], reloader: Reloader | None) -> None:
    """Have SIGHUP read the file again, also one that came during the start (`cli.main.serve` holds it).

    It is also sent where a terminal is closed: then the gateway ends, as nobody could see it or press Ctrl-C.
    Without a file it always ends; under `nohup` it goes on.
    """
    number: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if number is None:
        return
    begun_on, held = _terminals(), signal.getsignal(number) is signal.SIG_IGN

    def act() -> None:
        if not held and (reloader is None or (begun_on and not _terminals())):
            stops.put_nowait("SIGHUP")
        elif reloader is not None:
            reloader.ask()

    on_signal(asyncio.get_running_loop(), number, act)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _terminals() -> list[int]:
    """Which of the standard streams are terminals that are there."""
    return [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]


def on_signal(loop: asyncio.AbstractEventLoop, number: signal.Signals, act: Callable[[], None]) -> None:
    """Have a signal call `act` in the loop, also where the loop itself knows no signals (Windows)."""
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


async def _close(stack: contextlib.AsyncExitStack, run: RunningPlanes, stops: asyncio.Queue[str]) -> int:
    async with asyncio.TaskGroup() as group:
        again = group.create_task(_end_now_on(stops, run))
        await stack.aclose()
        forced = again.done()
        again.cancel()
    return 1 if forced else 0


async def _end_now_on(stops: asyncio.Queue[str], run: RunningPlanes) -> None:
    await stops.get()
    run.end_now()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows, or another Python: asyncio's own loop serves as well
        return None
    return uvloop.Loop


def _url(bound: socket.socket) -> str:
    if bound.family == socket.AF_UNIX:
        return f"http+unix://{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"
