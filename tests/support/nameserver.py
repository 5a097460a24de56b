"""A real name server on 127.0.0.1, over UDP and TCP, whose zone and moods a test may change at any time."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Mood = Literal["well", "silent", "servfail", "refused", "truncating", "garbled"]


@dataclass
class NameServer:
    """Answers from `zone`: (name without a final dot, type) -> records as text.

    A name that stands there with another type only has no such record, any other does not exist. `moods` are
    for single types and win over `mood`. `beside` are types whose records go along with an SRV answer.
    """

    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    ttl: int = 0
    mood: Mood = "well"
    moods: dict[str, Mood] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How often: (name, type, "udp" or "tcp")."""
    port: int = 0

    @property
    def address(self) -> str:
        """As `discovery.nameservers` takes it."""
        return f"127.0.0.1:{self.port}"

    def toml(self, **more: float) -> str:
        """The table that makes a gateway ask this server, again and again."""
        settings = {"min_ttl": 0.05, "max_ttl": 60.0, "timeout": 0.5} | more
        lines = [f"{key} = {value}" for key, value in settings.items()]
        return "\n".join(["", "[discovery]", f'nameservers = ["{self.address}"]', *lines, ""])

    def count(self, name: str, kind: str) -> int:
        """How often this was asked, over UDP."""
        return self.asked[name, kind, "udp"]

    def answer(self, wire: bytes, over: str) -> bytes | None:
        """What to say to a question; None: nothing."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind, over] += 1
        mood = self.moods.get(kind, self.mood)
        if mood == "silent":
            return None
        if mood == "garbled":
            return wire[:2] + b"nonsense"
        reply = dns.message.make_response(query)
        if mood in ("servfail", "refused"):
            reply.set_rcode(dns.rcode.SERVFAIL if mood == "servfail" else dns.rcode.REFUSED)
        elif mood == "truncating" and over == "udp":
            reply.flags |= dns.flags.TC
        else:
            self._fill(reply, name, kind)
        return reply.to_wire()

    def _fill(self, reply: dns.message.Message, name: str, kind: str) -> None:
        if alias := self.zone.get((name, "CNAME")):
            reply.answer.append(self._records(name, "CNAME", alias))
            name = alias[0].rstrip(".")
        if found := self.zone.get((name, kind)):
            reply.answer.append(self._records(name, kind, found))
            for target in [text.split()[-1].rstrip(".") for text in found if kind == "SRV"]:
                reply.additional += [
                    self._records(target, other, self.zone[target, other])
                    for other in self.beside
                    if (target, other) in self.zone
                ]
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _records(self, name: str, kind: str, texts: list[str]) -> dns.rrset.RRset:
        return dns.rrset.from_text(f"{name}.", self.ttl, "IN", kind, *texts)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._server.answer(data, "udp")
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def nameserver(
    zone: dict[tuple[str, str], list[str]] | None = None, *, ttl: int = 0
) -> AsyncIterator[NameServer]:
    """A server of this zone, for the length of an `async with`."""
    server = NameServer(zone if zone is not None else {}, ttl)
    writers: set[asyncio.StreamWriter] = set()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                if reply := server.answer(await reader.readexactly(length), "tcp"):
                    writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()

    loop = asyncio.get_running_loop()
    listener = await asyncio.start_server(stream, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    where = ("127.0.0.1", server.port)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), local_addr=where)
    try:
        yield server
    finally:
        transport.close()
        listener.close()
        for writer in writers:
            writer.close()
        await listener.wait_closed()
