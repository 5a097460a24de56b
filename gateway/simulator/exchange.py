"""One HTTP exchange as values: the request a program reads, the reply it gives, and how it can end badly."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = Sequence[tuple[str, str]]

_LINE_END = re.compile(r"\r\n|\r|\n")


class ModelError(Exception):
    """The simulated model failed: a 500 before the head of a reply, a cut afterwards."""


class ClientGoneError(Exception):
    """The client left and this server notices: its generation ends here."""


class CutError(Exception):
    """The server closes the connection in the middle of its reply."""


class RefusedError(Exception):
    """The program refuses the request with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class ClientLink(Protocol):
    """The client's side of the exchange, as far as a program can see it."""

    @property
    def gone(self) -> bool:
        """Whether the client has left."""

    async def wait_gone(self) -> None:
        """Return when the client has left."""


class ClientPresence:
    """A client that never leaves: for programs used without a connection."""

    gone = False

    async def wait_gone(self) -> None:
        """Never return."""
        await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived. `reply` overrides the model's text (a fault asks for it)."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    link: ClientLink = field(default_factory=ClientPresence)
    reply: str | None = None

    def json(self) -> object:
        """The body as JSON; raises ValueError (also UnicodeDecodeError) as the servers' own parsing does."""
        parsed: object = json.loads(self.body)
        return parsed


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `headers` come after content-length and content-type."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A reply that comes event by event, each as the bytes of one chunk. Raising out of `events` cuts it.

    `linger` = how many more events the program makes for a client that has left; None = all of them.
    """

    events: AsyncGenerator[bytes, None]
    linger: int | None = 0


def json_reply(content: object, status: int = 200, headers: Headers = ()) -> Reply:
    """JSON as FastAPI writes it: no blanks, not escaped, no NaN. A lone surrogate is a ValueError."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Reply(status, text.encode(), headers=headers)


def detail(status: int, message: str, headers: Headers = ()) -> Reply:
    """FastAPI's body for an HTTPException."""
    return json_reply({"detail": message}, status, headers)


def server_error() -> Reply:
    """What uvicorn sends when a program raised."""
    return Reply(500, b"Internal Server Error", "text/plain; charset=utf-8")


def sse(data: str) -> bytes:
    """One event as sse-starlette writes it: CRLF, a `data: ` before every line."""
    return "".join(f"data: {line}\r\n" for line in _LINE_END.split(data)).encode() + b"\r\n"


def compact(content: object) -> str:
    """JSON as pydantic 2 writes it."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def spaced(content: object, *, escaped: bool = False) -> str:
    """JSON as Python's json module writes it by default, which is how pydantic 1 writes it."""
    return json.dumps(content, ensure_ascii=escaped)
