"""A gateway over simulators, on real ports: in the test's own loop, or in a thread for blocking clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.config import Config, parse
from gateway.server import RunningPlanes, running
from gateway.simulator import Options, Simulator

UNPROBED = "\n[health]\nprobes = false\n"


@dataclass
class Stack:
    """Running simulators by name, and the gateway over them."""

    run: RunningPlanes
    simulators: dict[str, Simulator]
    settings: Config
    loop: asyncio.AbstractEventLoop = field(repr=False)

    @property
    def url(self) -> str:
        """The data plane."""
        return self.run.url

    @property
    def only(self) -> Simulator:
        """The one simulator."""
        (simulator,) = self.simulators.values()
        return simulator

    def in_flight(self) -> int:
        """Slots taken on all backends."""
        return sum(self.run.gateway.dispatcher.in_flight(name) for name in self.simulators)


def configured(
    urls: Mapping[str, tuple[str, str]], extra: str = "", *, serves: Mapping[str, str] = {}, **backend: Any
) -> Config:
    """Make a config: every backend (name -> url, dialect) serves the model `m`, or what `serves` says of it.

    `extra` is more TOML.
    """
    lines = ["[server]", 'listen = "127.0.0.1:0"', "[admin]", 'listen = "127.0.0.1:0"']
    for name, (url, dialect) in urls.items():
        lines += [
            "[[backends]]",
            f'name = "{name}"',
            f'url = "{url}"',
            f'dialect = "{dialect}"',
            f'models = ["{serves.get(name, "m")}"]',
        ]
        lines += [f"{key} = {_toml(value)}" for key, value in backend.items()]
    text = "\n".join(lines) + "\n" + extra
    return parse(text, file="test.toml", folder=Path(), environ={})


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextlib.asynccontextmanager
async def stack(
    options: Mapping[str, Options] | Options | str, extra: str = "", **backend: Any
) -> AsyncIterator[Stack]:
    """Start everything in the running loop; `options` may be one dialect's name.

    Backends are not probed unless `extra` has a `[health]`, so that simulators see the test's requests alone.
    """
    if isinstance(options, str):
        options = Options(dialect=options)
    many = {"gpu-0": options} if isinstance(options, Options) else dict(options)
    async with contextlib.AsyncExitStack() as exits:
        simulators = {
            name: await exits.enter_async_context(Simulator(option)) for name, option in many.items()
        }
        urls = {name: (simulator.url, many[name].dialect) for name, simulator in simulators.items()}
        settings = configured(urls, extra if "[health]" in extra else extra + UNPROBED, **backend)
        run = await exits.enter_async_context(running(settings))
        yield Stack(run, simulators, settings, asyncio.get_running_loop())


@contextlib.contextmanager
def threaded(
    options: Mapping[str, Options] | Options | str, extra: str = "", **backend: Any
) -> Iterator[Stack]:
    """Start everything in a thread with a loop of its own, for clients that block."""
    began = threading.Event()
    found: list[Stack | BaseException] = []
    ends: list[asyncio.Event] = []

    async def main() -> None:
        end = asyncio.Event()
        ends.append(end)
        async with stack(options, extra, **backend) as one:
            found.append(one)
            began.set()
            await end.wait()

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - handed to the test, which raises it
            found.append(error)
            began.set()

    thread = threading.Thread(target=work, name="stack")
    thread.start()
    assert began.wait(20), "the stack did not start"
    if isinstance(found[0], BaseException):
        raise found[0]
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(ends[0].set)
        thread.join(20)
        assert not thread.is_alive(), "the stack did not stop"
        for error in found[1:]:
            if isinstance(error, BaseException):
                raise error


@contextlib.asynccontextmanager
async def client(one: Stack, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the data plane."""
    async with httpx.AsyncClient(base_url=one.url, trust_env=False, timeout=30, **options) as http:
        yield http


async def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for something to become true; a generous bound against hangs."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what simulators and counters show has no event to wait for
            await asyncio.sleep(0.005)
