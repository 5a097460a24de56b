"""A client on a bare socket: sees every byte of an answer and how it ended, and can leave in either way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.site import Site

How = Literal["fin", "rst"]


@dataclass
class Answer:
    """An answer as it came. `whole` tells that its framing reached its end; `seconds` is what it took."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        """The body of an answer that is no stream."""
        return json.loads(self.body)

    @property
    def frames(self) -> list[str]:
        """The frames of a stream: `data: ...` and `: ...`."""
        *frames, rest = self.body.decode().split("\n\n")
        assert not rest, "an event was cut"
        return frames

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events as JSON, `[DONE]` as it is."""
        data = [frame.removeprefix("data: ") for frame in self.frames if frame.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    @property
    def comments(self) -> list[str]:
        """The comments of a stream."""
        return [frame for frame in self.frames if frame.startswith(":")]

    @property
    def streamed(self) -> bool:
        """Whether it is an event stream."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def error(self) -> dict[str, Any]:
        """The error it reports: the body's, or the one of its last event."""
        body = self.events[-1] if self.streamed else self.json
        error: dict[str, Any] = body["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error

    @property
    def text(self) -> str:
        """What the model said."""
        if not self.streamed:
            return str(self.json["choices"][0]["message"]["content"])
        choices = [choice for event in self.events if "choices" in event for choice in event["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def finishes(self) -> list[str]:
        """The finish reasons, of which a good answer has one."""
        choices = [
            choice
            for event in (self.events if self.streamed else [self.json])
            if "choices" in event
            for choice in event["choices"]
        ]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]

    @property
    def done(self) -> bool:
        """Whether it says that it is complete."""
        return b"[DONE]" in self.body


class Visitor:
    """One request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self._began = asyncio.get_running_loop().time()

    @classmethod
    async def to(cls, site: Site, body: bytes, path: str = "/v1/chat/completions") -> Visitor:
        """Send a request."""
        visitor = cls(*await asyncio.open_connection("127.0.0.1", site.port, limit=2**24))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        visitor._writer.write(head.encode() + body)
        return visitor

    async def wait_answer(self, came: bytes = b"") -> Answer:
        """Read the answer to the end of the connection; `came` is what has been read of it before."""
        try:
            async with asyncio.timeout(30):
                raw = came + await self.reader.read(-1)
        finally:
            self._writer.close()
        answer = _parsed(raw)
        answer.seconds = asyncio.get_running_loop().time() - self._began
        return answer

    async def leave(self, how: How = "fin") -> None:
        """Hang up."""
        if how == "rst":
            sock: Any = self._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def chat(text: str = "你好", *, stream: bool = False, **fields: Any) -> bytes:
    """A chat request for the model `m`."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **fields}
    return json.dumps(body).encode()


async def ask(site: Site, text: str = "你好", *, stream: bool = False, **fields: Any) -> Answer:
    """Ask, and read the whole answer."""
    visitor = await Visitor.to(site, chat(text, stream=stream, **fields))
    return await visitor.wait_answer()


def _parsed(raw: bytes) -> Answer:
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    answer = Answer(int(first.split(" ")[1]) if first else 0, headers)
    if headers.get("transfer-encoding") == "chunked":
        answer.body, answer.whole = unchunked(rest)
    else:
        answer.body, answer.whole = rest, len(rest) == int(headers.get("content-length", -1))
    return answer


def unchunked(raw: bytes) -> tuple[bytes, bool]:
    """A chunked body's bytes, and whether it reached its end."""
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            return body, raw == b"\r\n"
        body, raw = body + raw[:count], raw[count + 2 :]
    return body, False
