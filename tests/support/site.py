"""A gateway on a real port over servers at given addresses, up and down again in milliseconds.

Unlike `tests.support.stack` it starts no simulators and needs no server of uvicorn's, whose end takes half
a second: what the tests of faults want is the data plane, its metrics, and many of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn

from gateway.compose import Gateway, create_app
from gateway.config import Config
from gateway.http1 import ClientConnection, ConnectionAdmission
from gateway.telemetry.logs.events import configure
from tests.support.stack import configured, wait_until

_SAMPLE = re.compile(r"^(?P<name>\w+)(\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Site:
    """A gateway that takes requests at `port`. `log` is all it has written."""

    gateway: Gateway
    settings: Config
    log: io.StringIO = field(repr=False)
    port: int = 0

    @property
    def url(self) -> str:
        """The data plane."""
        return f"http://127.0.0.1:{self.port}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a family's series that have these labels; 0 where there is none."""
        return sum(value for found, value in self._samples(name) if labels.items() <= found.items())

    def _samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for sample in _SAMPLE.finditer(self.gateway.metrics.render()[0].decode()):
            if sample["name"] == name:
                yield dict(_LABEL.findall(sample["labels"] or "")), float(sample["value"])

    @property
    def in_flight(self) -> int:
        """Slots taken, as the metrics tell it."""
        return int(self.metric("gateway_backend_inflight"))

    @property
    def zombies(self) -> int:
        """Slots held for nobody, as the metrics tell it."""
        return int(self.metric("gateway_backend_zombies"))

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return int(self.metric("gateway_queue_depth"))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log's lines."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


async def _settled(site: Site) -> None:
    await wait_until(lambda: site.in_flight == site.zombies == site.waiting == 0, 20)


@contextlib.asynccontextmanager
async def site(
    backends: Mapping[str, tuple[str, str]],
    extra: str = "",
    *,
    head_wait: float | None = None,
    settle: bool = True,
    **backend: Any,
) -> AsyncIterator[Site]:
    """A gateway over these backends (name -> url, dialect), all of which serve the model `m`.

    `head_wait` is `server.stream_head_wait`. At its end no slot may be taken and nobody may wait; `settle`
    false: the test has left a card at work.
    """
    settings = configured(backends, extra, **backend)
    if head_wait is not None:
        changed = settings.server.model_copy(update={"stream_head_wait": head_wait})
        settings = settings.model_copy(update={"server": changed})
    async with opened(settings) as here:
        yield here
        if settle:
            await _settled(here)


@contextlib.asynccontextmanager
async def opened(settings: Config) -> AsyncIterator[Site]:
    """A gateway with these settings."""
    log = io.StringIO()
    gateway = create_app(settings, configure("json", "debug", log))
    here = Site(gateway, settings, log)
    admission = ConnectionAdmission(
        settings.server, gateway.metrics.client_refused, gateway.browsers.early_lines
    )
    wire = uvicorn.Config(
        gateway.data, http=ClientConnection, ws="none", lifespan="off", interface="asgi3", log_config=None,
        access_log=False, proxy_headers=False, server_header=False,
    )  # fmt: skip
    wire.load()
    link = partial(ClientConnection, wire, admission, {})
    server = await asyncio.get_running_loop().create_server(link, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for connection in tuple(admission.connections):
            connection.transport.abort()
        await asyncio.gather(*admission.tasks, return_exceptions=True)
        await gateway.aclose()
