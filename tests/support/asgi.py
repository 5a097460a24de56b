"""The gateway's applications called without sockets: whole answers, streams, and clients that leave."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import ASGIApp, Message, Send

from gateway.compose import Gateway, create_app
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.formats.headers import pairs
from gateway.telemetry.logs.events import EventLog, configure
from tests.support.servers import Servers
from tests.support.stack import configured, wait_until

Headers = dict[str, str] | Sequence[tuple[str, str]]


class Client:
    """The other end of a request, as `inbound` shows it to the application (`Presence`)."""

    def __init__(self) -> None:
        self.gone = False
        self.context: object = None
        self.remembered: dict[str, Any] = {}
        self.fault: GatewayError | None = None
        self.on_leaving: Callable[[], None] | None = None
        self.left = asyncio.Event()

    @property
    def task(self) -> asyncio.Task[None]:
        """The one that serves: in a test, whichever asks."""
        return cast("asyncio.Task[None]", asyncio.current_task())

    send: Send
    """What the application sends with."""

    def whole_body(self) -> None:
        """Nothing: the body has to be received."""

    async def answer(self, lines: Sequence[bytes], body: bytes) -> None:
        """Take a whole answer."""
        said = [*pairs(lines), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": 200, "headers": said})
        await self.send({"type": "http.response.body", "body": body})

    def push(self, piece: bytes) -> Awaitable[None]:
        """Take a piece of a body."""
        return self.send({"type": "http.response.body", "body": piece, "more_body": True})

    flows = False
    """Every piece is sent as a message."""

    def pour(self, piece: bytes) -> None:
        """Nothing flows here."""
        raise AssertionError(piece)

    def leave(self) -> None:
        """Close the connection."""
        self.gone = True
        self.left.set()
        if self.on_leaving is not None:
            self.on_leaving()

    async def receive(self) -> Message:
        """What the application hears when everything has been said."""
        await self.left.wait()
        return {"type": "http.disconnect"}


@dataclass
class Call:
    """One request to an application, and what has come back so far. Made by `Rig.begin` or `begin`."""

    task: asyncio.Task[None] = field(init=False, repr=False)
    client: Client = field(default_factory=Client, repr=False)
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        """All bytes so far."""
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What the OpenAI error envelope holds."""
        error: dict[str, Any] = self.json["error"]
        return error

    def header(self, name: str) -> str | None:
        """The only header of that name, if there is one."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, found
        return found[0] if found else None

    @property
    def frames(self) -> list[str]:
        """The event stream so far, blank lines taken off: `data: ...` and `: ...`."""
        *frames, rest = self.body.decode().split("\n\n")
        assert rest == "", "an event was cut"
        return frames

    @property
    def events(self) -> list[Any]:
        """The data of the event stream as JSON; `[DONE]` as it is; comments left out."""
        data = [frame.removeprefix("data: ") for frame in self.frames if frame.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    def leave(self) -> None:
        """Close the connection, as a client does."""
        self.client.leave()


def begin(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Headers = (),
    body: bytes | Sequence[bytes] = b"",
    query: bytes = b"",
    raw_path: bytes | None = None,
) -> Call:
    """Start a request; the call fills while it is awaited elsewhere."""
    call = Call()
    pairs = headers.items() if isinstance(headers, dict) else headers
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    pieces = [body] if isinstance(body, bytes) else list(body)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": query,
        "root_path": "",
        "headers": raw if b"host" in dict(raw) else [(b"host", b"localhost"), *raw],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "exchange": call.client,
    }

    async def receive() -> Message:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        return await call.client.receive()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not call.status, "an answer began twice"
            call.status = message["status"]
            call.headers = [
                (key.decode("latin-1"), value.decode("latin-1")) for key, value in message["headers"]
            ]
        elif not call.client.gone:
            assert call.status, "a body came before its head"
            assert not call.complete, "a body came after its end"
            call.chunks += [message["body"]] if message["body"] else []
            call.complete = not message.get("more_body", False)

    call.client.send = send

    async def run() -> None:
        await app(scope, receive, send)

    call.task = asyncio.get_running_loop().create_task(run())
    return call


async def fetch(app: ASGIApp, method: str, path: str, **options: Any) -> Call:
    """One request, answered whole."""
    call = begin(app, method, path, **options)
    async with asyncio.timeout(20):
        await call.task
    return call


@dataclass
class Rig:
    """A gateway over fake servers, and its log."""

    gateway: Gateway
    servers: Servers
    log: io.StringIO
    logs: EventLog

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        self.logs.flush()
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    @property
    def access(self) -> list[dict[str, Any]]:
        """The lines of requests."""
        return [line for line in self.lines if line["event"] == "request"]

    def begin(self, path: str = "/v1/chat/completions", body: Any = None, **options: Any) -> Call:
        """Start a POST; a `body` that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        return begin(self.gateway.data, "POST", path, body=raw, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Call:
        """A POST, answered whole."""
        call = self.begin(path, body, **options)
        async with asyncio.timeout(20):
            await call.task
        return call

    async def chat(self, headers: Headers = (), **fields: Any) -> Call:
        """A chat request for the model `m`, answered whole."""
        return await self.post("/v1/chat/completions", chat(**fields), headers=headers)

    async def get(self, path: str, **options: Any) -> Call:
        """A GET on the data plane."""
        return await fetch(self.gateway.data, "GET", path, **options)

    @property
    def busy(self) -> int:
        """Slots taken."""
        return sum(self.gateway.dispatcher.in_flight(name) for name in self.gateway.fleet)


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request for the model `m`."""
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def with_server(settings: Config, **changes: Any) -> Config:
    """The same settings with another `[server]`."""
    return settings.model_copy(update={"server": settings.server.model_copy(update=changes)})


@asynccontextmanager
async def rig(
    servers: Servers,
    dialect: str | dict[str, str] = "openai",
    extra: str = "",
    server: dict[str, Any] | None = None,
    **backend: Any,
) -> AsyncIterator[Rig]:
    """A gateway over these servers; `server` are values of `[server]`, `extra` is more TOML."""
    log = io.StringIO()
    settings = with_server(configured(servers.urls(dialect), extra, **backend), **(server or {}))
    logs = configure("json", "debug", log)
    gateway = create_app(settings, logs, transport=servers.transport)
    made = Rig(gateway, servers, log, logs)
    try:
        yield made
        await wait_until(lambda: made.busy == 0)
    finally:
        await gateway.aclose()
        logs.flush()
