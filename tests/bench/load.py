"""The clients of the bench, where the C ones cannot be had: `python -m tests.bench.load -p PORT -b FILE ...`.

One request is sent over and over by `-c` connections for `-s` seconds: each sends the next when its answer is
whole, or all together send `-r` a second, whose latency counts from the moment they were due. Answers under
way at the end are read out, for 20 s at most. One JSON object is printed: `done`, `errs`, `badstatus`,
`short` (answers with fewer events than `-e`), `events` and the `reads` that brought answers, `lat_p50`,
`lat_p99` and `ttfb_p50` in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools
import uvloop

from tests.bench.figures import quantile

READ_OUT = 20.0
"""Seconds that answers may take after the last request has begun."""
NEEDLE = b"data:"


@dataclass
class Tally:
    """What all connections have seen."""

    done: int = 0
    errs: int = 0
    badstatus: int = 0
    short: int = 0
    events: int = 0
    reads: int = 0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    def report(self) -> dict[str, float]:
        """Itself with the quantiles, in microseconds."""
        return {
            "done": self.done,
            "errs": self.errs,
            "badstatus": self.badstatus,
            "short": self.short,
            "events": self.events,
            "reads": self.reads,
            "lat_p50": quantile(self.latencies, 0.5) * 1e6,
            "lat_p99": quantile(self.latencies, 0.99) * 1e6,
            "ttfb_p50": quantile(self.firsts, 0.5) * 1e6,
        }


@dataclass(frozen=True)
class Order:
    """What is sent, and until when."""

    request: bytes
    expects: int
    rate: float
    ends: float


class Client(asyncio.Protocol):
    """One connection, busy with at most one request."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._tally = crowd.tally
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, due: float) -> None:
        """Send the request, which was due then."""
        self._busy = True
        self._due = due
        self._first = 0.0
        self._events = 0
        self._rest = b""
        self._transport.write(self._crowd.order.request)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            return
        self._tally.reads += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        text = self._rest + body
        self._rest = text[-len(NEEDLE) + 1 :]
        self._events += text.count(NEEDLE)
        if self._events and not self._first:
            self._first = time.perf_counter()

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        status, tally = self._parser.get_status_code(), self._tally
        tally.done += 1
        tally.events += self._events
        tally.badstatus += status != 200
        tally.short += self._events < self._crowd.order.expects
        tally.latencies.append(now - self._due)
        tally.firsts.append((self._first or now) - self._due)
        self._busy = False
        self._crowd.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self._tally.errs += 1
            self._crowd.lost()


class Crowd:
    """All connections: who asks next, and when it is over."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.tally = Tally()
        self._idle: deque[Client] = deque()
        self._call = 0
        self._over = asyncio.Event()

    async def run(self, port: int, clients: int) -> None:
        """Connect, ask until the order's end, and read out what is under way."""
        loop = asyncio.get_running_loop()
        for _ in range(clients):
            _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", port)
            self._idle.append(client)
        if self.order.rate:
            await self._at_a_rate()
        else:
            for _ in range(clients):
                self._ask(self._idle.popleft(), time.perf_counter())
        left = max(0.0, self.order.ends - time.perf_counter()) + READ_OUT
        try:
            async with asyncio.timeout(left):
                await self._over.wait()
        except TimeoutError:
            self.tally.errs += self._call

    async def _at_a_rate(self) -> None:
        due = time.perf_counter()
        while due < self.order.ends:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self._idle:
                self._ask(self._idle.popleft(), due)
                due += 1 / self.order.rate
            else:
                await asyncio.sleep(0.0005)
        await asyncio.sleep(max(0.0, self.order.ends - time.perf_counter()))
        self._end_if_quiet()

    def _ask(self, client: Client, due: float) -> None:
        self._call += 1
        client.ask(due)

    def freed(self, client: Client) -> None:
        """A client has its answer."""
        self._call -= 1
        now = time.perf_counter()
        if self.order.rate:
            self._idle.append(client)
        elif now < self.order.ends:
            self._ask(client, now)
        self._end_if_quiet()

    def lost(self) -> None:
        """A connection has broken under a request; it is not made again, and the fault is in the tally."""
        self._call -= 1
        self._end_if_quiet()

    def _end_if_quiet(self) -> None:
        if not self._call and (not self.order.rate or time.perf_counter() >= self.order.ends):
            self._over.set()


def request_of(port: int, path: str, key: str, body: bytes) -> bytes:
    """The request as bytes."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the clients of the bench")
    parser.add_argument("-p", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("-b", type=Path, required=True, help="file with the body")
    parser.add_argument("-u", default="/v1/chat/completions", help="path")
    parser.add_argument("-k", default="none", help="key")
    parser.add_argument("-c", type=int, default=1, help="connections")
    parser.add_argument("-s", type=float, default=2.0, help="seconds")
    parser.add_argument("-r", type=float, default=0.0, help="requests a second, 0: closed loop")
    parser.add_argument("-e", type=int, default=0, help="events that each answer must hold")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> Tally:
    """Do what the options say."""
    request = request_of(options.p, options.u, options.k, options.b.read_bytes())
    order = Order(request, options.e, options.r, time.perf_counter() + options.s)
    crowd = Crowd(order)
    await crowd.run(options.p, options.c)
    return crowd.tally


def main() -> None:
    """The program."""
    sys.stdout.write(json.dumps(uvloop.run(run(_options())).report()) + "\n")


if __name__ == "__main__":
    main()
