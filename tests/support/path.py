"""The path of a request over fake servers, for the tests of `gateway/path`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.background import Background
from gateway.dispatch.dispatcher import Dispatcher
from gateway.errors import (
    GatewayError,
)
from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.path.call import Call
from gateway.path.context import PathContext
from gateway.path.relay import Relay
from gateway.path.routing import Plan
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.scheduling.scheduler import BackendTable
from gateway.telemetry.receipt import Hooks, Receipt
from gateway.upstream.backend import Backend
from gateway.upstream.health_monitor import HealthMonitor
from tests.support.opened import opened
from tests.support.servers import (
    Servers,
    failing,
    refusing,
)
from tests.support.stack import configured, wait_until

RULES = HealthRules(fall=100, rise=1, slow_start=0)
"""So patient that only a refused connection puts a backend out; a probe brings it back."""


class PathScene:
    """A relay over fake servers. `dialect` is one for all, or one for each."""

    def __init__(
        self, servers: Servers, dialect: str | dict[str, str] = "openai", extra: str = "", **backend: Any
    ) -> None:
        self.servers = servers
        self.settings = configured(servers.urls(dialect), extra, **backend)
        self.background = Background()
        self.notes: list[tuple[str, str]] = []
        self.receipt = Receipt("r-1", "chat", time.monotonic())
        self.fleet = {
            one.name: Backend(one, clock=time.monotonic, transport=servers.transport)
            for one in self.settings.backends
        }
        self.health_monitor = HealthMonitor(
            {one.name: BackendHealth(one.slots, RULES) for one in self.settings.backends},
            clock=time.monotonic,
            chance=lambda: 0.0,
            hook=Hooks(),
        )
        self.dispatcher = Dispatcher(
            BackendTable(
                {one.name: one.slots for one in self.settings.backends},
                {model.name: model.backends for model in self.settings.resolved_models},
            ),
            length=self.settings.queue.length,
            timeout=self.settings.queue.timeout,
            clock=time.monotonic,
            hook=Hooks(),
            health_monitor=self.health_monitor,
        )
        self.relay = Relay(self.path_context())

    def path_context(self, **other: Any) -> PathContext:
        """What the relay works with; `other` are more arguments of `PathContext`."""
        return PathContext(
            self.settings,
            self.fleet,
            self.dispatcher,
            self.background,
            time.monotonic,
            lambda *note: self.notes.append(note),
            lambda: 0.0,
            **other,
        )

    def plan(self, call: Call | None = None, **body: Any) -> Plan:
        """Plan a request for the model `m`; `body` is what it has besides a short question."""
        return self.relay.routing.plan(call or ask(**body), self.settings.names["m"])

    def events(self, **body: Any) -> AsyncGenerator[Event, None]:
        """The answer to a request, as it comes."""
        return self.events_of(self.plan(**body))

    async def events_of(self, plan: Plan) -> AsyncGenerator[Event, None]:
        """The answer to what was planned, as it comes."""
        answer = self.relay.answer(plan, self.receipt, lambda _: None)
        try:
            while not answer.done:
                for event in await answer.read():
                    yield event
        finally:
            await answer.aclose()

    async def answer(self, **body: Any) -> list[Event]:
        """The whole answer."""
        async with aclosing(self.events(**body)) as events:
            return [event async for event in events]

    async def failure(self, kind: type[GatewayError], **body: Any) -> tuple[list[Event], GatewayError]:
        """What came before the failure, and the failure."""
        came: list[Event] = []
        with pytest.raises(kind) as caught:
            await self._drain(came, **body)
        return came, caught.value

    async def _drain(self, came: list[Event], **body: Any) -> None:
        async with aclosing(self.events(**body)) as events:
            async for event in events:
                came.append(event)  # noqa: PERF401 - what came before an error is wanted too

    @property
    def busy(self) -> dict[str, int]:
        """Slots taken, by backend."""
        return {name: self.dispatcher.in_flight(name) for name in self.fleet}

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """The tries on the receipt."""
        return [(attempt.backend, attempt.outcome) for attempt in self.receipt.attempts]

    async def aclose(self) -> None:
        await self.background.aclose()
        self.dispatcher.aclose()
        for backend in self.fleet.values():
            await backend.aclose()


@asynccontextmanager
async def open_path(
    servers: Servers, dialect: str | dict[str, str] = "openai", extra: str = "", **backend: Any
) -> AsyncIterator[PathScene]:
    """A house that is tidied up, and that has no slot taken at the end."""
    house = PathScene(servers, dialect, extra, **backend)
    try:
        yield house
    finally:
        await house.aclose()
    assert set(house.busy.values()) == {0}


def ask(**body: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return Call(openai.read_chat(jsontext.write(body)))


def text(events: list[Event], choice: int = 0) -> str:
    said = [event for event in opened(events) if isinstance(event, Delta)]
    return "".join(event.text for event in said if event.choice == choice)


def reasons(events: list[Event]) -> dict[int, str]:
    return {event.choice: event.reason for event in opened(events) if isinstance(event, Finish)}


def usage(events: list[Event]) -> Usage:
    (found,) = [event for event in events if isinstance(event, Usage)]
    return found


NO_CONNECTION = failing(httpx.ConnectError)
RESET = failing(httpx.ReadError)
BROKEN = refusing(500)
NOBODY_WAITS = "[queue]\nlength = 0\n"


async def leave_when(scene: PathScene, condition: Callable[[], bool], **body: Any) -> None:
    """Ask, and leave as soon as the condition holds."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.answer(**body))
        await wait_until(condition)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
