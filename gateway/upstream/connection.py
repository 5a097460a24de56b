"""One HTTP/1.1 connection to a backend: bytes out, one answer in, and whether it may serve again.

Theory of operation. A connection is idle (`complete`), or busy from `start` until its answer is
complete or has failed. The parser's callbacks only write down what they saw; whoever waits is woken once
for each read of the socket and looks again. There is at most one waiter, as one request owns the
connection. What cannot be told from the socket's state is never guessed: bytes nobody asked for, an answer
that came before the request was gone, or a doubtful head make the connection good for this one answer only.

Over TLS neither event loop tells a close_notify from a bare end, so that the end of a close-delimited
body proves nothing there either: whoever reads one must know the end by its content.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, Callable
from typing import cast

import httptools

HIGH_WATER = 64 * 1024
"""Undelivered bytes of a body at which reading pauses."""
MAX_HEAD = 64 * 1024
"""The largest head of an answer, interim answers before it included; also the most framing (chunk sizes,
trailers) that may come without a byte of body. In bytes."""
MAX_HEADERS = 100
"""The most header fields of an answer, and the most trailers."""
MAX_INTERIM = 10
"""The most interim (1xx) answers before the real one."""
ONE_WRITE = 64 * 1024
"""How much of a body leaves together with the head, and by how much the rest follows. In bytes."""

_H = ord("H")


class ConnectionFault(Exception):
    """An exchange that failed. The connection is of no more use."""


class Stale(ConnectionFault):
    """The connection was seen closed before a byte of the request was written."""


class Unanswered(ConnectionFault):
    """The connection ended without a byte of an answer."""


class Cut(ConnectionFault):
    """The connection ended in the middle of an answer."""


class Garbled(ConnectionFault):
    """The answer is not HTTP/1.1 as it is accepted here."""


class Connection(asyncio.Protocol):
    """One connection. Belongs to one request at a time; `lost` is told once when it has ended.

    `status`, `version` and `headers` are those of the answer once `wait_head` has returned.
    `close_delimited`: the body ends where the connection does, so that a cut cannot be seen.
    `served`: answers given so far. `counted` and `idle_since` belong to the pool.
    """

    __slots__ = (
        "_error", "_headed", "_held", "_interim", "_keep", "_loop", "_lost", "_overhead", "_parser",
        "_paused", "_pieces", "_socket", "_trailers", "_transport", "_waiter", "_without_body", "_writable",
        "answered", "close_delimited", "closed", "complete", "counted", "headers", "idle_since", "served",
        "status", "version",
    )  # fmt: skip

    def __init__(
        self,
        lost: Callable[[Connection], None],
        sock: socket.socket | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._lost = lost
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._writable = True
        self._error: ConnectionFault | None = None
        self.closed = False
        self.complete = True
        self.counted = False
        self.idle_since = 0.0
        self.served = 0
        self._reset(without_body=False)
        self.complete = True

    # --- asking ------------------------------------------------------------------------------------

    def start(self, head: bytes, body: bytes = b"", *, without_body: bool = False) -> None:
        """Write a request, of a large body only the beginning; `wait_rest` sends what is left.

        `without_body` tells that the answer has none (HEAD). Raises `Stale` when the connection is closed
        already: then nothing was written.
        """
        transport = self._transport
        if self.closed or transport is None or transport.is_closing():
            raise Stale("The connection was closed while it was idle.")
        self._reset(without_body=without_body)
        try:
            transport.write(head + body[:ONE_WRITE])
        except (RuntimeError, OSError) as error:  # uvloop says RuntimeError for a closed transport
            self.abort()
            raise Stale("The connection was closed while it was idle.") from error

    async def wait_rest(self, body: bytes) -> None:
        """Send what `start` has left of a large body; an answer or an end that comes before stops it."""
        for start in range(ONE_WRITE, len(body), ONE_WRITE):
            await self._wait_writable()
            if self._over:
                self._keep = False
                return
            self._write(body[start : start + ONE_WRITE])

    async def wait_sent(self, pieces: AsyncIterable[bytes], *, chunked: bool) -> None:
        """Send a body piece by piece; an answer or an end that comes before its end stops it."""
        async for piece in pieces:
            await self._wait_writable()
            if self._over:
                self._keep = False
                return
            if piece:
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked and not self._over:
            self._write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None:
            try:
                transport.write(data)
            except (RuntimeError, OSError) as error:
                self._end(error)

    async def _wait_writable(self) -> None:
        while not (self._writable or self._over):
            await self._next_event()

    @property
    def _over(self) -> bool:
        """Nothing more of the request is wanted."""
        return self._headed or self._error is not None

    def _reset(self, *, without_body: bool) -> None:
        self.status = 0
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.close_delimited = False
        self.answered = False
        self.complete = False
        self._without_body = without_body
        self._headed = False
        self._keep = False
        self._overhead = 0
        self._interim = 0
        self._trailers = 0

    # --- reading -----------------------------------------------------------------------------------

    async def wait_head(self) -> None:
        """Wait for the head of the answer. Raises `Unanswered`, `Cut`, `Garbled`."""
        while not self._headed:
            if self._error is not None:
                raise self._error
            await self._next_event()

    async def wait_piece(self) -> bytes:
        """Wait for the next bytes of the body: all that have come, b"" at its end. Raises as `wait_head`."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._next_event()
        return self.take()

    def take(self) -> bytes:
        """The bytes of the body that have come and were not taken yet."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._paused:
            self._resume()
        return data

    @property
    def drained(self) -> bool:
        """The answer is complete and all of it was taken."""
        return self.complete and not self._pieces

    @property
    def reusable(self) -> bool:
        """Another request may be sent: this one's answer was whole, plain, and came after the request."""
        transport = self._transport
        return (
            self._keep
            and self.complete
            and not self.closed
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )

    def quiet(self) -> bool:
        """Ask the socket itself whether nothing has come while the connection was idle, not even its end."""
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
        """Close at once and drop what was not sent."""
        self.closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _next_event(self) -> asyncio.Future[None]:
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # --- the event loop's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.complete:  # nobody asked for this
            self._keep = False
            self.abort()
            return
        held = self._held
        try:
            self._feed(data)
        except (httptools.HttpParserError, Garbled) as error:
            self._refuse(str(error.__context__ or error))
        if self._held > held:
            self._overhead = 0
            if self._held >= HIGH_WATER:
                self._pause()
        if self._headed or self._error is not None:
            self._wake()

    def _refuse(self, reason: str) -> None:
        self._keep = False
        if not self.complete:  # what comes after a whole answer does not spoil it
            self._error = Garbled(reason)
            self.abort()

    def _pause(self) -> None:
        if self._transport is not None and not (self.complete or self._paused):
            self._paused = True
            self._transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._error is not None:
            return
        if not self.answered:
            self.answered = True
            if data[0] != _H:  # the parser would take RTSP/ and ICE/ as well
                raise Garbled("not an answer of HTTP")
        self._overhead += len(data)
        if self._overhead > MAX_HEAD:
            if not self._headed:
                data = self._feed_rest_of_head(parser, data)
            elif self._overhead - len(data) > MAX_HEAD:
                raise Garbled("too much framing without a body")
        parser.feed_data(data)

    def _feed_rest_of_head(self, parser: httptools.HttpResponseParser, data: bytes) -> bytes:
        """Feed what the cap allows and give what is left. However it was sliced, the same heads pass."""
        room = MAX_HEAD - (self._overhead - len(data))
        parser.feed_data(data[:room])
        if not self._headed:
            raise Garbled("the head is too large")
        return data[room:]

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._transport = None
        self._parser = None  # it holds our methods: no reference cycle is left behind
        self._lost(self)

    def _end(self, exc: Exception | None) -> None:
        if not self.complete and self._error is None:
            if exc is None and self._headed and self.close_delimited:
                self.complete = True
            else:
                kind = Cut if self.answered else Unanswered
                self._error = kind("The connection ended.")
                self._error.__cause__ = exc
        self.closed = True
        self._wake()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    # --- the parser's side -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self.complete:
            raise Garbled("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Write a header down; after the head it is a trailer, which nobody wants."""
        if not self._headed:
            self.headers.append((name, value))
        else:
            self._trailers += 1
        if len(self.headers) > MAX_HEADERS or self._trailers > MAX_HEADERS:
            raise Garbled("too many headers")

    def on_headers_complete(self) -> None:
        """Judge the head: interim answers pass by, doubtful framing is refused."""
        parser = self._parser
        if parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            self._pass_interim(status)
            return
        self.version = parser.get_http_version()
        if status > 599 or self.version not in {"1.1", "1.0"}:
            raise Garbled("a status or version that does not exist")
        self.status = status
        self._judge_framing(status)
        self._keep = parser.should_keep_alive() and not self._without_body
        self._headed = True
        if self._without_body:
            self.complete = True

    def _pass_interim(self, status: int) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM or status in {0, 101} or status < 100:
            raise Garbled("an interim answer that was not asked for")
        self.headers = []

    def _judge_framing(self, status: int) -> None:
        # The parser itself refuses two lengths, and a length beside a transfer coding.
        sized = False
        codings: list[bytes] = []
        for name, value in self.headers:
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                sized = True
            elif size == 17 and name.lower() == b"transfer-encoding":
                codings.append(value.strip().lower())
        if codings and (sized or codings != [b"chunked"] or self.version == "1.0"):
            raise Garbled("a transfer coding that is not understood")
        self.close_delimited = not (sized or codings or status in {204, 304} or self._without_body)

    def on_body(self, data: bytes) -> None:
        """Write bytes of the body down."""
        if not self.complete:
            self._pieces.append(data)
            self._held += len(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer, unless it was an interim one."""
        if self._headed:
            self.complete = True
            self.served += 1

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.complete else "busy"
        return f"<Connection {state}, served {self.served}, holds {self._held} bytes>"
