"""One HTTP/1.1 connection to a backend: bytes out, one answer in, and whether it may serve again.

Theory of operation. A connection is idle (`complete`), or busy from `start` until its answer is
complete or has failed. The parser's callbacks only write down what they saw; whoever waits is woken once
for each read of the socket and looks again. There is at most one waiter, as one request owns the
connection. What cannot be told from the socket's state is never guessed: bytes nobody asked for, an answer
that came before the request was gone, or a doubtful head make the connection good for this one answer only.

Opening. A plain connection can be used as soon as its socket is connected: what is written before the event
loop has taken the socket goes straight to it. So a request to a server on this machine leaves in the step in
which its connection is opened.

Head. The parser checks it but does not take it apart: that would cost a call for each field, and hardly one
is ever looked at. Its bytes are kept, and searched for the few fields that matter.

Memory. All connections of a loop read into one buffer: the event loop fills it and hands it on in one step.
Reading pauses at a mark of undelivered bytes, and goes on only when the reader asks for more than it has
got: while the reader is busy with somebody who takes slowly, nothing is taken from the server either.

Time. `limit` sets when waiting ends. The timer behind it outlives the exchange: moving the limit later, which
is what nearly every wait does, leaves it alone, and when it strikes too early it arms itself again. While a
body flows, a piece only notes when it came, and the limit is reckoned from that when the timer strikes.

Over TLS neither event loop tells a close_notify from a bare end, so that the end of a close-delimited
body proves nothing there either: whoever reads one must know the end by its content.
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
"""The most bytes taken from the socket at once; as much as a TLS record holds."""
MAX_HEAD = 64 * 1024
"""The largest head of an answer, interim answers before it included; also the most framing (chunk sizes,
trailers) that may come without a byte of body. In bytes."""
MAX_HEADERS = 100
"""The most header fields of an answer."""
_FEW_HEADERS = MAX_HEADERS * len(b"\r\na:")
"""A head of so many bytes has not too many fields, whatever they are."""
MAX_INTERIM = 10
"""The most interim (1xx) answers before the real one."""
ONE_WRITE = 64 * 1024
"""How much of a body leaves together with the head, and by how much the rest follows. In bytes."""

GRAIN = 0.001
"""How much too early the event loops' timers may strike, in seconds."""

ReadyAt: TypeAlias = Literal["head", "body", "end"]
"""How much of an answer is worth waking up for: its head, the first of its body, or all of it; and in any
case an error, and so much of a body that reading pauses."""

REFUSED: Final = 0
HEARD: Final = 1
SILENT: Final = 2
Taken: TypeAlias = Literal[0, 1, 2]
Taker: TypeAlias = Callable[[bytes], Taken]
"""Takes a piece of a body and says whether it holds content (`HEARD`) or none (`SILENT`), or refuses it."""

_H = ord("H")
_VERSIONS = {b"HTTP/1.1 ": "1.1", b"HTTP/1.0 ": "1.0"}


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


class Overdue(ConnectionFault):
    """The time set by `limit` has passed while somebody waited."""


def make_buffer() -> memoryview:
    """The buffer that connections of one event loop read into."""
    return memoryview(bytearray(READ))


