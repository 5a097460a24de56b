"""`python -m tests.bench.hostile`: inputs that are meant to hold the event loop, and what others see of it.

Each input is sent for HOSTILE_SECONDS (4) by clients that do nothing else, while a program of its own asks
for `/livez` all the time. The exit status is 1 when for one input more than one of a thousand of those waited
longer than 25 ms, or when the gateway answered anything with 500 or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import process
from tests.bench.__main__ import prepared, say
from tests.bench.figures import quantile
from tests.bench.own import CHAT, STARTING, Clients, Own, Server, milliseconds, number, own, two_cores

LIMIT = 0.025
"""Seconds that `/livez` may take, in 999 of 1,000 cases."""
ATTACKERS = 4
"""Clients that send one input at a time."""
PAUSE = 0.002
"""Seconds between two looks at `/livez`."""
QUESTION = {"role": "user", "content": "q"}


def post(raw: bytes, path: str = CHAT) -> bytes:
    """The bytes of a request with this body."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(raw) + raw


def chat(**body: Any) -> bytes:
    """A chat with these members."""
    return post(json.dumps({"model": "m", "messages": [QUESTION], **body}).encode())


def raw(members: bytes) -> bytes:
    """A chat with these members, as they stand."""
    return post(b'{"model":"m","messages":[{"role":"user","content":"q"}],' + members + b"}")


def pairs(history: list[Any]) -> bytes:
    """A native request with this history."""
    return post(json.dumps({"prompt": "x", "history": history}).encode(), "/")


def _parts(count: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "x"}] * count}]


def _tool(properties: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {f"p{number}": {"type": "string"} for number in range(properties)},
    }
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def inputs() -> dict[str, bytes]:
    """Every input by its name."""
    return {
        "nothing but /livez": b"",
        "nested 60 deep": raw(b'"x":' + b"[" * 60 + b"]" * 60),
        "nested 30,000 deep": raw(b'"x":' + b"[" * 30_000),
        "19,000 members": raw(b'"metadata":{' + b",".join(b'"k%d":1' % n for n in range(19_000)) + b"}"),
        "19,000 unknown members": raw(b",".join(b'"k%d":1' % n for n in range(19_000))),
        "60 kB of empty lists": raw(b'"x":[' + b"[]," * 19_000 + b"[]]"),
        "a member twice among 9,000": raw(
            b'"x":{' + b",".join(b'"k%d":1' % (n % 8999) for n in range(9_000)) + b"}"
        ),
        "a number of 60,000 digits": raw(b'"x":' + b"9" * 60_000),
        "9,000 numbers of 40 digits": raw(b'"x":[' + b",".join([b"9" * 40] * 9_000) + b"]"),
        "9,000 infinities": raw(b'"x":[' + b",".join([b"1e999"] * 9_000) + b"]"),
        "9,000 halves of surrogate pairs": raw(rb'"x":[' + b",".join([rb'"\ud800"'] * 9_000) + b"]"),
        "tools that are numbers": chat(tools=[1] * 13_000),
        "1,000 tools with faults": chat(tools=[{"type": "function", "function": {"name": 1}}] * 1_000),
        "1,000 good tools": chat(tools=[_tool(1)] * 1_000),
        "a tool with 4,000 properties": chat(tools=[_tool(4_000)]),
        "logit_bias of 9,000 texts": chat(logit_bias={f"{number}": "x" for number in range(9_000)}),
        "logit_bias of 2,000 texts": chat(logit_bias={f"{number}": "x" for number in range(2_000)}),
        "4,000 messages of a wrong role": chat(messages=[{"role": "robot"}] * 4_000),
        "4,000 short messages": chat(messages=[QUESTION] * 4_000),
        "4,000 short messages, folded": chat(model="long", messages=[QUESTION] * 4_000),
        "2,000 parts": chat(messages=_parts(2_000)),
        "2,000 parts, folded": chat(model="long", messages=_parts(2_000)),
        "stop of 100,000 characters": chat(model="long", stop=["a" * 100_000 + "b"] * 4),
        "the longest stop texts": chat(model="long", stop=["a" * 1_023 + "b"] * 4),
        "the longest stop texts, streamed": chat(model="long", stop=["a" * 1_023 + "b"] * 4, stream=True),
        "9,000 stop texts": chat(stop=["x"] * 9_000),
        "a history of 2,000 pairs": pairs([["a", "b"]] * 2_000),
        "a history of 9,000 faults": pairs([1] * 9_000),
        "1 MB of text": chat(messages=[{"role": "user", "content": "x" * 1_000_000}]),
        "1 MB of escapes": chat(messages=[{"role": "user", "content": "\u4f60" * 170_000}]),
        "1 MB that is no UTF-8": post(b'{"model":"m","messages":"' + b"\xff" * 1_000_000),
        "1 MB of open quotes": post(b'{"model":"' * 100_000),
        "a refusal that quotes 60,000 times": chat(model="refuse"),
        "2,000 empty deltas": chat(stream=True),
        "2,000 empty deltas and usage": chat(stream=True, stream_options={"include_usage": True}),
    }


