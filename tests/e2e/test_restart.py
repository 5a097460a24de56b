"""A gateway is replaced by the next one on the same addresses, and no client is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.simulator import Options, Simulator
from tests.support.stack import wait_until

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
CONFIG = """
[server]
listen = "{data}"
{extra}
[admin]
listen = "{admin}"
[[backends]]
name = "gpu-0"
url = "{url}"
dialect = "openai"
models = ["m"]
slots = 8
"""


@dataclass
class Program:
    """`gateway serve` as a process of its own."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def lines(self) -> list[dict[str, object]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def wait_started(self) -> None:
        """Wait until it serves."""
        await wait_until(lambda: '"start"' in self.log.read_text(), 30)

    async def wait_end(self) -> int:
        """Wait until it has ended; give its status."""
        async with asyncio.timeout(30):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def program(config: Path, name: str, handed: Sequence[socket.socket] = ()) -> AsyncIterator[Program]:
    """Start a gateway; with sockets handed over as systemd does it: from descriptor 3 on."""
    log = config.parent / name
    shell = f'LISTEN_PID=$$ LISTEN_FDS={len(handed)} exec "$@"' if handed else 'exec "$@"'

    def hand_over() -> None:
        copies = [os.dup(sock.fileno()) for sock in handed]
        for place, copy in enumerate(copies):
            os.dup2(copy, 3 + place)

    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", shell, "sh", sys.executable, "-m", "gateway", "serve", "--config", str(config),
            stdout=out, stderr=subprocess.STDOUT, preexec_fn=hand_over, close_fds=not handed,
        )  # fmt: skip
    try:
        yield Program(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


async def ask_always(url: str, enough: asyncio.Event, outcomes: Counter[object]) -> None:
    """Ask over a connection of its own each time, until it is enough."""
    while not enough.is_set():
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            try:
                answer = await http.post("/v1/chat/completions", json=BODY)
            except httpx.TransportError as error:
                outcomes[type(error)] += 1
            else:
                outcomes[answer.status_code] += 1


def written(folder: Path, url: str, ports: tuple[int, int], extra: str = "") -> Path:
    config = folder / "config.toml"
    data, admin = (f"127.0.0.1:{port}" for port in ports)
    config.write_text(CONFIG.format(data=data, admin=admin, url=url, extra=extra))
    return config


async def test_systemd_keeps_the_sockets_while_the_gateway_is_restarted(tmp_path: Path) -> None:
    outcomes: Counter[object] = Counter()
    enough = asyncio.Event()
    data, admin = (socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(2))
    url = f"http://127.0.0.1:{data.getsockname()[1]}"
    with data, admin:
        async with (
            Simulator(Options(dialect="openai", reply="hello")) as simulator,
            asyncio.TaskGroup() as group,
        ):
            config = written(tmp_path, simulator.url, (1, 2))  # addresses that it must not try to bind
            clients = [group.create_task(ask_always(url, enough, outcomes)) for _ in range(4)]
            for number in range(3):
                async with program(config, f"log-{number}", (data, admin)) as one:
                    await one.wait_started()
                    before = outcomes[200]
                    await wait_until(lambda before=before: outcomes[200] > before + 20, 30)
                    one.process.send_signal(signal.SIGTERM)
                    assert await one.wait_end() == 0
            async with program(config, "log-last", (data, admin)) as one:
                await one.wait_started()
                async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
                    answer = await http.get(f"http://127.0.0.1:{admin.getsockname()[1]}/livez")
                assert answer.status_code == 200
                enough.set()
                await asyncio.wait(clients)
    assert set(outcomes) == {200}, outcomes


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system has no such option")
async def test_the_next_gateway_listens_beside_the_old_one_with_reuse_port(tmp_path: Path) -> None:
    outcomes: Counter[object] = Counter()
    enough, ports = asyncio.Event(), free_ports()
    async with Simulator(Options(dialect="openai", reply="hello")) as simulator, asyncio.TaskGroup() as group:
        config = written(tmp_path, simulator.url, ports, "reuse_port = true")
        async with contextlib.AsyncExitStack() as stack:
            old = await stack.enter_async_context(program(config, "log-0"))
            await old.wait_started()
            url = f"http://127.0.0.1:{ports[0]}"
            clients = [group.create_task(ask_always(url, enough, outcomes)) for _ in range(4)]
            for number in range(1, 4):
                new = await stack.enter_async_context(program(config, f"log-{number}"))
                await new.wait_started()
                before = outcomes[200]
                await wait_until(lambda before=before: outcomes[200] > before + 20, 30)
                old.process.send_signal(signal.SIGTERM)
                assert await old.wait_end() == 0
                old = new
            enough.set()
            await asyncio.wait(clients)
    assert set(outcomes) == {200}, outcomes


async def test_without_either_the_next_one_can_have_the_addresses_while_the_old_one_drains(
    tmp_path: Path,
) -> None:
    ports = free_ports()
    long = Options(dialect="openai", speed=100, reply="word " * 80)
    async with Simulator(long) as simulator:
        config = written(tmp_path, simulator.url, ports)
        url = f"http://127.0.0.1:{ports[0]}"
        async with program(config, "log-0") as old, httpx.AsyncClient(trust_env=False, timeout=30) as http:
            await old.wait_started()
            async with http.stream(
                "POST", url + "/v1/chat/completions", json={**BODY, "stream": True}
            ) as answer:
                pieces = answer.aiter_text()
                text = await anext(pieces)
                old.process.send_signal(signal.SIGTERM)
                await wait_until(lambda: not any(map(taken, ports)))
                async with program(config, "log-1") as new:
                    await new.wait_started()
                    assert old.process.returncode is None, "it still drains"
                    text += "".join([piece async for piece in pieces])
                    assert text.endswith("data: [DONE]\n\n")
                    assert await old.wait_end() == 0


def taken(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as call:
        return call.connect_ex(("127.0.0.1", port)) == 0


async def test_a_hangup_during_the_start_ends_nothing_and_has_the_file_read_again(tmp_path: Path) -> None:
    async with Simulator(Options(dialect="openai")) as simulator:
        config = written(tmp_path, simulator.url, free_ports())
        async with program(config, "log") as one:
            await wait_until(lambda: survives_hangup(one.process.pid), 30)
            one.process.send_signal(signal.SIGHUP)
            await one.wait_started()
            await wait_until(lambda: any(line["event"] == "reload" for line in one.lines), 30)
            one.process.send_signal(signal.SIGTERM)
            assert await one.wait_end() == 0


def survives_hangup(pid: int) -> bool:
    """Whether a process does something else at SIGHUP than end, now or later."""
    if sys.platform != "linux":
        pytest.skip("the system does not tell")
    status = Path(f"/proc/{pid}/status").read_text()
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt")))
    return any(int(mask, 16) & (1 << (signal.SIGHUP - 1)) for mask in masks.values())
