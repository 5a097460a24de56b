"""One HTTP/1.1 connection to a backend: sends a request, receives its response, and decides about reuse.

Theory of operation. A connection is idle (`complete` is true), busy from `start` until its response is
complete or has failed, or closed. The parser's callbacks only set attributes. The waiting task is woken at
most once per socket read and then checks the attributes. One request owns the connection, so there is at
most one waiter. A connection is not reused if its state is in doubt: after unsolicited bytes, after a
response that arrived before the request was fully sent, or after a head with ambiguous framing.

Opening. A connection without TLS is usable as soon as its socket is connected. Data written before the event
loop has created the transport is sent directly on the socket. A request to a server on the same machine is
therefore sent without waiting for another event-loop iteration.

Head. The parser validates the response head, but does not call back for each field: that would cost one call
per field, and few fields are ever read. The bytes of the head are kept and searched for the fields needed.

Memory. All connections of an event loop share one read buffer: the loop fills it and calls
`buffer_updated` in the same step. Reading pauses when `HIGH_WATER` undelivered bytes are held, and resumes
only when the reader has consumed them and waits for more. A slow client therefore slows down its backend.

Time. `limit` sets the time at which waiting ends. The timer is kept after the exchange: setting a later
limit, the usual case, does not change the timer, and a timer that fires too early is armed again. While a
body flows, each piece only stores its arrival time; the limit is computed from it when the timer fires.

TLS. Neither asyncio nor uvloop distinguishes a close_notify from a bare end of the connection. The end of a
close-delimited body over TLS therefore does not prove that the body is complete. The reader of such a body
must recognise its end by the content.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Final, Literal, TypeAlias, cast

import httptools

from gateway.upstream import socket_options
from gateway.write_batcher import WriteBatcher

HIGH_WATER = 32 * 1024
"""Undelivered bytes of a body (and its framing) at which reading pauses."""
READ = 16 * 1024
"""The most bytes read from the socket at once: the size of a TLS record."""
MAX_HEAD = 64 * 1024
"""The largest response head in bytes, including preceding interim responses. Also the most bytes of framing
(chunk sizes, trailers) that may arrive without a byte of body."""
MAX_HEADERS = 100
"""The most header fields of a response."""
_FEW_HEADERS = MAX_HEADERS * len(b"\r\na:")
"""A head of at most this many bytes cannot have more than `MAX_HEADERS` fields."""
MAX_INTERIM = 10
"""The most interim (1xx) responses before the final response."""
ONE_WRITE = 64 * 1024
"""The largest part of a body that is written at once, in bytes. The first part is sent with the head."""

GRAIN = 0.001
"""How early the timers of asyncio and uvloop may fire, in seconds."""

ReadyAt: TypeAlias = Literal["head", "body", "end"]
"""The part of the response for which the waiting task is first woken: the head, the first bytes of the body,
or the end. An error, or a body so large that reading pauses, always wakes the task."""

REFUSED: Final = 0
HEARD: Final = 1
SILENT: Final = 2
Taken: TypeAlias = Literal[0, 1, 2]
Taker: TypeAlias = Callable[[bytes], Taken]
"""Accepts a piece of a body with content (`HEARD`) or without (`SILENT`), or refuses it (`REFUSED`)."""

_H = ord("H")
_VERSIONS = {b"HTTP/1.1 ": "1.1", b"HTTP/1.0 ": "1.0"}


class ConnectionFault(Exception):
    """An exchange failed. Its connection cannot be used again, except by a `lasting` `Overdue` request."""


class Stale(ConnectionFault):
    """The connection was found closed before any byte of the request was written."""


class Unanswered(ConnectionFault):
    """The connection ended before any byte of the response arrived."""


class Cut(ConnectionFault):
    """The connection ended before the response was complete."""


class Garbled(ConnectionFault):
    """The response is not HTTP/1.x in the form that this module accepts."""


class Overdue(ConnectionFault):
    """The time set by `limit` passed while a task was waiting."""


def make_buffer() -> memoryview:
    """Return a read buffer, to be shared by the connections of one event loop."""
    return memoryview(bytearray(READ))


class BackendConnection(asyncio.BufferedProtocol):
    """One connection to a backend, used by one request at a time. `lost` is called once, when it has ended.

    `status`, `version`, `head`: of the response; `status` is 0 until its head has arrived.
    `low_head`: the head in lower case. `ready`: `wait_head` would return without waiting.
    `close_delimited`: the body ends with the connection, so truncation cannot be detected.
    `keeps`: the server accepts another request after this one. `pieces`: received bytes of the body, not yet
    taken. `error`: the failure, if any; it is raised only after all `pieces` were read.
    `served`: the number of complete responses. `heard`: when a flowing body last had content, in the event
    loop's time. `counted`, `idle_since` and `opened` are set by the pool.
    """

    __slots__ = (
        "_acks",
        "_armed",
        "_attaching",
        "_buffer",
        "_head_pieces",
        "_held",
        "_interim",
        "_lasting",
        "_loop",
        "_lost",
        "_overhead",
        "_parser",
        "_patient",
        "_paused",
        "_quick",
        "_quiet",
        "_ready_at",
        "_socket",
        "_taker",
        "_timer",
        "_transport",
        "_turn",
        "_until",
        "_unwritten",
        "_waiter",
        "_when",
        "_without_body",
        "_writable",
        "_write_batcher",
        "answered",
        "close_delimited",
        "closed",
        "complete",
        "counted",
        "error",
        "head",
        "heard",
        "idle_since",
        "keeps",
        "low_head",
        "on_body",
        "opened",
        "pieces",
        "ready",
        "served",
        "status",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        lost: Callable[[BackendConnection], None],
        sock: socket.socket | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        buffer: memoryview | None = None,
        write_batcher: WriteBatcher | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._lost = lost
        self._socket = sock
        self._buffer = make_buffer() if buffer is None else buffer
        self._write_batcher = write_batcher or WriteBatcher()
        self._turn = -1
        self._transport: asyncio.Transport | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._unwritten = b""
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf
        self._paused = False
        self._writable = True
        self._without_body = self._lasting = self._patient = False
        self._quick = self._acks = socket_options.quick_reads(sock)
        self._ready_at: ReadyAt = "head"
        self._head_pieces: list[bytes] = []
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # called by the parser: no Python call per piece
        self._taker: Taker | None = None
        self._until = self._quiet = math.inf
        self.error: ConnectionFault | None = None
        self.closed = False
        self.counted = False
        self.idle_since = self.opened = self.heard = 0.0
        self.served = 0
        self._reset()
        self.complete = True
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    # --- asking ------------------------------------------------------------------------------------

    def start(
        self,
        head: bytes,
        body: bytes = b"",
        *,
        without_body: bool = False,
        ready_at: ReadyAt = "head",
        lasting: bool = False,
    ) -> None:
        """Schedule a request with the first `ONE_WRITE` bytes of its body; `wait_rest` sends the rest.

        `without_body`: the response has no body (HEAD). `ready_at`: the part of the response for which the
        waiting task is first woken. `lasting`: reaching the limit ends the wait but not the exchange, so that
        the caller may wait again. Raises `Stale`, with nothing written, if the connection is already closed.
        """
        transport = self._transport
        if self.closed or (transport is not None and transport.is_closing()):
            raise Stale("The connection was closed while it was idle.")
        self._reset()
        self._without_body = without_body
        self._ready_at = ready_at
        self._lasting = lasting
        if self._patient or len(body) > ONE_WRITE:
            self._allow_closed_window(len(body) > ONE_WRITE)
        data = head + body if len(body) <= ONE_WRITE else head + body[:ONE_WRITE]
        if transport is None:
            self._write_early(data)
            return
        write_batcher = self._write_batcher
        self._turn = write_batcher.turn
        write_batcher.write(transport, data, self._loop)

    def _allow_closed_window(self, allowed: bool) -> None:
        self._patient = allowed
        if self._socket is not None:
            socket_options.allow_closed_window(self._socket, allowed)

    def attach(self, attaching: Coroutine[None, None, None]) -> None:
        """Run `attaching`, which gives the socket to the event loop. Earlier writes bypass the loop."""
        self._attaching = self._loop.create_task(attaching)
        self._attaching.add_done_callback(self._attached)

    def _attached(self, attaching: asyncio.Task[None]) -> None:
        self._attaching = None
        if attaching.cancelled() or (error := attaching.exception()) is not None:
            self.connection_lost(None if attaching.cancelled() else cast("Exception", error))
        elif self.closed:
            self.abort()

    def _write_early(self, data: bytes) -> None:
        if not self._unwritten and self._socket is not None:
            with contextlib.suppress(OSError):  # a full or closed socket is reported later by the event loop
                data = data[self._socket.send(data) :]
        self._unwritten += data
        self._writable = not self._unwritten

    async def wait_rest(self, body: bytes) -> None:
        """Send the rest of a large body. Stop early if a response or a failure arrives."""
        for start in range(ONE_WRITE, len(body), ONE_WRITE):
            await self._wait_writable()
            if self._over:
                self.keeps = False
                return
            self._write(body[start : start + ONE_WRITE])

    async def wait_sent(self, pieces: AsyncIterable[bytes], *, chunked: bool) -> None:
        """Send a body piece by piece. Stop early if a response or a failure arrives."""
        async for piece in pieces:
            await self._wait_writable()
            if self._over:
                self.keeps = False
                return
            if piece:
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and not self._over:
            self._write(b"0\r\n\r\n")

    @property
    def unsent(self) -> bool:
        """True if no byte of the request has been sent: the write batch is not flushed yet."""
        return self._turn == self._write_batcher.turn

    def _write(self, data: bytes) -> None:
        if self.unsent:
            self._write_batcher.flush()
        transport = self._transport
        if transport is not None:
            try:
                transport.write(data)
            except (RuntimeError, OSError) as error:
                self._end(error)
        elif not self.closed:
            self._write_early(data)

    async def _wait_writable(self) -> None:
        while not (self._writable or self._over):
            await self.next_event()

    @property
    def _over(self) -> bool:
        """True if a response or a failure makes the rest of the request unnecessary."""
        return self.status != 0 or self.error is not None

    def _reset(self) -> None:
        self.version = "1.1"
        self.head = self.low_head = b""
        self.close_delimited = self.answered = self.ready = self.complete = self.keeps = False
        self.status = self._held = self._overhead = self._interim = 0
        self._when = math.inf
        self._acks = self._quick

    # --- reading -----------------------------------------------------------------------------------

    async def wait_head(self) -> None:
        """Wait until the head of the response has arrived, and the part that `ready_at` names.

        Raises `Stale`, `Unanswered`, `Cut`, `Garbled` or `Overdue` on a failure before the head. A failure
        after the head is not raised here; it is stored in `error`.
        """
        while not self.ready:
            await self.next_event()
        if self.error is not None and not self.status:
            raise self._copied(self.error)

    async def wait_piece(self) -> bytes:
        """Wait for bytes of the body and return all received; b"" at its end. Raises the stored `error`."""
        while not self.pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise self._copied(self.error)
            await self.next_event()
        return self.take()

    def take(self) -> bytes:
        """Remove and return the received bytes of the body."""
        pieces = self.pieces
        if self._without_body:
            pieces.clear()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        return data

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done when the connection has changed. Resumes paused reading."""
        if self._paused:
            self._resume()
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def flow(self, taker: Taker, until: float, pause: float, silent: float = 0.0) -> asyncio.Future[None]:
        """Pass the body to `taker` as it arrives. Return a future to await; call `stop_flow` after it.

        The future is done when `taker` refuses a piece (the piece and all following bytes are then in
        `pieces`), at the end of the body, at `until` (the event loop's time), or when no content was accepted
        for `pause` seconds, of which `silent` have already passed.
        """
        self._taker, self._until, self._quiet = taker, until, pause
        self.heard = self._loop.time() - silent
        self.limit(self._due)
        return self.next_event()

    def stop_flow(self) -> None:
        """Stop passing the body to the taker; store it in `pieces` again."""
        self._taker = None

    @property
    def _due(self) -> float:
        return min(self._until, self.heard + self._quiet)

    def limit(self, when: float) -> None:
        """Set when waiting ends, in the event loop's time. Valid for this request, until it is set again."""
        self._when = when
        if when < self._armed:
            self._arm(when)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = when
        self._timer = self._loop.call_at(when, self._strike)

    def _disarm(self) -> None:
        self._armed = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _strike(self) -> None:
        self._timer = None
        self._armed = math.inf
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # no task waits; the next call of `limit` arms the timer again
        if self._taker is not None:
            self._when = self._due
        if self._when - self._loop.time() > GRAIN:
            self.limit(self._when)
            return
        overdue = Overdue("The connection was silent for too long.")
        if self._lasting:
            self._waiter = None
            waiter.set_exception(overdue)
        else:
            self._fail(overdue)
            self.abort()
            self._wake()

    def field(self, name: bytes) -> str | None:
        """Return the first value of the header field `name` (in lower case), or None."""
        line = b"\r\n%b:" % name
        found = self.low_head.find(line)
        if found < 0:
            return None
        return self.head[found + len(line) :].partition(b"\r\n")[0].strip(b" \t").decode("latin-1")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All header fields of the response, as pairs of name and value."""
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:]]
        return [(name, value.strip(b" \t")) for name, _, value in lines]

    @property
    def drained(self) -> bool:
        """True if the response is complete and its whole body was taken."""
        return self.complete and not self.pieces

    def reusable(self) -> bool:
        """Return True if another request may be sent: response complete and unambiguous, request sent."""
        transport = self._transport
        return (
            self.keeps
            and self.complete
            and not self.closed
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )

    def quiet(self) -> bool:
        """Return True if the idle connection is open and its socket has received neither bytes nor an end."""
        if self.closed or self._socket is None:
            return not self.closed
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def abort(self) -> None:
        """Close the connection at once and discard unsent data."""
        self.closed = True
        if self._timer is not None:
            self._disarm()
        if self._attaching is not None:
            return  # closed in `_attached`: the event loop does not close a socket it is still attaching
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _copied(self, error: ConnectionFault) -> ConnectionFault:
        """Return a copy to raise: a traceback on the stored error would keep the connection alive."""
        copied = type(error)(*error.args)
        copied.__cause__ = error.__cause__
        return copied

    def _fail(self, error: ConnectionFault) -> ConnectionFault:
        self.error = error
        self.ready = True
        return error

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # --- the event loop's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = here = cast("asyncio.Transport", transport)
        if self._unwritten:
            self._writable = True
            here.write(self._unwritten)
            self._unwritten = b""
            self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - required by BufferedProtocol
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.complete or (
            self._turn == self._write_batcher.turn and not self.answered
        ):  # unsolicited bytes
            self.keeps = False
            self.abort()
            return
        parser = self._parser
        if parser is None or self.error is not None:
            return
        data = self._buffer[:nbytes]
        known = len(self.pieces)
        self._overhead += nbytes
        try:
            if not self.status:
                data = self._kept_head(parser, data)
            elif self._overhead - nbytes > MAX_HEAD:
                raise Garbled("too much framing without a body")  # noqa: TRY301 - one place refuses
            parser.feed_data(data)
        except (httptools.HttpParserError, Garbled) as error:
            self._refuse(str(error.__context__ or error))
        if self._acks and not self.complete:
            self._acknowledge(nbytes)
        if len(self.pieces) > known:
            self._overhead = 0
            if self._taker is not None and self._taken(self._taker):
                return
            self._held += nbytes
            if self._held >= HIGH_WATER:
                self._pause()
            if not self.ready:
                self.ready = self._ready_at == "body"
        waiter = self._waiter
        if waiter is not None and self.ready:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _acknowledge(self, nbytes: int) -> None:
        """Send a TCP ACK for an incomplete response: the server may delay the next piece until then."""
        self._acks -= 1
        if (
            nbytes < READ and self._socket is not None and not self.closed
        ):  # after a full read, more data is waiting
            socket_options.acknowledge(self._socket)

    def _taken(self, taker: Taker) -> bool:
        """Pass the received bytes to `taker`, except bytes that arrive with the end or an error."""
        pieces = self.pieces
        if self.complete or self.error is not None or self._held:
            return False
        taken = taker(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if not taken:
            return False
        pieces.clear()
        if taken == HEARD:
            self.heard = self._loop.time()
        return True

    def _refuse(self, reason: str) -> None:
        self.keeps = False
        if not self.complete:  # bytes after a complete response do not invalidate it
            self._fail(Garbled(reason))
            self.abort()

    def _pause(self) -> None:
        if self._transport is not None and not (self.complete or self._paused):
            self._paused = self.ready = True
            self._transport.pause_reading()

    def _kept_head(self, parser: httptools.HttpResponseParser, data: memoryview) -> memoryview:
        """Store bytes that may belong to the head, and check for HTTP. Return the bytes for the parser."""
        if not self.answered:
            self.answered = True
            if data[0] != _H:  # the parser would also accept RTSP/ and ICE/
                raise Garbled("not an answer of HTTP")
        self._head_pieces.append(bytes(data))
        return self._feed_rest_of_head(parser, data) if self._overhead > MAX_HEAD else data

    def _feed_rest_of_head(self, parser: httptools.HttpResponseParser, data: memoryview) -> memoryview:
        """Parse up to `MAX_HEAD` bytes and return the rest. The limit does not depend on read boundaries."""
        room = MAX_HEAD - (self._overhead - len(data))
        parser.feed_data(data[:room])
        if not self.status:
            raise Garbled("the head is too large")
        return data[room:]

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._disarm()
        self._transport = None
        self._parser = None  # breaks the reference cycle through the bound methods
        self._lost(self)

    def _end(self, exc: Exception | None) -> None:
        if not self.complete and self.error is None:
            if exc is None and self.close_delimited:
                self.complete = self.ready = True
            else:
                kind = Cut if self.answered else Stale if self.unsent else Unanswered
                self._fail(kind("The connection ended.")).__cause__ = exc
        self.closed = True
        self._wake()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    # --- the parser's side -------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Check the head: skip interim responses, and reject ambiguous framing and a second response."""
        parser = self._parser
        if parser is None:
            return
        if self.complete:
            raise Garbled("more than one answer")
        pieces = self._head_pieces
        head = pieces[0] if len(pieces) == 1 else b"".join(pieces).lstrip(b"\r\n")
        pieces.clear()
        end = head.index(b"\r\n\r\n")
        status = parser.get_status_code()
        if status < 200:
            self._pass_interim(status)
            pieces += (b"", head[end + 4 :])
            return
        version = _VERSIONS.get(head[:9])
        if status > 599 or version is None:
            raise Garbled("a status or version that does not exist")
        if end > _FEW_HEADERS and head.count(b"\r\n", 0, end) > MAX_HEADERS:
            raise Garbled("too many headers")
        self.version = version
        self.head = head = head[:end]
        self.low_head = low = head.lower()
        # `find` takes a third of the time of `in`, which first tries to convert its operand to an integer.
        if low.find(b"\r\ncontent-length:") < 0 or low.find(b"\r\ntransfer-encoding:") >= 0:
            self._judge_framing(low, status)
        self.status = status
        self.keeps = parser.should_keep_alive() and not self._without_body
        self.ready = self._ready_at == "head"
        if self._without_body:
            self.complete = self.ready = True

    def _pass_interim(self, status: int) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM or status in {0, 101} or status < 100:
            raise Garbled("an interim answer that was not asked for")

    def _judge_framing(self, low: bytes, status: int) -> None:
        # The parser itself refuses two lengths, and a length beside a transfer coding.
        if b"\r\ntransfer-encoding:" in low:
            if (
                (self.field(b"transfer-encoding") or "").lower() != "chunked"
                or low.count(b"\r\ntransfer-encoding:") > 1
                or b"\r\ncontent-length:" in low
                or self.version == "1.0"
            ):
                raise Garbled("a transfer coding that is not understood")
        elif b"\r\ncontent-length:" not in low:
            self.close_delimited = not (status in {204, 304} or self._without_body)

    def on_message_complete(self) -> None:
        """Record the end of the response, unless it was an interim response."""
        if self.status:
            self.complete = self.ready = True
            self.served += 1

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.complete else "busy"
        return f"<BackendConnection {state}, served {self.served}, holds {self._held} bytes>"
