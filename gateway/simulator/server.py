"""Runs a simulated server: inside the running loop for tests, or as a program of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.server import ServerState

from gateway.simulator.app import App
from gateway.simulator.brain import Brain, CannedBrain, EchoBrain
from gateway.simulator.connection import SimulatorConnection
from gateway.simulator.dialects import find_program
from gateway.simulator.faults import FaultSpec, SimulatedFaults
from gateway.simulator.llama import LlamaBrain
from gateway.simulator.options import Options
from gateway.simulator.pacing import PacedSpeaker
from gateway.simulator.recorder import Recorder, RequestRecord


class Simulator:
    """One simulated server on a real port, for the length of an `async with`.

    It lives in the running loop and is not to be shared between loops. Leaving the block drops every
    connection, ends every generation, and leaves nothing behind. ValueError for an unknown dialect, variant
    or brain; `gateway.simulator.llama.ModelMissingError` where the `llama` brain lacks its package or file.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._recorder = Recorder(self.options.history)
        self._faults = SimulatedFaults(self.options.faults)
        program = find_program(self.options.dialect, self.options.variant)
        voice = PacedSpeaker(make_brain(self.options), self.options)
        app = App(program(voice), self._recorder, self._faults, self.options)
        self._config = uvicorn.Config(
            app,
            http=SimulatorConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._state = ServerState()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._config.load()
        link = partial(SimulatorConnection, config=self._config, server_state=self._state, app_state={})
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(link, self.options.host, self.options.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        listener, self._listener = self._listening(), None
        listener.close()
        links = [link for link in self._state.connections if isinstance(link, SimulatorConnection)]
        for link in links:
            link.abort()
        for link in links:
            await link.wait_gone()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listening().sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{self.options.host}:{self.port}"

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests so far, oldest first; at most `options.history` of them."""
        return list(self._recorder.requests)

    @property
    def in_flight(self) -> int:
        """Requests that have come and whose generation has not ended; see `Recorder`."""
        return self._recorder.in_flight

    @property
    def max_in_flight(self) -> int:
        """The most there were at once."""
        return self._recorder.max_in_flight

    @property
    def started(self) -> int:
        """Requests for a generation so far."""
        return self._recorder.started

    @property
    def completed(self) -> int:
        """Those answered whole, with the client still there."""
        return self._recorder.completed

    def inject(self, *faults: FaultSpec) -> None:
        """Play these faults next, in this order."""
        self._faults.extend(faults)

    def reset(self) -> None:
        """Forget the requests, the counts and the faults still to come."""
        self._recorder.reset()
        self._faults.clear()

    def _listening(self) -> asyncio.Server:
        if self._listener is None:
            raise RuntimeError("the simulator is not running; use it in `async with`")
        return self._listener

    def __repr__(self) -> str:
        where = self.url if self._listener is not None else "stopped"
        return f"<Simulator {self.options.dialect} {where} in_flight={self.in_flight}>"


def make_brain(options: Options) -> Brain:
    """The brain that the options ask for."""
    if options.brain == "echo":
        return EchoBrain(options.piece_size)
    if options.brain == "canned":
        return CannedBrain(options.piece_size)
    if options.brain == "llama":
        return LlamaBrain(options.model, options.piece_size)
    raise ValueError(f"unknown brain {options.brain!r}; one of canned, echo, llama")


def run(*options: Options, ready: Callable[[list[Simulator]], None] | None = None) -> None:
    """Run these servers until SIGINT or SIGTERM; `ready` is called once when all of them listen."""
    asyncio.run(_run(options, ready))


def on_signal(loop: asyncio.AbstractEventLoop, number: signal.Signals, act: Callable[[], None]) -> None:
    """Have a signal call `act` in the loop, also where the loop itself knows no signals (Windows)."""
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


async def _run(options: tuple[Options, ...], ready: Callable[[list[Simulator]], None] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        on_signal(loop, number, stop.set)
    async with AsyncExitStack() as stack:
        simulators = [await stack.enter_async_context(Simulator(choice)) for choice in options]
        if ready is not None:
            ready(simulators)
        await stop.wait()