class BackendConnection(asyncio.BufferedProtocol):
    """One connection. Belongs to one request at a time; `lost` is told once when it has ended.

    `status`, `version` and `head` (`low_head`: in lower case) are those of the answer; until they have come
    `status` is 0. `ready`: `wait_head` would not wait. `close_delimited`: the body ends where the
    connection does, so that a cut cannot be seen. `keeps`: the server will take another request after this.
    `pieces` and `error` are what has come of the body and what has gone wrong; bytes go before errors.
    `served`: answers given so far. `heard`: when a body that flows last gave content, in the loop's time.
    `counted`, `idle_since` and `opened` belong to the pool.
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
        self.on_body = self.pieces.append  # the parser's callback: no call of ours for a piece of body
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
        """Write a request soon, of a large body only the beginning; `wait_rest` sends what is left.

        `without_body` tells that the answer has none (HEAD). `ready_at`: whoever waits is not woken before
        this has come of the answer. `lasting`: its limit ends the waiting alone, which may begin again.
        Raises `Stale` when the connection is closed already: then nothing was written.
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
        """Have the event loop take the socket, by `attaching`; what is written before goes straight to it."""
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
            with contextlib.suppress(OSError):  # full, or at its end: the event loop will tell
                data = data[self._socket.send(data) :]
        self._unwritten += data
        self._writable = not self._unwritten

    async def wait_rest(self, body: bytes) -> None:
        """Send what `start` has left of a large body; an answer or an end that comes before stops it."""
        for start in range(ONE_WRITE, len(body), ONE_WRITE):
            await self._wait_writable()
            if self._over:
                self.keeps = False
                return
            self._write(body[start : start + ONE_WRITE])

    async def wait_sent(self, pieces: AsyncIterable[bytes], *, chunked: bool) -> None:
        """Send a body piece by piece; an answer or an end that comes before its end stops it."""
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
        """Not a byte of the request has gone out."""
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
        """Nothing more of the request is wanted."""
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
        """Wait for the head of the answer, and what else `ready_at` says; of a body `error` may tell.

        Raises `Unanswered`, `Cut`, `Garbled`, `Overdue`.
        """
        while not self.ready:
            await self.next_event()
        if self.error is not None and not self.status:
            raise self._copied(self.error)

    async def wait_piece(self) -> bytes:
        """Wait for the next bytes of the body: all that have come, b"" at its end. Raises as `wait_head`."""
        while not self.pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise self._copied(self.error)
            await self.next_event()
        return self.take()

    def take(self) -> bytes:
        """The bytes of the body that have come and were not taken yet."""
        pieces = self.pieces
        if self._without_body:
            pieces.clear()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        return data

    def next_event(self) -> asyncio.Future[None]:
        """What to await before looking again: it is done when the connection has something new to tell."""
        if self._paused:
            self._resume()
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def flow(self, taker: Taker, until: float, pause: float, silent: float = 0.0) -> asyncio.Future[None]:
        """Let `taker` have the body as it comes; what to await before looking again, and then `stop_flow`.

        It is done when a piece was refused, which lies in `pieces` with all that follows; at the end of the
        body; and when the loop's time `until` has come, or no content was taken for `pause` seconds, of which
        `silent` have passed already.
        """
        self._taker, self._until, self._quiet = taker, until, pause
        self.heard = self._loop.time() - silent
        self.limit(self._due)
        return self.next_event()

    def stop_flow(self) -> None:
        """Keep from now on what comes."""
        self._taker = None

    @property
    def _due(self) -> float:
        return min(self._until, self.heard + self._quiet)

    def limit(self, when: float) -> None:
        """Let waiting end at `when`, in the loop's time; of this request, until it is set again."""
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
            return  # nobody waits; the next limit arms it again
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
        """The first value of the header field `name`, which is in lower case."""
        line = b"\r\n%b:" % name
        found = self.low_head.find(line)
        if found < 0:
            return None
        return self.head[found + len(line) :].partition(b"\r\n")[0].strip(b" \t").decode("latin-1")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All header fields."""
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:]]
        return [(name, value.strip(b" \t")) for name, _, value in lines]

    @property
    def drained(self) -> bool:
        """The answer is complete and all of it was taken."""
        return self.complete and not self.pieces

    def reusable(self) -> bool:
        """Another request may be sent: this one's answer was whole, plain, and came after the request."""
        transport = self._transport
        return (
            self.keeps
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
        if self._timer is not None:
            self._disarm()
        if self._attaching is not None:
            return  # an event loop that has half taken a socket does not close it
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _copied(self, error: ConnectionFault) -> ConnectionFault:
        """What to raise for an error that is kept: its traceback would refer to the connection."""
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

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the event loop's wish
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.complete or (
            self._turn == self._write_batcher.turn and not self.answered
        ):  # nobody asked for this
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
        """Acknowledge what has come of an incomplete answer, whose next piece may wait for that."""
        self._acks -= 1
        if (
            nbytes < READ and self._socket is not None and not self.closed
        ):  # behind a full buffer there is more
            socket_options.acknowledge(self._socket)

    def _taken(self, taker: Taker) -> bool:
        """Offer what has come to who takes it; the end, and what comes with it, is for the reader."""
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
        if not self.complete:  # what comes after a whole answer does not spoil it
            self._fail(Garbled(reason))
            self.abort()

    def _pause(self) -> None:
        if self._transport is not None and not (self.complete or self._paused):
            self._paused = self.ready = True
            self._transport.pause_reading()

    def _kept_head(self, parser: httptools.HttpResponseParser, data: memoryview) -> memoryview:
        """Keep what belongs to the head, or may do so, and look whether it is one; give what is to be fed."""
        if not self.answered:
            self.answered = True
            if data[0] != _H:  # the parser would take RTSP/ and ICE/ as well
                raise Garbled("not an answer of HTTP")
        self._head_pieces.append(bytes(data))
        return self._feed_rest_of_head(parser, data) if self._overhead > MAX_HEAD else data

    def _feed_rest_of_head(self, parser: httptools.HttpResponseParser, data: memoryview) -> memoryview:
        """Feed what the cap allows and give what is left. However it was sliced, the same heads pass."""
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
        self._parser = None  # it holds our methods: no reference cycle is left behind
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
        """Judge the head: interim answers pass by, doubtful framing and second answers are refused."""
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
        # `in` would take a text for a number first, raise that it is none, and drop it: thrice the time.
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
        """Note the end of the answer, unless it was an interim one."""
        if self.status:
            self.complete = self.ready = True
            self.served += 1

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.complete else "busy"
        return f"<BackendConnection {state}, served {self.served}, holds {self._held} bytes>"
