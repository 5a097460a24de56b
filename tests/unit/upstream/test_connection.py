"""A connection over a transport that only takes notes; the event loop's part is played by the test."""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import socket_options
from gateway.upstream.connection import (
    HEARD,
    HIGH_WATER,
    ONE_WRITE,
    READ,
    REFUSED,
    SILENT,
    BackendConnection,
    ConnectionFault,
    Cut,
    Garbled,
    Overdue,
    Stale,
    Taken,
    Taker,
    Unanswered,
)
from gateway.write_batcher import WriteBatcher
from tests.support.outboxes import AtOnce

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"


class Notes(asyncio.Transport):
    """A transport that notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.flow: list[str] = []
        self.buffered = 0
        self.closing = False
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.flow.append("pause")

    def resume_reading(self) -> None:
        self.flow.append("resume")

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None:
        self.aborted = True


def made(
    loop: asyncio.AbstractEventLoop | None = None,
) -> tuple[BackendConnection, Notes, list[BackendConnection]]:
    lost: list[BackendConnection] = []
    connection = BackendConnection(lost.append, loop=loop, write_batcher=AtOnce())
    notes = Notes()
    connection.connection_made(notes)
    return connection, notes, lost


def asked(loop: asyncio.AbstractEventLoop | None = None) -> tuple[BackendConnection, Notes]:
    connection, notes, _ = made(loop)
    connection.start(b"GET / HTTP/1.1\r\n\r\n")
    return connection, notes


def receive(connection: BackendConnection, data: bytes) -> None:
    """Let the connection read `data` as an event loop does: into its buffer, until that or the data ends."""
    while data:
        buffer = connection.get_buffer(-1)
        count = min(len(data), len(buffer))
        buffer[:count] = data[:count]
        data = data[count:]
        connection.buffer_updated(count)


async def whole(connection: BackendConnection) -> bytes:
    await connection.wait_head()
    pieces = []
    while piece := await connection.wait_piece():
        pieces.append(piece)
    return b"".join(pieces)


async def test_head_and_small_body_leave_in_one_write() -> None:
    connection, notes, _ = made()
    connection.start(b"head", b"body")
    assert notes.written == [b"headbody"]


async def test_a_large_body_follows_in_pieces() -> None:
    connection, notes, _ = made()
    body = bytes(range(256)) * (ONE_WRITE // 100)
    connection.start(b"head", body)
    await connection.wait_rest(body)
    assert [len(data) for data in notes.written] == [ONE_WRITE + 4, ONE_WRITE, len(body) - 2 * ONE_WRITE]
    assert b"".join(notes.written) == b"head" + body


async def test_an_answer_before_the_end_of_a_large_body_ends_the_sending() -> None:
    connection, notes, _ = made()
    body = b"x" * (3 * ONE_WRITE)
    connection.start(b"head", body)
    receive(connection, SIZED)
    await connection.wait_rest(body)
    assert len(notes.written) == 1
    assert await whole(connection) == b"hello"
    assert not connection.reusable()


async def test_what_one_read_brought_is_one_piece() -> None:
    connection, _ = asked()
    receive(connection, CHUNKED)
    await connection.wait_head()
    assert await connection.wait_piece() == b"hello world"
    assert await connection.wait_piece() == b""
    assert connection.reusable()
    assert connection.served == 1


async def test_a_reader_who_waits_is_woken_by_the_first_bytes() -> None:
    connection, _ = asked()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(whole(connection))
        await asyncio.sleep(0)
        for start in range(len(CHUNKED)):
            receive(connection, CHUNKED[start : start + 1])
            await asyncio.sleep(0)
    assert reading.result() == b"hello world"


async def test_reading_pauses_at_the_mark_and_goes_on_when_more_is_asked_for() -> None:
    connection, notes = asked()
    receive(connection, OK + b"Content-Length: 1000000\r\n\r\n")
    receive(connection, b"x" * (HIGH_WATER - 1))
    assert notes.flow == []
    receive(connection, b"x")
    assert notes.flow == ["pause"]
    assert len(await connection.wait_piece()) == HIGH_WATER
    assert notes.flow == ["pause"]  # a reader who is busy with these bytes shall not be given others
    connection.next_event()
    assert notes.flow == ["pause", "resume"]


async def test_a_connection_is_not_paused_for_an_answer_that_is_complete() -> None:
    connection, notes = asked()
    receive(connection, OK + b"Content-Length: %d\r\n\r\n" % HIGH_WATER)
    receive(connection, b"x" * HIGH_WATER)
    assert notes.flow == []
    assert connection.complete


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", Unanswered, id="no-byte"),
        pytest.param(b"HTTP/1.1 2", Cut, id="in-the-head"),
        pytest.param(SIZED[:-1], Cut, id="in-the-body"),
        pytest.param(CHUNKED[:-1], Cut, id="in-the-trailers"),
    ],
)
@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_an_end_before_the_end_tells_whether_an_answer_had_begun(
    data: bytes, kind: type[ConnectionFault], how: str
) -> None:
    connection, _ = asked()
    if data:
        receive(connection, data)
    if how == "eof":
        connection.eof_received()
    connection.connection_lost(None if how == "eof" else ConnectionResetError())
    with pytest.raises(kind):
        await whole(connection)


async def test_a_reader_who_waits_learns_of_the_end() -> None:
    connection, _ = asked()
    receive(connection, SIZED[:-1])
    await connection.wait_piece()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(expect_cut(connection))
        await asyncio.sleep(0)
        connection.eof_received()
    assert reading.result()


async def expect_cut(connection: BackendConnection) -> bool:
    with pytest.raises(Cut):
        await connection.wait_piece()
    return True


async def test_a_body_until_close_is_complete_at_the_end_but_not_at_a_reset() -> None:
    ends: list[tuple[Exception | None, bool]] = [(None, True), (ConnectionResetError(), False)]
    for error, complete in ends:
        connection, _ = asked()
        receive(connection, OK + b"\r\nhello")
        connection.connection_lost(error)
        assert (connection.close_delimited, connection.complete) == (True, complete)
        assert not connection.reusable()


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    connection, notes, _ = made()
    receive(connection, b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert notes.aborted
    assert not connection.reusable()
    with pytest.raises(Stale):
        connection.start(b"head")
    assert notes.written == []


@pytest.mark.parametrize("end", ["closed", "closing"])
async def test_a_connection_seen_closed_is_stale_and_nothing_is_written(end: str) -> None:
    connection, notes, _ = made()
    if end == "closed":
        connection.eof_received()
    else:
        notes.closing = True
    with pytest.raises(Stale):
        connection.start(b"head")
    assert notes.written == []


async def held() -> tuple[BackendConnection, Notes]:
    """A connection whose request is still in the outbox."""
    connection, notes = BackendConnection(lambda _: None, write_batcher=WriteBatcher(math.inf)), Notes()
    connection.connection_made(notes)
    connection.start(b"head", b"body")
    assert notes.written == []
    return connection, notes


@pytest.mark.parametrize("reset", [None, ConnectionResetError()], ids=["eof", "reset"])
async def test_a_connection_that_ends_before_its_request_has_left_is_stale(reset: Exception | None) -> None:
    connection, notes = await held()
    notes.closing = True
    connection.connection_lost(reset)
    with pytest.raises(Stale):
        await connection.wait_head()
    await asyncio.sleep(0)
    assert notes.written == []


async def test_an_answer_to_a_request_that_has_not_left_is_none() -> None:
    connection, notes = await held()
    receive(connection, SIZED)
    assert notes.aborted
    connection.connection_lost(None)
    with pytest.raises(Stale):
        await connection.wait_head()


async def test_a_request_leaves_at_the_end_of_the_turn_and_its_end_counts_from_then() -> None:
    connection, notes = await held()
    await asyncio.sleep(0)
    assert notes.written == [b"headbody"]
    connection.connection_lost(None)
    with pytest.raises(Unanswered):
        await connection.wait_head()


async def test_the_rest_of_a_large_body_comes_behind_its_beginning() -> None:
    connection, notes = BackendConnection(lambda _: None, write_batcher=WriteBatcher(math.inf)), Notes()
    connection.connection_made(notes)
    body = bytes(range(256)) * (ONE_WRITE // 100)
    connection.start(b"head", body)
    await connection.wait_rest(body)
    assert b"".join(notes.written) == b"head" + body


async def test_an_answer_before_the_request_was_gone_spoils_the_connection_only() -> None:
    connection, notes = asked()
    notes.buffered = 1
    receive(connection, SIZED)
    assert await whole(connection) == b"hello"
    assert not connection.reusable()


async def test_what_follows_an_answer_spoils_the_connection_only() -> None:
    connection, notes = asked()
    receive(connection, SIZED)
    receive(connection, b"more")
    assert notes.aborted
    assert await whole(connection) == b"hello"
    assert not connection.reusable()


async def test_the_second_answer_on_a_connection_starts_afresh() -> None:
    connection, _ = asked()
    receive(connection, CHUNKED)
    assert await whole(connection) == b"hello world"
    connection.start(b"head")
    receive(connection, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    assert await whole(connection) == b"no"
    assert (connection.status, connection.headers) == (404, [(b"Content-Length", b"2")])
    assert connection.served == 2


async def test_the_loss_is_told_once_with_the_connection() -> None:
    connection, _, lost = made()
    connection.connection_lost(None)
    assert lost == [connection]
    assert repr(connection) == "<BackendConnection closed, served 0, holds 0 bytes>"


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_a_streamed_body_goes_out_piece_by_piece() -> None:
    connection, notes = asked()
    await connection.wait_sent(pieces(b"hello", b"", b"you"), chunked=True)
    assert notes.written[1:] == [b"5\r\nhello\r\n", b"3\r\nyou\r\n", b"0\r\n\r\n"]


async def test_sending_waits_while_the_transport_says_so() -> None:
    connection, notes = asked()
    connection.pause_writing()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(connection.wait_sent(pieces(b"a", b"b"), chunked=False))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert notes.written[1:] == []
        connection.resume_writing()
        await sending
    assert notes.written[1:] == [b"a", b"b"]


async def test_an_answer_ends_the_sending() -> None:
    connection, notes = asked()
    connection.pause_writing()
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.wait_sent(pieces(b"a"), chunked=True))
        await asyncio.sleep(0)
        receive(connection, SIZED)
    assert notes.written[1:] == []
    assert await whole(connection) == b"hello"
    assert not connection.reusable()


# --- heads ----------------------------------------------------------------------------------------------


async def test_fields_are_found_whatever_their_case_and_spaces() -> None:
    connection, _ = asked()
    receive(connection, OK + b"X-Long:  A b \r\nretry-AFTER:7\r\nRetry-After: 8\r\nContent-Length: 0\r\n\r\n")
    await connection.wait_head()
    assert connection.field(b"retry-after") == "7"
    assert connection.field(b"x-long") == "A b"
    assert connection.field(b"after") is None
    assert connection.headers[:2] == [(b"X-Long", b"A b"), (b"retry-AFTER", b"7")]


@pytest.mark.parametrize("size", [1, 30, 1000])
async def test_the_head_after_interim_ones_is_the_one_that_counts(size: int) -> None:
    connection, _ = asked()
    interim = b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: br\r\nContent-Length: 9\r\n\r\n"
    data = interim + b"\r\n" + interim + SIZED
    for start in range(0, len(data), size):
        receive(connection, data[start : start + size])
    assert await whole(connection) == b"hello"
    assert connection.headers == [(b"Content-Length", b"5")]
    assert connection.field(b"content-encoding") is None
    assert connection.reusable()


# --- waiting for all of an answer -------------------------------------------------------------------------


async def ready(connection: BackendConnection) -> bool:
    """Whether who waits for the head is woken by what has come."""
    waiting = asyncio.get_running_loop().create_task(connection.wait_head())
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return done


async def test_whoever_wants_the_whole_answer_is_woken_at_its_end() -> None:
    connection, notes, _ = made()
    connection.start(b"head", ready_at="end")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(connection.wait_head())
        for start in range(len(CHUNKED) - 1):
            await asyncio.sleep(0)
            receive(connection, CHUNKED[start : start + 1])
            assert connection._waiter is not None
            assert not connection._waiter.done()
        receive(connection, CHUNKED[-1:])
    assert waiting.result() is None
    assert connection.take() == b"hello world"
    assert notes.flow == []


async def test_whoever_wants_the_whole_answer_is_woken_when_it_is_large_or_fails() -> None:
    connection, _, _ = made()
    connection.start(b"head", ready_at="end")
    receive(connection, OK + b"Content-Length: 1000000\r\n\r\nhello")
    assert not await ready(connection)
    receive(connection, b"x" * HIGH_WATER)
    assert await ready(connection)
    assert len(connection.take()) == HIGH_WATER + 5
    connection.connection_lost(None)
    assert await ready(connection)
    assert isinstance(connection.error, Cut)


async def test_whoever_wants_a_stream_is_woken_by_its_body_and_by_its_end_and_not_by_its_head() -> None:
    for more in (b"5\r\nhello\r\n", b"0\r\n\r\n"):
        connection, _, _ = made()
        connection.start(b"head", ready_at="body")
        receive(connection, OK + b"Transfer-Encoding: chunked\r\n\r\n")
        assert connection.status == 200
        assert not await ready(connection)
        receive(connection, more)
        assert await ready(connection)


# --- limits -----------------------------------------------------------------------------------------------


async def test_silence_ends_at_the_limit_and_closes_the_connection() -> None:
    connection, notes = asked()
    loop = asyncio.get_running_loop()
    connection.limit(loop.time() + 0.02)
    began = loop.time()
    with pytest.raises(Overdue):
        await connection.wait_head()
    assert 0.018 <= loop.time() - began < 5
    assert notes.aborted
    assert not connection.reusable()


async def test_the_limit_of_what_lasts_ends_the_waiting_and_not_the_answer() -> None:
    connection, notes, _ = made()
    connection.start(b"head", ready_at="end", lasting=True)
    connection.limit(asyncio.get_running_loop().time() + 0.01)
    with pytest.raises(Overdue):
        await connection.wait_head()
    assert not notes.aborted
    connection.limit(asyncio.get_running_loop().time() + 60)
    waiting = asyncio.ensure_future(connection.wait_head())
    await asyncio.sleep(0)
    receive(connection, SIZED)
    await waiting
    assert connection.take() == b"hello"
    assert connection.reusable()


async def test_a_limit_that_has_passed_already_ends_the_waiting_at_once() -> None:
    connection, _ = asked()
    connection.limit(0.0)
    with pytest.raises(Overdue):
        await connection.wait_head()


async def test_moving_the_limit_later_arms_no_timer_also_over_many_exchanges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    armed: list[float] = []
    call_at = loop.call_at

    def noting(when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        armed.append(when)
        return call_at(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", noting)
    connection, _, _ = made()
    for _ in range(100):
        connection.start(b"head")
        connection.limit(loop.time() + 60)
        receive(connection, SIZED)
        assert await whole(connection) == b"hello"
    assert len(armed) == 1
    connection.abort()


async def test_a_limit_moved_later_outlives_the_first_one_and_then_counts() -> None:
    connection, notes = asked()
    loop = asyncio.get_running_loop()
    began = loop.time()
    connection.limit(began + 0.01)
    connection.limit(began + 0.05)
    with pytest.raises(Overdue):
        await connection.wait_head()
    assert loop.time() - began >= 0.048
    assert notes.aborted


async def test_a_limit_moved_earlier_counts() -> None:
    connection, _ = asked()
    loop = asyncio.get_running_loop()
    connection.limit(loop.time() + 60)
    connection.limit(loop.time() + 0.01)
    async with asyncio.timeout(30):
        with pytest.raises(Overdue):
            await connection.wait_head()


async def test_time_that_passes_while_nobody_waits_is_nobodys_silence() -> None:
    connection, notes = asked()
    loop = asyncio.get_running_loop()
    receive(connection, SIZED[:-1])
    connection.limit(loop.time() + 0.005)
    await asyncio.sleep(0.02)
    assert not notes.aborted
    assert await connection.wait_piece() == b"hell"
    connection.limit(loop.time() + 0.005)
    with pytest.raises(Overdue):
        await connection.wait_piece()


async def test_an_exchange_without_a_limit_is_not_ended_by_the_timer_of_the_one_before() -> None:
    connection, notes = asked()
    connection.limit(asyncio.get_running_loop().time() + 0.005)
    receive(connection, SIZED)
    assert await whole(connection) == b"hello"
    connection.start(b"head")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await connection.wait_head()
    assert not notes.aborted


async def test_a_closed_connection_leaves_no_timer() -> None:
    for end in (BackendConnection.abort, lambda one: one.connection_lost(None)):
        connection, _ = asked()
        connection.limit(asyncio.get_running_loop().time() + 60)
        end(connection)
        assert connection._timer is None


def test_the_socket_itself_is_asked_whether_it_was_closed() -> None:
    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        connection = BackendConnection(lambda _: None, ours, loop)
        assert connection.quiet()
        theirs.close()
        assert not connection.quiet()
        ours.close()
        assert not connection.quiet()
    loop.close()


def outcome(data: bytes, cuts: list[int], *, closed: bool) -> tuple[int, bytes, type | None, bool]:
    """What a connection makes of `data`, sliced at `cuts`: status, body, error, and whether it is kept."""
    loop = asyncio.new_event_loop()
    try:
        connection, notes = asked(loop)
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in itertools.pairwise(edges):
            if start < end and not notes.aborted:
                receive(connection, data[start:end])
        if closed:
            connection.connection_lost(None)
        body = bytearray()
        error: type | None = None
        try:
            loop.run_until_complete(read_into(connection, body))
        except (ConnectionFault, TimeoutError) as fault:
            error = type(fault)
        return connection.status, bytes(body), error, connection.reusable()
    finally:
        loop.close()


async def read_into(connection: BackendConnection, body: bytearray) -> None:
    async with asyncio.timeout(0):
        await connection.wait_head()
        while piece := await connection.wait_piece():
            body += piece


EXAMPLES = [
    SIZED,
    CHUNKED,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + SIZED,
    SIZED + b"X",
    SIZED + SIZED,
    OK + b"\r\nhello, world",
    CHUNKED[:-9],
    CHUNKED.replace(b"6\r\n", b"q\r\n"),
    OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    OK + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"nonsense",
]


@given(
    data=st.sampled_from(EXAMPLES),
    cuts=st.lists(st.integers(0, 100_000), max_size=30),
    closed=st.booleans(),
)
def test_any_slicing_gives_the_same_result(data: bytes, cuts: list[int], closed: bool) -> None:
    assert outcome(data, cuts, closed=closed) == outcome(data, [], closed=closed)


@given(
    bodies=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.lists(st.integers(0, 100_000), max_size=30),
)
def test_any_chunks_in_any_slicing_are_joined_again(bodies: list[bytes], cuts: list[int]) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies)
    data = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert outcome(data, cuts, closed=False) == (200, b"".join(bodies), None, True)


@given(
    data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=10), after_head=st.booleans()
)
def test_garbage_is_refused_or_waited_for_and_never_a_crash(
    data: bytes, cuts: list[int], after_head: bool
) -> None:
    prefix = OK + b"Transfer-Encoding: chunked\r\n\r\n" if after_head else b""
    status, _, error, kept = outcome(prefix + data, cuts, closed=True)
    assert status in {0, 200} or not after_head
    assert error in {None, Garbled, Cut, Unanswered}
    assert not kept


# --- a body that flows -------------------------------------------------------------------------------


def flowing(taker: Taker) -> tuple[BackendConnection, asyncio.Future[None], Notes]:
    """A connection whose answer has begun, and whoever waits for what `taker` does not take."""
    connection, notes = asked()
    receive(connection, OK + b"Transfer-Encoding: chunked\r\n\r\n")
    return connection, connection.flow(taker, math.inf, math.inf), notes


def anything(_: bytes) -> Taken:
    return HEARD


class Hands:
    """An event loop whose clock is turned by hand; it has as much as limits need."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._real = asyncio.get_running_loop()
        self.create_future = self._real.create_future

    def time(self) -> float:
        """Now."""
        return self._now

    def call_at(self, when: float, callback: Any) -> asyncio.TimerHandle:
        """Set a timer."""
        timer = asyncio.TimerHandle(when, callback, (), self._real)
        self._timers.append(timer)
        return timer

    def advance(self, now: float) -> None:
        """Turn the clock, and let strike what is due."""
        self._now = now
        for timer in [timer for timer in self._timers if timer.when() <= now]:
            self._timers.remove(timer)
            if not timer.cancelled():
                timer._run()


