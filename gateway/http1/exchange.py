"""One request as the application sees it, and the bytes of its response.

The head of an answer waits for the first piece of its body: both leave in one write. What an application
says in too many words, too few, or with a line end in a header is a bug of ours and raises `RuntimeError`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import Message
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from gateway.errors import GatewayError
from gateway.formats.headers import pairs
from gateway.http1.admission import ConnectionAdmission

LARGE = 65_536
"""Bytes of a body that is written by itself: joining it to its head would cost more than a second write."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_OK = _STATUS_LINES[HTTPStatus.OK]
_BODILESS = frozenset({204, 304})
# Control characters, which may not stand in a header (a tab is none here), as they look when all are alike;
# but for those of the ends of lines, which are counted.
_MARKED = bytes(0 if (code < 32 and code not in b"\t\r\n") or code == 127 else code for code in range(256))


class ExchangeConnection(Protocol):
    """A connection, as its cycles know it."""

    transport: asyncio.Transport
    flow: FlowControl
    nothing: asyncio.Future[None]
    admission: ConnectionAdmission

    def write(self, data: bytes) -> None:
        """Say something, soon."""

    def on_response_complete(self, *, keep_alive: bool) -> None:
        """Go on, or end, after a whole answer."""

    def fail(self) -> None:
        """Answer in the place of an application that did not."""


