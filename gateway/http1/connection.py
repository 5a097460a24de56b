"""Connection: one client's connection, in the place of uvicorn's own protocol, which has no limits.

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
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.errors import (
    BadRequest,
    GatewayError,
    HeadersTooLarge,
    InternalError,
    NoMemory,
    RequestTimeout,
    TargetTooLong,
    forget_trace,
)
from gateway.formats.headers import CONTINUE, members
from gateway.http1 import head, refusal
from gateway.http1.admission import ConnectionAdmission
from gateway.http1.exchange import HttpExchange
from gateway.http1.request_loop import RequestLoop
from gateway.upstream.socket_options import acknowledge

MAX_TARGET = 8_192
"""Longest request target, in bytes: what RFC 9112 asks servers to take."""
HIGH_WATER = 32_768
"""Unsent bytes of an answer above which its writer waits."""
FULL_READ = 16_384
"""Bytes of a read behind which there is more: it needs no acknowledgement of its own."""
LINGER = 2.0
"""Seconds a client has to read its last answer. Closing at once, with bytes unread, would reset the
connection and could take the answer from it."""
NEVER = math.inf
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]
"""An ASGI application that gives a coroutine, and not only something to wait for."""
_WATCHED = head.WATCHED | {b"expect", b"origin"}
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_OWN = dict.fromkeys(("headers", "state", "exchange"))
"""What each request has of its own in its scope."""


class ClientConnectionState(Enum):
    """Where a connection is; see above."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    LAST = auto()
    ENDING = auto()


# Looking a member up in its class costs as much as ten of these names, and is done for every request.
_IDLE, _HEAD, _BODY, _ANSWER, _LAST, _ENDING = ClientConnectionState


def _no_memory() -> NoMemory:
    return NoMemory("The gateway is out of memory. Try again.", retry_after=1)


class _ReadBehind(Exception):
    """Something stands behind a request whose answer is not complete."""


def _target(method: bytes, url: bytes) -> dict[str, Any]:
    """What a scope says of where a request goes. Raises `BadRequest` where it has a fragment."""
    if b"#" in url:
        raise BadRequest("The request's target has a fragment (#), which is never sent.")
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "method": method.decode("ascii"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": parsed.path,
        "query_string": parsed.query or b"",
    }