async def test_what_is_taken_wakes_nobody() -> None:
    taken: list[bytes] = []

    def taker(piece: bytes) -> Taken:
        taken.append(piece)
        return HEARD

    connection, waiter, _ = flowing(taker)
    receive(connection, b"2\r\nhe\r\n")
    receive(connection, b"2\r\nll\r\n1\r\no\r\n")
    assert taken == [b"he", b"llo"]
    assert not waiter.done()
    assert not connection.pieces


async def test_what_is_refused_wakes_and_nothing_behind_it_is_offered() -> None:
    offered: list[bytes] = []

    def taker(piece: bytes) -> Taken:
        offered.append(piece)
        return HEARD if piece == b"one" else REFUSED

    connection, waiter, _ = flowing(taker)
    for piece in (b"one", b"two", b"one"):
        receive(connection, b"3\r\n%b\r\n" % piece)
    assert offered == [b"one", b"two"]
    assert waiter.done()
    assert connection.take() == b"twoone"


async def test_what_comes_when_the_flow_has_stopped_is_kept() -> None:
    connection, waiter, _ = flowing(anything)
    connection.stop_flow()
    receive(connection, b"3\r\none\r\n")
    assert waiter.done()
    assert connection.take() == b"one"


async def test_the_end_is_for_the_reader_with_all_that_came_with_it() -> None:
    connection, waiter, _ = flowing(anything)
    receive(connection, b"2\r\nhe\r\n0\r\n\r\n")
    assert waiter.done()
    assert await connection.wait_piece() == b"he"
    assert connection.drained


