"""What simulated servers say, as bytes: recorded once a run, played back by servers of literal bytes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.dialects import DIALECTS
from gateway.dialects.base import Profile
from gateway.formats.openai import read_chat
from gateway.simulator import Simulator
from tests.support.fleet import SERVERS, Server
from tests.support.visitor import unchunked

REPLY = "北京é𠮷 is “far”."
"""A short answer with characters of one to four bytes."""

_tapes: dict[tuple[str, bool, str], Tape] = {}


@dataclass(frozen=True)
class Tape:
    """One answer: its content type and its bytes without their framing."""

    content_type: str
    body: bytes

    def head(self, *fields: str) -> bytes:
        """A head of status 200 with these fields besides."""
        lines = ["HTTP/1.1 200 OK", f"content-type: {self.content_type}", *fields]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    @property
    def sized(self) -> bytes:
        """The whole answer with a length."""
        return self.head(f"content-length: {len(self.body)}") + self.body

    @property
    def chunked(self) -> bytes:
        """The whole answer, each event a chunk."""
        return self.head("transfer-encoding: chunked") + chunks(self.body) + b"0\r\n\r\n"

    @property
    def delimited(self) -> bytes:
        """The whole answer, ended by the end of its connection."""
        return self.head("connection: close") + self.body


def chunks(body: bytes) -> bytes:
    """A body's events, or the whole body, as chunks without the last."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n"
    pieces = [piece + end for piece in body.split(end)[:-1]] or [body]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def tape(server: Server, *, stream: bool, reply: str = REPLY) -> Tape:
    """What this server answers to the gateway's own request."""
    key = (server.id, stream, reply)
    if key not in _tapes:
        async with Simulator(server.options(reply=reply, piece_size=2)) as simulator:
            _tapes[key] = await _recorded(simulator.url, *_request(server, stream=stream))
    return _tapes[key]


def _request(server: Server, *, stream: bool) -> tuple[str, bytes]:
    dialect = DIALECTS[server.dialect]
    messages = [{"role": "user", "content": "你好"}]
    asked: dict[str, Any] = {"model": "m", "stream": stream, "messages": messages}
    request = read_chat(json.dumps(asked).encode())
    outgoing = dialect.ask(request, Profile(model="m", **server.backend), stream=stream)
    return outgoing.path, outgoing.body


async def _recorded(url: str, path: str, body: bytes) -> Tape:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {path} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    raw = await reader.read(-1)
    writer.close()
    answer, _, rest = raw.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:])
    if fields.get(b"transfer-encoding") == b"chunked":
        rest, whole = unchunked(rest)
        assert whole
    return Tape(fields[b"content-type"].decode(), rest)


def _streams(server: Server) -> bool:
    request = read_chat(b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}')
    profile = Profile(model="m", **server.backend)
    return DIALECTS[server.dialect].ask(request, profile, stream=True).streams


STREAMING = [server for server in SERVERS if _streams(server)]
"""The servers that answer a stream with a stream."""
