"""The backend behind all that is measured, where no C can be had: `python -m tests.bench.mock -p PORT`.

It answers at once and parses no body. `POST /` gives ChatGLM2-6B's own JSON, any other POST a chat
completion, or an event stream where the body holds `"stream":true`; each event is a write of its own.
`GET /_ctl?n=EVENTS&us=MICROSECONDS` sets the length of later streams and the pause between their events; any
other GET is a list of models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

TEXT = "这座城市有三千年历史，四季分明，最值得一去的是老城墙、钟楼和城南的湖。春天看花，秋天看月，冬天看雪。"
ID = {"id": "chatcmpl-0123456789abcdef", "created": 1700000000, "model": "m"}
BATCH = 32
"""Events of an unpaced stream that are written before others have their turn."""


def _answer(value: object) -> bytes:
    body = json.dumps(value, ensure_ascii=False).encode()
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


def _chunk(delta: dict[str, str], finish: str | None, end: str = "") -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {**ID, "object": "chat.completion.chunk", "choices": [choice]}
    data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n{end}".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


CHAT = _answer(
    {
        **ID,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 312, "completion_tokens": 58, "total_tokens": 370},
    }
)
NATIVE = _answer(
    {"response": TEXT, "history": [["问题？", TEXT]], "status": 200, "time": "2026-01-01 00:00:00"}
)
MODELS = _answer({"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m"})
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
FIRST = _chunk({"role": "assistant", "content": ""}, None)
MIDDLE = _chunk({"content": "山水之间"}, None)
LAST = _chunk({}, "stop", "data: [DONE]\n\n") + b"0\r\n\r\n"


@dataclass
class Pace:
    """How later streams go; shared by all connections."""

    events: int = 100
    gap: float = 0.0
    """Seconds between two events."""


class Connection(asyncio.Protocol):
    """One client; its requests come one after the other."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.Handle | None = None
        self._url = b""
        self._body = b""
        self._sent = self._events = 0
        self._due = self._gap = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"POST":
            self._steer(urlsplit(self._url.decode()).query)
            self._transport.write(MODELS)
        elif self._url == b"/":
            self._transport.write(NATIVE)
        elif b'"stream":true' in self._body or b'"stream": true' in self._body:
            self._begin()
        else:
            self._transport.write(CHAT)

    def _steer(self, query: str) -> None:
        for name, (value, *_) in parse_qs(query).items():
            if name == "n":
                self._pace.events = int(value)
            elif name == "us":
                self._pace.gap = int(value) / 1e6

    def _begin(self) -> None:
        self._transport.write(HEAD)
        self._sent, self._events, self._gap = 0, self._pace.events, self._pace.gap
        self._due = self._loop.time()
        self._again()

    def _again(self) -> None:
        self._due += self._gap
        self._timer = (
            self._loop.call_at(self._due, self._event) if self._gap else self._loop.call_soon(self._burst)
        )

    def _event(self) -> None:
        self._write_next()
        if self._sent <= self._events:
            self._again()

    def _burst(self) -> None:
        for _ in range(min(BATCH, self._events + 1 - self._sent)):
            self._write_next()
        if self._sent <= self._events:
            self._again()

    def _write_next(self) -> None:
        self._transport.write(FIRST if self._sent == 0 else MIDDLE if self._sent < self._events else LAST)
        self._sent += 1


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    pace = Pace()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(pace), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="the backend of the bench")
    parser.add_argument("-p", type=int, required=True, help="port on 127.0.0.1")
    uvloop.run(serve(parser.parse_args().p))


if __name__ == "__main__":
    main()
