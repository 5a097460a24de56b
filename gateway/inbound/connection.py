"""Connection: one client's connection, with limits where uvicorn's protocol has none.

A connection goes round through the stages:

    IDLE    between two requests, or before the first
    HEAD    a request line has begun; its headers are not complete
    BODY    the application runs; the rest of the request is still to come
    ANSWER  the request is complete, its answer is not
    LAST    as ANSWER, but something came behind the request: it is not read, and the connection ends
    ENDING  everything is said; what still comes is dropped until the client closes, or for `LINGER` seconds

Only IDLE leads to a new request. So no two requests of a connection are ever in work, whatever was sent in
one packet, and there is never more than one answer to a message.

What a limit costs: a few additions a request. Nothing sets a timer; `check` is called about once a second.
"""

from __future__ import annotations

import asyncio
import math
from enum import Enum, auto
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import BadRequest, GatewayError, HeadersTooLarge, RequestTimeout, TargetTooLong
from gateway.inbound import head, refusal
from gateway.inbound.arrivals import Arrivals

MAX_TARGET = 8_192
"""Longest request target, in bytes: what RFC 9112 asks servers to take."""
HIGH_WATER = 32_768
"""Unsent bytes of an answer above which its writer waits."""
LINGER = 2.0
"""Seconds a client has to read its last answer. Closing at once, with bytes unread, would reset the
connection and could take the answer from it."""
NEVER = math.inf
_WATCHED = head.WATCHED | {b"expect"}


class Stage(Enum):
    """Where a connection is; see above."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    LAST = auto()
    ENDING = auto()


# Looking a member up in its class costs as much as ten of these names, and is done for every request.
_IDLE, _HEAD, _BODY, _ANSWER, _LAST, _ENDING = Stage


class _Behind(Exception):
    """Something stands behind a request whose answer is not complete."""


class _LastTransport:
    """A connection's transport for its last answer: closing it gives the client time to read the answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.end()


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