class HttpExchange:
    """One request and its answer. Lies in the scope as `presence`, which tells whether the client is there.

    `gone` says that it is not, or need not be told anything: whatever is sent then is dropped, and `fault`
    may say why. `on_leaving` is called when that happens. `keep_alive` may change until the head is written,
    which makes it `started`. `old`: the client speaks HTTP/1.0; its bodies without a length are
    `delimited_by_end`, the end of the connection.
    """

    __slots__ = (
        "_chunked",
        "_event",
        "_expects",
        "_flow",
        "_head_only",
        "_left",
        "_line",
        "_more",
        "_news",
        "_old",
        "_start",
        "body",
        "complete",
        "context",
        "delimited_by_end",
        "fault",
        "gone",
        "keep_alive",
        "on_leaving",
        "remembered",
        "started",
        "task",
    )

    def __init__(
        self,
        line: ExchangeConnection,
        head_only: bool,
        expects: bool,
        old: bool = False,
        remembered: dict[str, Any] | None = None,
    ) -> None:
        self.context: object = None
        self.remembered = {} if remembered is None else remembered
        self._line = line
        self._flow = line.flow
        self._head_only = head_only
        self._expects = expects
        self._event: asyncio.Event | None = None
        self._news = False
        self._more = True
        self._start: Message | None = None
        self._chunked = False
        self._old = old
        self.delimited_by_end = False
        self._left = 0
        self.body: bytes | bytearray = b""
        self.keep_alive = False
        self.started = False
        self.complete = False
        self.gone = False
        self.fault: GatewayError | None = None
        self.on_leaving: Callable[[], None] | None = None

    task: asyncio.Task[None]
    """The one that serves the request; set before it runs."""

    # --- what the connection tells -----------------------------------------------------------------

    def feed(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self.gone or self.complete:
            return  # nobody will read it
        self._news = True
        if self._event is not None:
            self._event.set()
        if not self.body:
            self.body = body
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += body
        if len(self.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()

    def end_body(self) -> None:
        """Take note that the request is complete."""
        self._more = False
        self._news = True
        if self._flow.read_paused:
            self._flow.resume_reading()  # or its client's end would not be seen
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Take note that the client is gone; no matter once the answer is complete."""
        if self.gone or self.complete:
            return
        self.gone = True
        self.body = b""
        self._wake()
        if self.on_leaving is not None:
            self.on_leaving()

    def finish(self, error: Exception | None) -> None:
        """See to it that the application, which has ended so, leaves a whole answer or none."""
        if error is not None:
            logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
        self._line.admission.tasks.discard(self.task)
        if not self.gone and not self.complete:
            self.gone = True
            self._line.fail()

    def _wake(self) -> None:
        self._news = True
        if self._event is not None:
            self._event.set()

    # --- what the application calls ----------------------------------------------------------------

    async def receive(self) -> Message:
        """Give what has come of the body since the last time, or that the client is gone."""
        if self._expects:
            self._expects = False
            if not self._line.transport.is_closing():
                self._line.write(_CONTINUE)
        if self._flow.read_paused:
            self._flow.resume_reading()
        while not self._news and not self.gone and not self.complete:
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        self._news = False
        body, self.body = bytes(self.body), b""
        return {"type": "http.request", "body": body, "more_body": self._more}

    def send(self, message: Message) -> Awaitable[None]:
        """Write a message at once; the awaitable is done, unless the client reads too slowly."""
        if self.gone:
            return self._line.nothing
        if self._flow.write_paused:
            return self._send_later(message)
        if message["type"] == "http.response.body":
            self._write(message.get("body", b""), message.get("more_body", False))
        elif self._start is not None or message["type"] != "http.response.start":
            raise RuntimeError(f"{message['type']} at the wrong time.")
        else:
            self._start = message
            self._expects = False
        return self._line.nothing

    def whole_body(self) -> bytes | None:
        """Give the body at once if all of it has come, and nobody has to be told to send it or to go on."""
        if self._more or self._expects or self.gone or self._flow.read_paused or not self._news:
            return None
        self._news = False
        body, self.body = self.body, b""
        return body if isinstance(body, bytes) else bytes(body)

    def answer(self, lines: Sequence[bytes], body: bytes) -> Awaitable[None]:
        """Write a whole answer of status 200: two `send`s in one, and the length of the body is told for it.

        Its headers, `name: value` each, do not say how the body is framed, nor whether the connection stays.
        """
        begun = self.started or self._start is not None
        usual = self.keep_alive and not (begun or self._head_only or self._flow.write_paused)
        if self.gone:
            return self._line.nothing
        if not usual or len(body) >= LARGE:
            return self._answer_later(lines, body)
        line, end = self._line, b"content-length: %d\r\n\r\n" % len(body)
        line.write(b"".join((_OK, line.admission.standing, _fields(lines), end, body)))
        self.started = True
        self._complete()
        return self._line.nothing

    async def _answer_later(self, lines: Sequence[bytes], body: bytes) -> None:
        headers = [*pairs(lines), (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def push(self, piece: bytes) -> Awaitable[None]:
        """Write a piece of a body that has begun and has no end yet: `send`, without a message around it."""
        if piece and self.flows:
            self.pour(piece)
            return self._line.nothing
        return self.send({"type": "http.response.body", "body": piece, "more_body": True})

    @property
    def flows(self) -> bool:
        """Whether a piece of a chunked body may be written at once, without a look at anything else."""
        return self.started and self._chunked and not (self.gone or self.complete or self._flow.write_paused)

    def pour(self, piece: bytes) -> None:
        """Write a piece, which is not empty; only while the body `flows`."""
        self._line.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def _send_later(self, message: Message) -> None:
        await self._flow.drain()
        await self.send(message)

    # --- bytes -------------------------------------------------------------------------------------

    def _write(self, body: bytes, more: bool) -> None:
        if self.complete:
            raise RuntimeError("A body came after its end.")
        data = b"" if self.started else self._head()
        if self._chunked:
            if body:
                data = b"%b%x\r\n%b\r\n" % (data, len(body), body)
            if not more:
                data += _LAST_CHUNK
        elif self._head_only:
            pass
        elif self.delimited_by_end or (not more and len(body) == self._left < LARGE):
            data += body
        else:
            data = self._counted(data, body, more)
        self.started = True
        if data:
            self._line.write(data)
        if not more:
            self._complete()

    def _complete(self) -> None:
        self.complete = True
        self.body = b""
        if self._event is not None:
            self._event.set()
        self._line.on_response_complete(keep_alive=self.keep_alive)

    def _counted(self, data: bytes, body: bytes, more: bool) -> bytes:
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("The body has another length than its head says.")
        if len(body) < LARGE:
            return data + body
        if data:
            self._line.write(data)
        return body

    def _head(self) -> bytes:
        """The head; settles how the body is framed, and whether the connection goes on."""
        start = self._start
        if start is None:
            raise RuntimeError("A body came before its head.")
        status = start["status"]
        headers = start.get("headers", ())
        fields = _fields([*map(b": ".join, headers)])
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        return b"".join((line, self._line.admission.standing, fields, self._framed(status, dict(headers))))

    def _framed(self, status: int, headers: dict[bytes, bytes]) -> bytes:
        """The end of a head: what the application did not say of the framing itself."""
        length = headers.get(b"content-length")
        added = b""
        connection = headers.get(b"connection")
        if connection is not None and b"close" in connection.lower():
            self.keep_alive = False
        elif not self.keep_alive:
            added = b"connection: close\r\n"
        self._head_only = self._head_only or status in _BODILESS
        if length is not None:
            self._left = int(length)
        elif self._old and not self._head_only:
            self.delimited_by_end = True
        elif not self._head_only:
            self._chunked = True
            added += b"transfer-encoding: chunked\r\n"
        return added + b"\r\n"


def _fields(lines: Sequence[bytes]) -> bytes:
    fields = b"\r\n".join((*lines, b""))
    marked = fields.translate(_MARKED)
    if not (marked.count(b"\r") == marked.count(b"\n") == len(lines)) or marked.find(b"\0") >= 0:
        raise RuntimeError("A header has a control character in it.")
    return fields