async def test_what_is_taken_does_not_count_as_held() -> None:
    connection, _, notes = flowing(anything)
    for _ in range(4):
        receive(connection, b"%x\r\n%b\r\n" % (HIGH_WATER // 2, bytes(HIGH_WATER // 2)))
    assert notes.flow == []


@pytest.mark.parametrize(("until", "pause", "end"), [(50, 20, 30), (25, 20, 25)])
async def test_each_piece_that_is_taken_gives_the_next_its_time(
    until: float, pause: float, end: float
) -> None:
    loop = Hands()
    connection, _ = asked(cast("asyncio.AbstractEventLoop", loop))
    receive(connection, OK + b"Transfer-Encoding: chunked\r\n\r\n")
    waiter = connection.flow(anything, until, pause)
    for moment in (5, 10):
        loop.advance(moment)
        receive(connection, b"3\r\none\r\n")
    loop.advance(end - 0.1)
    assert not waiter.done()
    loop.advance(end)
    assert waiter.done()
    assert isinstance(connection.error, Overdue)


@pytest.mark.parametrize(("silent", "end"), [(0.0, 30), (8.0, 22)])
async def test_pieces_without_content_give_the_next_no_time(silent: float, end: float) -> None:
    loop = Hands()
    connection, _ = asked(cast("asyncio.AbstractEventLoop", loop))
    receive(connection, OK + b"Transfer-Encoding: chunked\r\n\r\n")
    waiter = connection.flow(lambda _: SILENT, 100, 30, silent)
    for moment in range(1, 20):
        loop.advance(moment)
        receive(connection, b"3\r\none\r\n")
    assert not connection.pieces
    loop.advance(end - 0.1)
    assert not waiter.done()
    loop.advance(end)
    assert waiter.done()
    assert isinstance(connection.error, Overdue)


# --- acknowledging ---------------------------------------------------------------------------------


class Acknowledging:
    """The socket of a connection, which counts how often it was told to acknowledge."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.acks = 0

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option, value) == (socket.IPPROTO_TCP, QUICKACK, 1)
        self.acks += 1


QUICKACK = 12


def acknowledging(monkeypatch: pytest.MonkeyPatch) -> tuple[BackendConnection, Acknowledging]:
    monkeypatch.setattr(socket_options, "_QUICKACK", QUICKACK)
    sock = Acknowledging()
    connection = BackendConnection(lambda _: None, cast("socket.socket", sock), write_batcher=AtOnce())
    connection.connection_made(Notes())
    connection.start(b"head")
    return connection, sock


async def test_an_answer_that_comes_whole_is_not_acknowledged_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, sock = acknowledging(monkeypatch)
    receive(connection, SIZED)
    assert (connection.complete, sock.acks) == (True, 0)


async def test_an_answer_that_is_not_complete_is_acknowledged_at_once_in_each_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, sock = acknowledging(monkeypatch)
    for acks in (1, 2, 3):
        receive(connection, SIZED[:-5])
        receive(connection, SIZED[-5:])
        assert (connection.complete, sock.acks) == (True, acks)
        connection.take()
        connection.start(b"head")


async def test_of_a_stream_the_first_reads_are_acknowledged_at_once_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, sock = acknowledging(monkeypatch)
    receive(connection, CHUNKED[: CHUNKED.index(b"5\r\n")])
    taken: list[bytes] = []

    def take(piece: bytes) -> Taken:
        taken.append(piece)
        return HEARD

    for place in range(3 * socket_options.FIRST_READS):
        if place == 2:
            connection.take()
            connection.flow(take, math.inf, math.inf)
        receive(connection, b"5\r\nhello\r\n")
    assert (len(taken), sock.acks) == (3 * socket_options.FIRST_READS - 2, socket_options.FIRST_READS)


async def test_nothing_is_acknowledged_while_more_is_waiting_or_after_garbage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, sock = acknowledging(monkeypatch)
    receive(connection, OK + b"Content-Length: 99999\r\n\r\n" + b"x" * (READ - 40))
    acks = sock.acks
    receive(connection, b"x" * READ)
    assert sock.acks == acks
    connection.abort()
    receive(connection, b"x")
    assert sock.acks == acks
