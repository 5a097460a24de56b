"""A gateway in a process of its own, over servers simulated elsewhere; and clients that take the time."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import httptools

from tests.bench import process

STARTING = 60.0
"""Seconds that a gateway may take until it listens."""
CHAT = "/v1/chat/completions"


class Server(NamedTuple):
    """A server behind the gateway: its name, address and dialect, and the model that it serves."""

    name: str
    url: str
    dialect: str
    model: str = "m"


class Own(NamedTuple):
    """A gateway that listens: the port of each plane, and its process."""

    port: int
    admin: int
    pid: int


def configuration(servers: Sequence[Server], ports: tuple[int, int], extra: str) -> str:
    """What the gateway's file says; `extra` is more TOML."""
    lines = []
    for plane, port in zip(("server", "admin"), ports, strict=True):
        lines += [f"[{plane}]", f'listen = "127.0.0.1:{port}"']
    for one in servers:
        lines += ["[[backends]]", f'name = "{one.name}"', f'url = "{one.url}"', f'dialect = "{one.dialect}"']
        lines += [f'models = ["{one.model}"]']
    return "\n".join([*lines, extra, ""])


@contextlib.contextmanager
def own(servers: Sequence[Server], run: Path, extra: str = "", *, core: int) -> Iterator[Own]:
    """Run a gateway over these servers, on one core; its file and log lie in `run`."""
    ports = process.free_port(), process.free_port()
    file = run / "own.toml"
    file.write_text(configuration(servers, ports, extra), encoding="utf-8")
    command = (sys.executable, "-m", "gateway", "serve", "--config", str(file))
    with process.started(command, core=core, log=run / "own.log") as program:
        process.wait_listening(ports[0], program, STARTING)
        yield Own(*ports, program.pid)


def two_cores() -> tuple[int, int]:
    """The core of what is measured, and everybody else's; the same where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def fetched(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


# --- clients ---------------------------------------------------------------------------------------


def chat(text: str, *, model: str = "m", stream: bool = False) -> bytes:
    """The bytes of a request for a chat."""
    messages = [{"role": "user", "content": text}]
    return _post(CHAT, {"model": model, "messages": messages, "stream": stream})


def native(text: str) -> bytes:
    """The bytes of a request in ChatGLM's own form."""
    return _post("/", {"prompt": text, "history": [], "max_length": 2048})


def _post(path: str, body: object) -> bytes:
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
    )
    return head.encode() + b"\r\n\r\n" + raw


def get(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@dataclass
class Reply:
    """An answer: status (0 where the connection broke), headers, when its request was sent and it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    sent: float = 0.0
    came: float = 0.0

    @property
    def seconds(self) -> float:
        """From the last byte of the request to the last of the answer."""
        return self.came - self.sent


class _Connection(asyncio.Protocol):
    """One connection to the gateway, busy with at most one request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.reply: Reply | None = None
        self.open = True

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.reply = Reply(sent=time.perf_counter())
        self.transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reply is not None:
            self.reply.headers[name.decode().lower()] = value.decode()

    def on_message_complete(self) -> None:
        self._end(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._end(0)

    def _end(self, status: int) -> None:
        reply, self.reply = self.reply, None
        if reply is not None and not self._done.done():
            reply.status, reply.came = status, time.perf_counter()
            self._done.set_result(reply)


class Clients:
    """Clients of one port, which keep their connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes) -> Reply:
        """Send a request and wait for its answer."""
        connection = await self._connection()
        try:
            reply = await connection.ask(request)
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        if connection.open:
            self._idle.append(connection)
        return reply

    async def _connection(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.transport.abort()


def milliseconds(seconds: float) -> str:
    """Seconds as people read them here."""
    return f"{seconds * 1000:.1f} ms"


def number(environment: Mapping[str, str], name: str, default: float) -> float:
    """A number from the environment. Ends the program where it is none."""
    text = environment.get(name) or str(default)
    try:
        return float(text)
    except ValueError:
        sys.exit(f"{name}: {text!r} is no number")