def _size(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


class ClientConnection(asyncio.Protocol):
    """One TCP connection of a client. Made by uvicorn, whose state must be a `ConnectionAdmission`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not isinstance(server_state, ConnectionAdmission):
            raise TypeError("ClientConnection needs a ConnectionAdmission as the server's state")
        if not config.loaded:
            config.load()
        self.admission = server_state
        self.limits = server_state.limits
        self.write_batcher = server_state.write_batcher
        self.app = cast("Application", config.loaded_app)
        self.loop = _loop or asyncio.get_event_loop()
        self.nothing = self.loop.create_future()
        self.nothing.set_result(None)
        self.parser = self._new_parser()
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)  # until the connection is made
        self.flow: FlowControl = cast("FlowControl", None)
        self.cycle: HttpExchange | None = None
        self._worker: RequestLoop | None = None
        self.stage = _IDLE
        self.deadline = NEVER
        self._app_state = app_state
        self._remembered: dict[str, Any] = {}  # by the application, from one request to the next
        self._scope: dict[str, Any] = {}  # what all requests of the connection have in common
        self._deaf = False
        self._framing = 0  # bytes since the request began, or since a piece of its body
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._watched: list[tuple[bytes, bytes]] = []
        self._expects = False
        self._approved: tuple[str, list[tuple[bytes, bytes]]] = ("", [])
        self._aimed: tuple[bytes, bytes] = (b"", b"")
        self._authority: bytes | None = None  # whom an absolute target names
        self._form: dict[str, Any] = {}  # the scope of a request for the same target, still without its own
        self._keep_alive = False
        self._offer: list[tuple[bytes, bytes]] | None = (
            None  # how a request with an offer to upgrade is framed
        )
        self._resuming = self._lingers = False
        self._received = 0  # bytes of the body
        self._body_began = self._checked = 0.0
        self._unsent = 0
        self._stalled_since = 0.0

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # What stands behind a last request is refused here, with its answer, and not by the parser; nor does
        # that end the connection, as it would for a trailer.
        parser.set_dangerous_leniencies(lenient_keep_alive=True)
        return parser

    # --- coming and going --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Begin; or refuse at once, where there are too many already."""
        self.admission.connections.add(cast("Any", self))
        self.transport = transport
        self.flow = FlowControl(transport)
        client = get_remote_addr(transport)
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": get_local_addr(transport),
            "client": client,
            "scheme": "http",
            "root_path": "",
        }
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.deadline = self.loop.time() + self.limits.header_timeout
        error = self.admission.enter(self, client[0] if client else None)
        if error is None:
            return
        if self.admission.crowded:
            self._deaf = True
            transport.abort()
        else:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let the application know."""
        self._deaf = True
        self.admission.connections.discard(cast("Any", self))
        self.admission.leave(self)
        if self.cycle is not None:
            self.cycle.leave()
            self.cycle = None  # it refers to us: no reference cycle stays behind
        if self._worker is not None:
            self._worker.dismiss()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        del self.parser  # it knows us, and we know it

    def pause_writing(self) -> None:
        """Let whoever answers wait."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Let the answer go on."""
        self.flow.resume_writing()

    def shutdown(self) -> None:
        """End after the answer in work, if there is one: the server is about to end."""
        if self.cycle is None or self.cycle.complete:
            self._close()
        else:
            self._keep_alive = self.cycle.keep_alive = False

    def end(self) -> None:
        """Say that no more comes, and let the client read what was said before the connection closes."""
        self._enter(_ENDING, self.loop.time() + LINGER)
        self.flow.resume_reading()
        self.write_batcher.flush()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        else:
            self.transport.close()

    def write(self, data: bytes) -> None:
        """Say something, soon."""
        self.write_batcher.write(self.transport, data, self.loop)

    def _close(self) -> None:
        """Close once everything is said."""
        self.write_batcher.flush()
        self.transport.close()

    def _enter(self, stage: ClientConnectionState, deadline: float) -> None:
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
            self._feed(data)
        except httptools.HttpParserUpgrade:
            self._answer_last()  # CONNECT: what follows would be another protocol
        except httptools.HttpParserError as error:
            self._stumble(error)
        except MemoryError:
            self._refuse(_no_memory())
        else:
            if self.stage is not _ANSWER:
                self._set_deadline(before, len(data))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._offer is None:
                raise
            self._decline(self._offer)
            self.parser.feed_data(data[offer.args[0] :])

    def _decline(self, framing: list[tuple[bytes, bytes]]) -> None:
        """Go on after a head with an offer to upgrade, which is ignored (RFC 9110, 7.8).

        The parser skips the body of such a request. So another one reads it, by the same framing.
        """
        self._offer, self._resuming = None, True
        self.parser = self._new_parser()
        lines = b"".join(b"%b: %b\r\n" % field for field in framing)
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines)
        finally:
            self._resuming = False

    def _set_deadline(self, before: ClientConnectionState, size: int) -> None:
        stage = self.stage
        if stage is _IDLE:
            return
        if self._framing > self.limits.max_header_bytes:
            self._refuse(self._too_large())
        elif stage is _BODY:
            now = self.loop.time()
            self.deadline = now + self.limits.body_timeout
            if not self._body_began:
                self._body_began = self._checked = now
            if size < FULL_READ and (sock := self.transport.get_extra_info("socket")) is not None:
                acknowledge(sock)  # under Nagle's algorithm the client keeps the next piece back till then
        elif before is _IDLE and self.cycle is not None:  # the first head has its time from the start
            self.deadline = self.loop.time() + self.limits.header_timeout

    def _stumble(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if self.stage is _ANSWER or isinstance(cause, _ReadBehind):
            self._answer_last()
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
            forget_trace(error)
        elif isinstance(cause, MemoryError):
            self._refuse(_no_memory())
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
        if self._resuming:
            return
        if self.stage is not _IDLE:
            raise _ReadBehind
        self.stage = _HEAD
        self._url = b""
        self._headers = []
        self._watched = []
        self._expects = False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        if not self._resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer in a list that nobody sees."""
        if self._resuming:
            return
        name = name.lower()
        if name in _WATCHED and self.stage is _HEAD:
            self._watched.append((name, value))
            self._expects |= name == b"expect" and CONTINUE in members(value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the application, if the head is as it should be."""
        if self._resuming:
            return
        framing, limits = self._framing, self.limits  # where the whole is small, so is each part
        if (
            framing > MAX_TARGET
            or framing > limits.max_header_bytes
            or len(self._headers) > limits.max_headers
        ):
            self._require_small_head()
        parser = self.parser
        version = parser.get_http_version()
        heard = (version, self._watched)
        if heard != self._approved:  # one client says the same each time
            head.check(*heard)
            self._approved = (version, self._watched.copy())
        aimed = (parser.get_method(), self._url)
        if aimed != self._aimed:
            self._authority, url = head.parted(self._url)
            self._form = self._scope | _target(aimed[0], url) | _OWN
            self._aimed = aimed
        if self._authority is not None:
            self._headers = head.addressed(self._headers, self._authority)
        old = self._lingers = version == "1.0"  # its client may not know that nothing behind it is read
        cycle = self.cycle = HttpExchange(
            self, aimed[0] == b"HEAD", self._expects and not old, old, self._remembered
        )
        self._offer = self._framed() if parser.should_upgrade() and aimed[0] != b"CONNECT" else None
        scope = self._form.copy()
        if version != "1.1":
            scope["http_version"] = version
        scope["headers"] = self._headers
        scope["state"] = self._app_state.copy()
        scope["exchange"] = cycle
        self._headers = []  # what comes from now on are trailers; the application never sees them
        self._framing = self._received = 0
        self._body_began = 0.0
        self.stage = _BODY
        # An answer that begins before the request is complete is the last one: the rest is not waited for.
        self._keep_alive = not old and parser.should_keep_alive()
        self._serve(cycle, self.app(scope, cycle.receive, cycle.send))

    def _framed(self) -> list[tuple[bytes, bytes]]:
        """The headers that say how long the body is."""
        return [field for field in self._headers if field[0] in _FRAMING]

    def _serve(self, cycle: HttpExchange, work: Coroutine[Any, Any, None]) -> None:
        worker = self._worker
        if worker is None or not worker.rests:  # the first request, or the last one's is not at its very end
            if worker is not None:
                worker.dismiss()
            worker = self._worker = RequestLoop(self.loop)
        cycle.task = task = worker.task
        self.admission.tasks.add(task)
        worker.give(work, cycle.finish)

    def _require_small_head(self) -> None:
        limits = self.limits
        if len(self._url) > MAX_TARGET:
            raise TargetTooLong(f"The request's target is longer than {MAX_TARGET} bytes.")
        if len(self._headers) > limits.max_headers:
            raise self._too_large()
        most = limits.max_header_bytes  # what was counted may hold a piece of the body: then look closely
        if self._framing > most and _size(self._headers) + len(self._url) > most:
            raise self._too_large()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        self._framing = 0
        self._received += len(body)
        if self.cycle is not None:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        """Let the answer leave the connection open, if it has not begun yet."""
        if self._offer is not None:
            return  # only for the parser; the body is still to come
        if self._headers and _size(self._headers) > self.limits.max_header_bytes:
            raise self._too_large()
        self.stage = _ANSWER
        self.deadline = NEVER
        cycle = self.cycle
        if cycle is not None:
            cycle.end_body()
            cycle.keep_alive = self._keep_alive and not cycle.started

    def on_response_complete(self, *, keep_alive: bool) -> None:
        """Wait for the next request, or end. The sweep ends the wait: it needs no timer."""
        self.admission.total_requests += 1
        if self.transport.is_closing():
            return
        if self.stage is not _ANSWER or self._lingers:
            self.end()
        elif not keep_alive:
            self._close()
        else:
            if self.flow.read_paused:
                self.flow.resume_reading()
            self._framing = 0
            self.stage = _IDLE
            self.deadline = self.loop.time() + self.limits.keepalive

    @property
    def _running(self) -> HttpExchange:
        if self.cycle is None:
            raise RuntimeError("There is no request.")
        return self.cycle

    # --- ends --------------------------------------------------------------------------------------

    def _answer_last(self) -> None:
        """Complete the answer in work and read no more."""
        self._enter(_LAST, NEVER)
        self._running.keep_alive = False

    def fail(self) -> None:
        """Answer in the place of an application that did not; cut the answer off where it has begun."""
        if self._running.delimited_by_end:
            self.transport.abort()  # a proper end would look like the end of a whole answer
        elif self._running.started:
            self._close()
        else:
            self._say(InternalError("The gateway failed."))

    def _refuse(self, error: GatewayError) -> None:
        """Answer in the application's place and end. Does not answer where an answer has begun."""
        self.admission.refused(error.code or "bad_request")
        if self.stage is _BODY and self._disconnect(error):
            self._close()
            return
        self._say(error)

    def _say(self, error: GatewayError) -> None:
        """Answer, and end. A page that may read answers may read this one."""
        origin = next((value for name, value in self._watched if name == b"origin"), None)
        admission = self.admission
        self.write(refusal.answer(error, admission.default_headers, admission.cors(origin)))
        self.end()

    def _disconnect(self, error: GatewayError) -> bool:
        """Let the application see its client gone, and why; tell whether it has begun its answer."""
        cycle = self._running
        cycle.fault = error
        cycle.leave()
        return cycle.started

    def check(self, now: float) -> None:
        """End what has taken too long by `now`."""
        if self._stalls(now):
            self.admission.refused("write_timeout")
            self.transport.abort()
        elif now >= self.deadline:
            self._expire(now)
        elif self.stage is _BODY and self._body_began:
            self._check_pace(now)

    def _check_pace(self, now: float) -> None:
        """Refuse a body that comes too slowly. The time in which it is not read does not count."""
        if self.flow.read_paused:
            self._body_began += now - self._checked
        self._checked = now
        limits, seconds = self.limits, now - self._body_began
        slow = seconds >= limits.body_timeout and self._received < limits.body_rate * seconds
        if slow or seconds >= limits.body_total:
            self._refuse(RequestTimeout("The request's body came too slowly."))

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
            self._close()
