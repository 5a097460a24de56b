"""A backend's name: unknown, slow to look up, with a dead address among several, or moved."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checks import check_good, check_refused, limits, over, playing
from tests.support.fleet import Server
from tests.support.peer import Peer, peer
from tests.support.tapes import REPLY, Tape, tape
from tests.support.visitor import ask

NAME = "gpu.test"
OPENAI = Server("openai", "openai")
Resolver = Callable[[], list[str]]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Resolver], None]:
    """Let the name lead to what a function says; it runs where looking up runs."""
    real = socket.getaddrinfo

    def install(resolver: Resolver) -> None:
        def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            if host not in (NAME, NAME.encode()):
                return real(host, port, *rest, **more)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in resolver()
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr("gateway.upstream.resolver.FRESH", 0.0)  # else an answer serves for seconds

    return install


def named(here: Peer) -> str:
    """The address of a server by the name."""
    return f"http://{NAME}:{here.port}"


def closing(good: Tape) -> bytes:
    """A whole answer after which the connection is closed, so that the next request needs a new one."""
    return good.head(f"content-length: {len(good.body)}", "connection: close") + good.body


async def test_an_unknown_name_is_a_503(resolve: Callable[[Resolver], None]) -> None:
    def unknown() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    resolve(unknown)
    async with over(OPENAI, f"http://{NAME}:80") as gateway:
        check_refused(await ask(gateway), 503, "no_backend")


async def test_a_slow_resolver_stalls_nobody(resolve: Callable[[Resolver], None]) -> None:
    answered = threading.Event()

    def slow() -> list[str]:
        answered.wait(10)
        return ["127.0.0.1"]

    resolve(slow)
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)

    async with over(OPENAI, f"http://{NAME}:80", extra=limits(connect=0.1)) as gateway:
        ticking = asyncio.ensure_future(tick())
        answer = await ask(gateway)
        ticking.cancel()
        answered.set()
    check_refused(answer, 503, "no_backend")
    assert answer.seconds < 5
    assert max(gaps) < 2


async def test_a_dead_address_among_several_is_passed_over(resolve: Callable[[Resolver], None]) -> None:
    resolve(lambda: ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    good = await tape(OPENAI, stream=False)
    async with peer(playing(good.sized)) as here, over(OPENAI, named(here)) as gateway:
        answer = await ask(gateway)
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-attempts"] == "1"


async def test_a_name_is_looked_up_for_each_new_connection(resolve: Callable[[Resolver], None]) -> None:
    asked = [0]

    def count() -> list[str]:
        asked[0] += 1
        return ["127.0.0.1"]

    resolve(count)
    good = await tape(OPENAI, stream=False)
    async with peer(playing(closing(good), end="close")) as here, over(OPENAI, named(here)) as gateway:
        for _ in range(3):
            check_good(await ask(gateway), REPLY)
    assert asked[0] == 3


async def test_a_resolver_that_fails_takes_no_working_server_with_it(
    resolve: Callable[[Resolver], None],
) -> None:
    asked = [0]

    def once() -> list[str]:
        asked[0] += 1
        if asked[0] > 1:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return ["127.0.0.1"]

    resolve(once)
    good = await tape(OPENAI, stream=False)
    async with peer(playing(closing(good), end="close")) as here, over(OPENAI, named(here)) as gateway:
        for _ in range(3):
            check_good(await ask(gateway), REPLY)
    assert asked[0] == 3