# --- the server behind -----------------------------------------------------------------------------


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def _whole(status: bytes, body: object) -> bytes:
    text = json.dumps(body).encode()
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(text))
        + text
    )


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
EMPTY = _event({})
LAST = _event({"content": "a"}) + _event({}, "stop") + b"data: [DONE]\n\n"
LONG = _whole(b"200 OK", {"response": "a" * 100_000, "history": [], "status": 200, "time": ""})
QUOTES = _whole(b"400 Bad Request", {"error": {"message": "exceeds 'a " * 20_000, "code": 400}})
SHORT = _whole(
    b"200 OK",
    {"id": "x", "object": "chat.completion", "created": 1, "model": "m",
     "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
)  # fmt: skip


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the gateway to the server: what is asked decides what is answered."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, _, rest = head.partition(b"content-length: ")
            body = await reader.readexactly(int(rest.partition(b"\r\n")[0] or 0))
            if b'"stream":true' in body.replace(b" ", b""):
                writer.write(STREAM + _event({"role": "assistant"}))
                for _ in range(200):
                    writer.write(EMPTY * 10)
                    await writer.drain()
                writer.write(LAST)
                break
            writer.write(LONG if b'"prompt"' in body else QUOTES if b'"refuse"' in body else SHORT)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[list[Server]]:
    """The servers behind the gateway: one address under three names."""
    async with await asyncio.start_server(_serve, "127.0.0.1", 0, limit=1 << 20) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield [
            Server("short", url, "openai", "m"),
            Server("long", url, "chatglm2", "long"),
            Server("refuse", url, "openai", "refuse"),
        ]


# --- what others see -------------------------------------------------------------------------------


def look(port: int, file: Path) -> None:
    """Ask for `/livez` again and again until told to end; write down when, and how long it took."""
    with socket.create_connection(("127.0.0.1", port)) as connection, file.open("w", encoding="utf-8") as out:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            sent = time.monotonic()
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = connection.recv(65_536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError("the gateway does not answer")
            out.write(f"{sent} {time.monotonic() - sent}\n")
            out.flush()
            time.sleep(PAUSE)


@dataclass
class Row:
    """What came of one input: answers by status, and seconds of `/livez` meanwhile."""

    name: str
    began: float
    ended: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def faults(self) -> Iterator[str]:
        """What is wrong."""
        wrong = {status for status in self.statuses if status == 0 or status >= 500}
        if wrong:
            yield f"{self.name}: answered with {sorted(wrong)}"
        if quantile(self.seconds, 0.999) > LIMIT:
            yield f"{self.name}: others waited {milliseconds(quantile(self.seconds, 0.999))}"

    def __str__(self) -> str:
        told = " ".join(f"{count}x{status}" for status, count in sorted(self.statuses.items()))
        shares = [milliseconds(quantile(self.seconds, share)) for share in (0.5, 0.99, 0.999, 1)]
        named = zip(("p50", "p99", "p99.9", "max"), shares, strict=True)
        return f"{self.name:38} {told:16} " + " ".join(f"{name} {share:>8}" for name, share in named)


async def attack(port: int, name: str, request: bytes, seconds: float) -> Row:
    """Send an input for so long, by several clients."""
    row = Row(name, time.monotonic())

    async def client() -> None:
        clients = Clients(port)
        while time.monotonic() < row.began + seconds:
            row.statuses[(await clients.ask(request)).status] += 1
        clients.close()

    if request:
        async with asyncio.TaskGroup() as group:
            for _ in range(ATTACKERS):
                group.create_task(client())
    else:
        await asyncio.sleep(seconds)
    row.ended = time.monotonic()
    return row


def seen(file: Path, rows: list[Row]) -> None:
    """Give each row what was seen of `/livez` in its time."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    looks = [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]
    for row in rows:
        row.seconds = [took for sent, took in looks if row.began <= sent <= row.ended]


async def hostile(
    chosen: Mapping[str, bytes], seconds: float, folder: Path, tell: Callable[[str], None]
) -> list[Row]:
    """Send each input for so long, and look at `/livez` meanwhile."""
    rows: list[Row] = []
    core, other = two_cores()
    file = folder / "livez"
    async with server() as servers:
        with own(servers, folder, core=core) as here, _looking(here, file, other):
            for name, request in chosen.items():
                rows.append(await attack(here.port, name, request, seconds))
    seen(file, rows)
    for row in rows:
        tell(str(row))
    return rows


@contextlib.contextmanager
def _looking(here: Own, file: Path, core: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.bench.hostile", str(here.port), str(file)]
    with process.started(command, core=core, log=file.with_suffix(".log")):
        deadline = time.monotonic() + STARTING
        while not (file.exists() and file.stat().st_size):
            if time.monotonic() > deadline:
                raise RuntimeError("the program that looks at /livez has not begun")
            time.sleep(0.02)
        yield


def main() -> int:
    """The program; gives its exit status."""
    if len(sys.argv) == 3:
        look(int(sys.argv[1]), Path(sys.argv[2]))
    folder = prepared()
    seconds = number(os.environ, "HOSTILE_SECONDS", 4)
    rows = asyncio.run(hostile(inputs(), seconds, folder, say))
    faults = [fault for row in rows for fault in row.faults()]
    say(
        "\n".join(faults)
        if faults
        else f"kept: p99.9 of /livez within {milliseconds(LIMIT)} beside every input"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
