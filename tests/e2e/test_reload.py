"""A gateway in a process of its own, whose configuration and whose servers change under load: nobody notices.

GATEWAY_TEST_RELOAD_REQUESTS says how many requests there are (5000 is the full size).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.simulator import Options, Simulator
from tests.support.stack import wait_until

REQUESTS = int(os.environ.get("GATEWAY_TEST_RELOAD_REQUESTS", "500"))
CLIENTS = 12
ANSWER = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"
SPEED = 250.0
"""Characters a second: a stream lasts about a tenth of a second."""
SERVERS = {
    name: Options(dialect=dialect, reply=ANSWER, speed=SPEED)
    for name, dialect in {"a": "openai", "b": "glm4", "c": "chatglm2-openai"}.items()
}
MESSAGES = [{"role": "user", "content": "你好"}]


class House:
    """The servers by name, and a gateway over those that its file names."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.servers: dict[str, Simulator] = {}
        self.ports: dict[str, int] = {}
        self.reloads = 0
        self.url = self.admin = ""
        self.process: asyncio.subprocess.Process

    def write(self, names: str, *, extra: str = "", broken: str = "") -> None:
        """Make the file name these backends."""
        lines = ["[server]", 'listen = "127.0.0.1:0"', "[admin]", 'listen = "127.0.0.1:0"', extra, broken]
        for name in names:
            lines += [
                "[[backends]]",
                f'name = "{name}"',
                f'url = "http://127.0.0.1:{self.ports[name]}"',
                f'dialect = "{SERVERS[name].dialect}"',
                'models = ["m"]',
            ]
        self.file.write_text("\n".join(lines), encoding="utf-8")

    async def metrics(self) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            return (await http.get(f"{self.admin}/metrics")).text

    async def counted(self, result: str = ".*") -> int:
        """Reloads so far."""
        found = re.findall(rf'gateway_config_reloads_total{{result="{result}"}} (\S+)', await self.metrics())
        return int(sum(map(float, found)))

    async def reload(self, names: str, **changes: str) -> None:
        """Change the file, say so, and wait until that has been seen."""
        self.write(names, **changes)
        self.process.send_signal(signal.SIGHUP)
        self.reloads += 1
        async with asyncio.timeout(20):
            while await self.counted() < self.reloads:  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(0.01)

    async def start(self, name: str) -> None:
        """Start a server, on the port it had."""
        options = SERVERS[name]
        simulator = Simulator(
            Options(
                dialect=options.dialect,
                reply=options.reply,
                speed=options.speed,
                port=self.ports.get(name, 0),
            )
        )
        self.servers[name] = await simulator.__aenter__()
        self.ports[name] = simulator.port

    async def stop(self, name: str) -> None:
        """Stop a server that has nothing to do any more."""
        simulator = self.servers[name]
        quiet = 0
        async with asyncio.timeout(20):
            while quiet < 5:
                quiet = 0 if simulator.in_flight else quiet + 1
                await asyncio.sleep(0.01)
        await self.servers.pop(name).__aexit__(None, None, None)


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """Everything started, and ended with exit status 0."""
    one = House(folder / "config.toml")
    for name in SERVERS:
        await one.start(name)
    one.write("abc")
    log = (folder / "log").open("wb")
    one.process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(one.file), stdout=log
    )
    try:
        await wait_until(lambda: b"\n" in (folder / "log").read_bytes(), 20)
        first = json.loads((folder / "log").read_text().splitlines()[0])
        one.url, one.admin = first["data"], first["admin"]
        yield one
        one.process.terminate()
        async with asyncio.timeout(20):
            assert await one.process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        await one.process.wait()
        log.close()
        for server in one.servers.values():
            await server.__aexit__(None, None, None)


class Load:
    """Clients that ask one after the other, every second of them for a stream."""

    def __init__(self, url: str, requests: int) -> None:
        self.done = 0
        self.faults: list[str] = []
        self._url = url
        self._numbers = iter(range(requests))

    def has_done(self, requests: int) -> bool:
        """Whether so many requests are over."""
        return self.done >= requests

    async def run(self) -> None:
        """Ask everything."""
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(
            base_url=self._url, trust_env=False, timeout=30, limits=limits
        ) as self._http:
            await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        for number in self._numbers:
            try:
                fault = await (self._stream() if number % 2 else self._whole())
            except httpx.HTTPError as error:
                fault = repr(error)
            self.faults += [f"{number}: {fault}"] if fault else []
            self.done += 1

    async def _whole(self) -> str:
        answer = await self._http.post("/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
        if answer.status_code != 200:
            return answer.text
        said = answer.json()["choices"][0]["message"]["content"]
        return "" if said == ANSWER else f"said {said!r}"

    async def _stream(self) -> str:
        body = {"model": "m", "messages": MESSAGES, "stream": True}
        answer = await self._http.post("/v1/chat/completions", json=body)
        events = re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)
        if answer.status_code != 200 or not events or events[-1] != "[DONE]":
            return f"cut: {answer.text[-200:]}"
        choices = [json.loads(event)["choices"] for event in events[:-1]]
        said = "".join(one[0]["delta"].get("content") or "" for one in choices if one)
        return "" if said == ANSWER else f"said {said!r}"


def steps(one: House) -> list[Callable[[], Awaitable[None]]]:
    """Every server drained, restarted and taken back, between changes of other settings: 20 reloads."""
    changes: list[Callable[[], Awaitable[None]]] = []
    for name, rest in {"a": "bc", "b": "ac", "c": "ab"}.items():
        changes += [
            partial(one.reload, rest),
            partial(one.stop, name),
            lambda: one.reload("abc", broken="[[nonsense"),
            partial(one.start, name),
            lambda: one.reload("abc"),
            lambda: one.reload("abc", extra="[timeouts]\ntotal = 100\n[queue]\nlength = 300"),
            lambda: one.reload("cba", extra="[retries]\nattempts = 3"),
            lambda: one.reload("abc", extra='[[models]]\nname = "m"\nbalance = "session"\naliases = ["n"]'),
        ]
    changes += [lambda: one.reload("abc", extra="[health]\nprobes = false"), lambda: one.reload("abc")]
    return changes


@pytest.mark.timeout(max(60, REQUESTS // 10))
async def test_no_request_is_lost_over_20_reloads_and_a_restart_of_every_server(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        load = Load(one.url, REQUESTS)
        plan = steps(one)

        async def change() -> None:
            for number, step in enumerate(plan):
                due = REQUESTS * number // len(plan)
                await wait_until(partial(load.has_done, due), 600)
                await step()

        await asyncio.gather(load.run(), change())
        assert load.faults == []
        assert load.done == REQUESTS
        assert one.reloads == 20
        assert await one.counted("invalid") == 3
        assert await one.counted("ok") == 17
        assert all(server.started > 0 for server in one.servers.values())
