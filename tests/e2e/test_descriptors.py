"""Descriptors run out: clients are told, the admin plane answers, and no backend is blamed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.simulator import Options, Simulator
from tests.support.stack import wait_until

resource = pytest.importorskip("resource", reason="the system has no limits of this kind")

ALLOWED = 128
SILENT = 300
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
CONFIG = """
[server]
listen = "127.0.0.1:0"
max_connections = {most}
max_connections_per_peer = 0
header_timeout = 600
keepalive = 600
[admin]
listen = "127.0.0.1:0"
[health]
interval = 0.2
[[backends]]
name = "gpu-0"
url = "{url}"
dialect = "openai"
models = ["m"]
"""


@dataclass
class Program:
    """`gateway serve` as a process of its own, with few descriptors."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def lines(self) -> list[dict[str, object]]:
        """What it has logged, but for a line that is being written."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def address(self, plane: str) -> str:
        """Where a plane listens."""
        (start,) = (line for line in self.lines if line["event"] == "start")
        return str(start[plane])

    async def metric(self, name: str) -> float:
        """One figure of its metrics."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            text = (await http.get(self.address("admin") + "/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@contextlib.asynccontextmanager
async def serving(folder: Path, url: str, *, most: int, soft: int, hard: int) -> AsyncIterator[Program]:
    config, log = folder / "config.toml", folder / "log"
    config.write_text(CONFIG.format(url=url, most=most))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(config),
            stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
    program = Program(process, log)
    try:
        async with asyncio.timeout(30):
            await wait_until(lambda: any(line["event"] == "start" for line in program.lines), seconds=30)
        yield program
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def connecting(address: str, count: int) -> list[socket.socket]:
    """So many clients that say nothing, some still on their way."""
    host, port = address.removeprefix("http://").split(":")
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((host, int(port)))
        socks.append(sock)
    return socks


async def test_silent_clients_take_no_descriptor_from_backends_or_the_admin_plane(tmp_path: Path) -> None:
    async with (
        Simulator(Options(dialect="openai", reply="hello")) as simulator,
        serving(tmp_path, simulator.url, most=2048, soft=ALLOWED, hard=ALLOWED) as program,
        httpx.AsyncClient(base_url=program.address("data"), trust_env=False, timeout=30) as http,
        httpx.AsyncClient(base_url=program.address("admin"), trust_env=False, timeout=30) as admin,
    ):
        assert (await http.post("/v1/chat/completions", json=BODY)).status_code == 200
        silent = connecting(program.address("data"), SILENT)
        try:
            for _ in range(5):
                assert (await admin.get("/livez")).status_code == 200
                async with httpx.AsyncClient(trust_env=False, timeout=30) as fresh:
                    assert (await fresh.get(program.address("admin") + "/livez")).status_code == 200
            await refusal(program.address("data"), until=503)
            # Who is connected already is served: there is a descriptor for the backend.
            assert (await http.post("/v1/chat/completions", json=BODY)).status_code == 200
            refused = await refusal(program.address("data"), until=503)  # a client that left may leave room
            assert refused == (503, "out_of_descriptors")
            assert await program.metric("gateway_backend_up{") == 1
            assert await program.metric("gateway_backend_ejections_total{") == 0
            assert await program.metric('gateway_client_refusals_total{reason="out_of_descriptors"}') >= 1
            assert await program.metric("process_open_fds") < ALLOWED
        finally:
            for sock in silent:
                sock.close()
        assert (await refusal(program.address("data"), until=200))[0] == 200
    told = [str(line.get("message")) for line in program.lines if line.get("event") == "note"]
    assert any("limit of file descriptors is too low" in one for one in told)
    assert any("No file descriptor is left" in one for one in told)


async def refusal(address: str, *, until: int | None = None) -> tuple[int, str]:
    """Ask over a connection of its own, until the answer has this status; None: until there is one."""
    for _ in range(200):
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as http:
            try:
                answer = await http.post("/v1/chat/completions", json=BODY)
            except httpx.TransportError:  # cut off, as too many are being told already
                status = 0
            else:
                status = answer.status_code
        if status == until or (status and until is None):
            break
        await asyncio.sleep(0.05)
    return status, (answer.json().get("error") or {}).get("code", "")


async def test_the_soft_limit_is_raised_where_that_is_allowed(tmp_path: Path) -> None:
    async with (
        Simulator(Options(dialect="openai", reply="hello")) as simulator,
        serving(tmp_path, simulator.url, most=100, soft=ALLOWED, hard=1024) as program,
    ):
        assert await program.metric("process_max_fds") > 600
        silent = connecting(program.address("data"), 90)
        assert (await refusal(program.address("data")))[0] == 200
        for sock in silent:
            sock.close()
    assert not any(line.get("event") == "note" for line in program.lines)