class Connection(HttpToolsProtocol):
    """One client's connection. Made by uvicorn, which must have been given `Arrivals` as its state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if not isinstance(server_state, Arrivals):
            raise TypeError("Connection needs Arrivals as the server's state")
        self.arrivals = server_state
        self.limits = server_state.limits
        self.stage = _IDLE
        self.deadline = NEVER
        self._deaf = False
        self._framing = 0  # bytes since the request began, or since a piece of its body
        self._watched: list[tuple[bytes, bytes]] = []
        self._approved: tuple[str, list[tuple[bytes, bytes]]] = ("", [])
        self._keep_alive = False
        self._last = cast("asyncio.Transport", _LastTransport(self))  # has what an answer needs of one
        self._unsent = 0
        self._stalled_since = 0.0

    # --- coming and going --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin; or refuse at once, where there are too many already."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.deadline = self.loop.time() + self.limits.header_timeout
        error = self.arrivals.enter(self, self.client[0] if self.client else None)
        if error is None:
            return
        if self.arrivals.crowded:
            self._deaf = True
            transport.abort()
        else:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deaf = True
        self.arrivals.leave(self)

    def shutdown(self) -> None:
        super().shutdown()
        self._keep_alive = False

    def end(self) -> None:
        """Say that no more comes, and let the client read what was said before the connection closes."""
        self._enter(_ENDING, self.loop.time() + LINGER)
        self.flow.resume_reading()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _enter(self, stage: Stage, deadline: float) -> None:
        self.stage = stage
        self.deadline = deadline
        self._deaf = stage is _LAST or stage is _ENDING

    # --- what comes --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read on, and keep count."""
        if self._deaf:
            return
        before = self.stage
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._answer_last()  # an upgrade is ignored; what follows it would be another protocol
        except httptools.HttpParserError as error:
            self._stumble(error)
        else:
            if self.stage is not _ANSWER:
                self._set_deadline(before)

    def _set_deadline(self, before: Stage) -> None:
        stage = self.stage
        if stage is _IDLE:
            return
        if self._framing > self.limits.max_header_bytes:
            self._refuse(self._too_large())
        elif stage is _BODY:
            self.deadline = self.loop.time() + self.limits.body_timeout
        elif before is _IDLE and self.cycle is not None:  # the first head has its time from the start
            self.deadline = self.loop.time() + self.limits.header_timeout

    def _stumble(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if self.stage is _ANSWER or isinstance(cause, _Behind):
            self._answer_last()
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
        elif isinstance(error, httptools.HttpParserCallbackError):
            self._refuse(BadRequest("The request's target cannot be read."))
        else:
            self._refuse(BadRequest(f"The request is not well-formed HTTP: {error}."))

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The request's head is larger than {self.limits.max_header_bytes} bytes or has more than"
            f" {self.limits.max_headers} headers."
        )

    # --- the parser's callbacks --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request, unless one is being answered."""
        if self.stage is not _IDLE:
            raise _Behind
        self.stage = _HEAD
        self._watched = []
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer in a list that nobody sees."""
        name = name.lower()
        if name in _WATCHED:
            self._watched.append((name, value))
            self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the application, if the head is as it should be."""
        self._require_small_head()
        heard = (self.parser.get_http_version(), self._watched)
        if heard != self._approved:  # one client says the same each time
            head.check(*heard)
            self._approved = heard
        super().on_headers_complete()
        self.headers = []  # what comes from now on are trailers; the application never sees them
        self._framing = 0
        self.stage = _BODY
        # An answer that begins before the request is complete is the last one: the rest is not waited for.
        cycle = self.cycle
        self._keep_alive = cycle.keep_alive
        cycle.keep_alive = False
        cycle.transport = self._last

    def _require_small_head(self) -> None:
        limits = self.limits
        if len(self.url) > MAX_TARGET:
            raise TargetTooLong(f"The request's target is longer than {MAX_TARGET} bytes.")
        if len(self.headers) > limits.max_headers:
            raise self._too_large()
        most = limits.max_header_bytes  # what was counted may hold a piece of the body: then look closely
        if self._framing > most and _size(self.headers) + len(self.url) > most:
            raise self._too_large()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._framing = 0
        cycle = self.cycle
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Let the answer leave the connection open, if it has not begun yet."""
        if self.headers and _size(self.headers) > self.limits.max_header_bytes:
            raise self._too_large()
        self.stage = _ANSWER
        self.deadline = NEVER
        cycle = self.cycle
        cycle.more_body = False
        cycle.message_event.set()
        if not cycle.response_started:
            cycle.keep_alive = self._keep_alive
            cycle.transport = self.transport

    def on_response_complete(self) -> None:
        """Wait for the next request. The sweep ends the wait; uvicorn's own timer is not used."""
        self.server_state.total_requests += 1
        if self.stage is not _ANSWER or self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._framing = 0
        self.stage = _IDLE
        self.deadline = self.loop.time() + self.timeout_keep_alive

    # --- ends --------------------------------------------------------------------------------------

    def _answer_last(self) -> None:
        """Complete the answer in work and read no more."""
        self._enter(_LAST, NEVER)
        self.cycle.keep_alive = False
        self.cycle.transport = self._last

    def _refuse(self, error: GatewayError) -> None:
        """Answer in the application's place and end. Does not answer where an answer has begun."""
        self.arrivals.refused(error.code or "bad_request")
        if self.stage is _BODY and self._disconnect(error):
            self.transport.close()
            return
        self.transport.write(refusal.answer(error, self.server_state.default_headers))
        self.end()

    def _disconnect(self, error: GatewayError) -> bool:
        """Let the application see its client gone, and why; tell whether it has begun its answer."""
        cast("dict[str, Any]", self.cycle.scope)["fault"] = error
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return self.cycle.response_started

    def check(self, now: float) -> None:
        """End what has taken too long by `now`."""
        if self._stalls(now):
            self.arrivals.refused("write_timeout")
            self.transport.abort()
        elif now >= self.deadline:
            self._expire(now)

    def _stalls(self, now: float) -> bool:
        # While a writer waits, the unsent bytes can only become fewer: any change is progress.
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._stalled_since = now
        return unsent > 0 and now - self._stalled_since >= self.limits.write_timeout

    def _expire(self, now: float) -> None:
        if self.stage is _HEAD:
            self._refuse(RequestTimeout("The request's headers took too long."))
        elif self.stage is _BODY and self.flow.read_paused:
            self.deadline = now + self.limits.body_timeout  # it is not the client who keeps us waiting
        elif self.stage is _BODY:
            self._refuse(RequestTimeout("The request's body came too slowly."))
        else:
            self.deadline = NEVER
            self.transport.close()
