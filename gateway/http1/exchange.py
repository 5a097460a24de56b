"""`HttpExchange`: one request as the ASGI application sees it, and the bytes of its response.

The head of a response is written together with the first piece of its body. An application that breaks the
ASGI protocol (messages in the wrong order, a body of the wrong length, control characters in a header) gets
a `RuntimeError`.
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
"""Pieces of a body from this size on, in bytes, are not joined to the head: that would copy them."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_OK = _STATUS_LINES[HTTPStatus.OK]
_BODILESS = frozenset({204, 304})
# Control characters, which may not stand in a header (a tab is none here), as they look when all are alike;
# but for those of the ends of lines, which are counted.
_MARKED = bytes(0 if (code < 32 and code not in b"\t\r\n") or code == 127 else code for code in range(256))


class ExchangeConnection(Protocol):
    """The connection of an exchange, as far as the exchange uses it."""

    transport: asyncio.Transport
    flow: FlowControl
    nothing: asyncio.Future[None]
    admission: ConnectionAdmission

    def write(self, data: bytes) -> None:
        """Write bytes with the next batch."""

    def on_response_complete(self, *, keep_alive: bool) -> None:
        """Continue with the next request, or close, after a complete response."""

    def fail(self) -> None:
        """Answer with an error because the application did not answer."""


class HttpExchange:
    """One request and its response. The connection puts it into the ASGI scope as `exchange`.

    Attributes:
        gone: True once the client has disconnected or need not be answered; everything sent then is dropped.
        fault: why the connection itself refused the rest of the request, if it did.
        on_leaving: called when `gone` becomes True.
        keep_alive: whether the connection stays open after the response; settled by the head.
        started: True once the head has been written.
        complete: True once the whole response has been written.
        delimited_by_end: True for HTTP/1.0 clients if the end of the connection marks the end of the body.
        context: the `RequestContext` of the application.
        remembered: values that the application keeps for later requests on the connection.
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
    """The task that serves the request. Set before it runs."""

    # --- what the connection tells -----------------------------------------------------------------

    def feed(self, body: bytes) -> None:
        """Accept a piece of the request body."""
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
        """Note that the request body is complete."""
        self._more = False
        self._news = True
        if self._flow.read_paused:
            self._flow.resume_reading()  # or its client's end would not be seen
        if self._event is not None:
            self._event.set()

    def leave(self) -> None:
        """Note that the client has disconnected. Without effect once the response is complete."""
        if self.gone or self.complete:
            return
        self.gone = True
        self.body = b""
        self._wake()
        if self.on_leaving is not None:
            self.on_leaving()

    def finish(self, error: Exception | None) -> None:
        """Finish after the application has ended with `error`: closes after an incomplete response."""
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
        """Return the part of the body that has arrived since the last call, or the disconnect message."""
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
        """Write a message at once. The returned awaitable is done, unless the client reads too slowly."""
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
        """Return the body if all of it has arrived and no `100 Continue` is due; else None."""
        if self._more or self._expects or self.gone or self._flow.read_paused or not self._news:
            return None
        self._news = False
        body, self.body = self.body, b""
        return body if isinstance(body, bytes) else bytes(body)

    def answer(self, lines: Sequence[bytes], body: bytes) -> Awaitable[None]:
        """Write a complete response with status 200 in one step; `content-length` is added.

        The headers, one `name: value` line each, must not contain `content-length` or `connection`.
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
        """Write a piece of a body that has begun, without building an ASGI message."""
        if piece and self.flows:
            self.pour(piece)
            return self._line.nothing
        return self.send({"type": "http.response.body", "body": piece, "more_body": True})

    @property
    def flows(self) -> bool:
        """True if a piece of a chunked body may be written now without any further check."""
        return self.started and self._chunked and not (self.gone or self.complete or self._flow.write_paused)

    def pour(self, piece: bytes) -> None:
        """Write a piece that is not empty. Only while `flows` is True."""
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
        """Return the headers about framing that the application has not set, and the end of the head."""
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
