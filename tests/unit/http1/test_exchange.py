"""One request and the bytes of its answer: framing, one write, back-pressure, and clients that leave."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.config import ServerSettings
from gateway.errors import BadRequest
from gateway.http1.admission import ConnectionAdmission
from gateway.http1.exchange import LARGE, HttpExchange

HEADER = (b"content-type", b"application/json")
LINE = b": ".join(HEADER)
OK: Message = {"type": "http.response.start", "status": 200, "headers": ()}


class Wire(asyncio.Transport):
    """Keeps every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Connection:
    """A connection as a cycle knows it; notes how the answer ended."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.transport: asyncio.Transport = self.wire
        self.flow = FlowControl(self.wire)
        self.admission = ConnectionAdmission(ServerSettings(), lambda _: None)
        self.nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.nothing.set_result(None)
        self.ends: list[str] = []
        self.cycles: list[HttpExchange] = []

    def write(self, data: bytes) -> None:
        self.wire.write(data)

    def on_response_complete(self, *, keep_alive: bool) -> None:
        self.ends.append("kept" if keep_alive else "closed")

    def fail(self) -> None:
        self.ends.append("failed")

    def cycle(
        self, *, head_only: bool = False, expects: bool = False, keep_alive: bool = True
    ) -> HttpExchange:
        made = HttpExchange(self, head_only, expects)
        made.keep_alive = keep_alive
        made.task = cast("asyncio.Task[None]", asyncio.current_task())
        self.cycles.append(made)
        return made


def head(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answered(*messages: Message, **options: Any) -> Connection:
    line = Connection()
    cycle = line.cycle(**options)
    for message in messages:
        await cycle.send(message)
    return line


# --- the head --------------------------------------------------------------------------------------


async def test_a_head_waits_for_its_body_and_both_leave_in_one_write() -> None:
    line = Connection()
    line.admission.default_headers = [(b"date", b"today")]
    cycle = line.cycle()
    await cycle.send(head(200, (b"content-length", b"2"), (b"x-a", b"b")))
    assert line.wire.writes == []
    assert not cycle.started
    await cycle.send(body(b"ok"))
    assert line.wire.writes == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok",
    ]
    assert line.ends == ["kept"]


async def test_a_status_that_nobody_knows_has_no_phrase() -> None:
    line = await answered(head(499, (b"content-length", b"0")), body())
    assert line.wire.writes[0].startswith(b"HTTP/1.1 499 \r\n")


@pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\n", b"\ra", b"\x00", b"\x1b[2J", b"\x7f", b"\r\n"])
@pytest.mark.parametrize("place", ["name", "value"])
async def test_a_control_character_never_passes(bad: bytes, place: str) -> None:
    line = Connection()
    cycle = line.cycle()
    header = (b"x-a", bad) if place == "value" else (bad, b"x")
    await cycle.send(head(200, header, (b"content-length", b"0")))
    with pytest.raises(RuntimeError, match="control character"):
        await cycle.send(body())
    assert line.wire.writes == []
    assert not cycle.started


async def test_text_beyond_ascii_and_tabs_may_stand_in_a_header() -> None:
    line = await answered(head(200, (b"x-a", "ä\t模".encode()), (b"content-length", b"0")), body())
    assert "x-a: ä\t模\r\n".encode() in line.wire.writes[0]


# --- framing ---------------------------------------------------------------------------------------


async def test_a_stream_is_one_chunk_and_one_write_an_event() -> None:
    line = await answered(OK, body(b"data: 1\n\n", more=True), body(b"", more=True), body(b"x" * 16))
    assert line.wire.writes == [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
        b"10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    ]


async def test_the_end_of_a_stream_may_come_alone() -> None:
    line = await answered(OK, body(b"a", more=True), body())
    assert line.wire.writes[1] == b"0\r\n\r\n"
    assert line.ends == ["kept"]


async def test_an_empty_stream_is_a_head_and_an_end() -> None:
    line = await answered(OK, body())
    assert line.wire.writes[0].endswith(b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n")


async def test_an_answer_to_head_has_the_length_and_no_body() -> None:
    line = await answered(head(200, (b"content-length", b"5")), body(b"hello"), head_only=True)
    assert line.wire.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]
    assert line.ends == ["kept"]


async def test_an_answer_to_head_without_a_length_is_not_chunked() -> None:
    line = await answered(OK, body(b"hello"), head_only=True)
    assert line.wire.writes == [b"HTTP/1.1 200 OK\r\n\r\n"]


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_is_not_framed(status: int) -> None:
    line = await answered(head(status), body())
    assert b"transfer-encoding" not in line.wire.writes[0]
    assert line.wire.writes[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize("pieces", [[b"toolong"], [b"sho", b"rtly"], [b"s"], [b""]])
async def test_a_body_of_another_length_than_its_head_says_is_a_fault(pieces: list[bytes]) -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.send(head(200, (b"content-length", b"4")))
    *before, last = pieces
    for piece in before:
        await cycle.send(body(piece, more=True))
    with pytest.raises(RuntimeError, match="another length"):
        cycle.send(body(last))
    assert line.ends == []


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 1_000_000])
async def test_a_large_answer_is_whole(size: int) -> None:
    line = await answered(head(200, (b"content-length", b"%d" % size)), body(b"x" * size))
    assert b"".join(line.wire.writes).partition(b"\r\n\r\n")[2] == b"x" * size
    assert len(line.wire.writes) == (1 if size < LARGE else 2)


async def test_a_body_may_come_in_pieces_of_a_known_length() -> None:
    line = await answered(head(200, (b"content-length", b"4")), body(b"ab", more=True), body(b"cd"))
    assert line.wire.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab", b"cd"]


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([body(b"a")], id="body-first"),
        pytest.param([OK, OK], id="two-heads"),
        pytest.param([OK, body(), body()], id="body-behind-the-end"),
        pytest.param([{"type": "http.response.trailers"}], id="unknown"),
    ],
)
async def test_messages_out_of_order_are_a_fault(messages: list[Message]) -> None:
    with pytest.raises(RuntimeError):
        await answered(*messages)


# --- the connection's future -----------------------------------------------------------------------


async def test_a_last_answer_says_so() -> None:
    line = await answered(head(200, (b"content-length", b"0")), body(), keep_alive=False)
    assert b"connection: close\r\n" in line.wire.writes[0]
    assert line.ends == ["closed"]


async def test_an_application_may_end_the_connection() -> None:
    line = await answered(head(200, (b"content-length", b"0"), (b"connection", b"Close")), body())
    assert line.wire.writes[0].lower().count(b"connection: close") == 1
    assert line.ends == ["closed"]


# --- back-pressure ---------------------------------------------------------------------------------


async def test_a_writer_waits_while_the_client_reads_too_slowly() -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.send(OK)
    await cycle.send(body(b"a", more=True))
    line.flow.pause_writing()
    task = asyncio.ensure_future(cycle.send(body(b"b", more=True)))
    await asyncio.sleep(0)
    assert not task.done()
    assert len(line.wire.writes) == 1
    line.flow.resume_writing()
    await task
    assert line.wire.writes[1] == b"1\r\nb\r\n"


async def test_a_writer_that_waits_for_a_client_that_leaves_is_let_go() -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.send(OK)
    line.flow.pause_writing()
    task = asyncio.ensure_future(cycle.send(body(b"a", more=True)))
    await asyncio.sleep(0)
    cycle.leave()
    line.flow.resume_writing()
    await task
    assert line.wire.writes == []


async def test_a_large_body_pauses_the_client_until_it_is_read() -> None:
    line = Connection()
    cycle = line.cycle()
    for _ in range(70):
        cycle.feed(b"x" * 1000)
    assert line.wire.paused
    message = await cycle.receive()
    assert len(message["body"]) == 70_000
    assert not line.wire.paused


# --- receiving -------------------------------------------------------------------------------------


async def test_a_body_that_is_there_is_given_as_it_came() -> None:
    cycle = Connection().cycle()
    whole = b"x" * 100
    cycle.feed(whole)
    cycle.end_body()
    message = await cycle.receive()
    assert message == {"type": "http.request", "body": whole, "more_body": False}
    assert message["body"] is whole


async def test_a_whole_body_is_there_at_once_and_but_once() -> None:
    cycle = Connection().cycle()
    cycle.feed(b"a")
    cycle.feed(b"b")
    assert cycle.whole_body() is None
    cycle.end_body()
    assert cycle.whole_body() == b"ab"
    assert cycle.whole_body() is None


async def test_no_body_is_a_whole_body() -> None:
    cycle = Connection().cycle()
    cycle.end_body()
    assert cycle.whole_body() == b""


async def test_a_body_that_has_to_be_called_for_is_received() -> None:
    line = Connection()
    waits, large, gone = line.cycle(expects=True), line.cycle(), line.cycle()
    large.feed(b"x" * 70_000)
    assert line.wire.paused
    assert large.whole_body() is None
    for cycle in (waits, gone):
        cycle.end_body()
    gone.leave()
    assert [cycle.whole_body() for cycle in (waits, gone)] == [None, None]
    assert len((await large.receive())["body"]) == 70_000


async def test_reading_goes_on_when_a_large_body_is_complete_so_that_its_clients_end_is_seen() -> None:
    line = Connection()
    cycle = line.cycle()
    cycle.feed(b"x" * 70_000)
    paused = [line.wire.paused]
    cycle.end_body()
    paused.append(line.wire.paused)
    assert paused == [True, False]
    assert len(cycle.whole_body() or b"") == 70_000


@pytest.mark.parametrize("size", [2, 70_000])
@pytest.mark.parametrize("options", [{}, {"keep_alive": False}, {"head_only": True}], ids=str)
async def test_a_whole_answer_is_what_two_messages_say(size: int, options: dict[str, bool]) -> None:
    whole, length = b"x" * size, (b"content-length", b"%d" % size)
    said, line = await answered(head(200, HEADER, length), body(whole), **options), Connection()
    await line.cycle(**options).answer([LINE], whole)
    assert b"".join(line.wire.writes) == b"".join(said.wire.writes)
    assert line.ends == said.ends


async def test_there_is_one_whole_answer() -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.answer([LINE], b"{}")
    with pytest.raises(RuntimeError):
        await cycle.answer([LINE], b"{}")
    assert len(line.wire.writes) == 1


async def test_a_whole_answer_has_no_line_end_in_a_header() -> None:
    line = Connection()
    with pytest.raises(RuntimeError, match="control character"):
        await line.cycle().answer([b"x-a: 1\r\nx-b: 2"], b"{}")
    assert line.wire.writes == []


async def test_a_whole_answer_waits_for_a_slow_reader_and_is_dropped_for_one_who_left() -> None:
    line = Connection()
    slow, gone = line.cycle(), line.cycle()
    line.flow.pause_writing()
    task = asyncio.ensure_future(slow.answer([LINE], b"{}"))
    gone.leave()
    await gone.answer([LINE], b"{}")
    await asyncio.sleep(0)
    assert line.wire.writes == []
    line.flow.resume_writing()
    await task
    assert line.wire.writes[0].endswith(b"\r\n\r\n{}")


async def test_a_reader_waits_for_what_is_to_come() -> None:
    cycle = Connection().cycle()
    cycle.feed(b"a")
    assert (await cycle.receive())["more_body"]
    task = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    assert not task.done()
    cycle.feed(b"b")
    cycle.end_body()
    assert await task == {"type": "http.request", "body": b"b", "more_body": False}


async def test_behind_the_body_there_is_only_the_clients_leaving() -> None:
    cycle = Connection().cycle()
    cycle.end_body()
    await cycle.receive()
    task = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    assert not task.done()
    cycle.leave()
    assert await task == {"type": "http.disconnect"}


async def test_behind_the_answer_there_is_nothing_to_receive() -> None:
    cycle = Connection().cycle()
    cycle.end_body()
    await cycle.receive()
    task = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    await cycle.send(OK)
    await cycle.send(body())
    assert await task == {"type": "http.disconnect"}


@pytest.mark.parametrize(("expects", "said"), [(True, [b"HTTP/1.1 100 Continue\r\n\r\n"]), (False, [])])
async def test_a_client_that_waits_for_a_100_gets_it_once(expects: bool, said: list[bytes]) -> None:
    line = Connection()
    cycle = line.cycle(expects=expects)
    cycle.feed(b"a")
    await cycle.receive()
    cycle.end_body()
    await cycle.receive()
    assert line.wire.writes == said


async def test_behind_a_head_no_100_is_sent() -> None:
    line = Connection()
    cycle = line.cycle(expects=True)
    cycle.end_body()
    await cycle.send(OK)
    await cycle.receive()
    assert line.wire.writes == []


# --- leaving ---------------------------------------------------------------------------------------


async def test_whoever_asked_is_told_of_a_leaving_once() -> None:
    cycle = Connection().cycle()
    told: list[bool] = []
    cycle.on_leaving = lambda: told.append(cycle.gone)
    cycle.leave()
    cycle.leave()
    assert told == [True]


async def test_a_leaving_behind_the_answer_is_none() -> None:
    cycle = Connection().cycle()
    cycle.on_leaving = lambda: pytest.fail("told")
    await cycle.send(OK)
    await cycle.send(body())
    cycle.leave()
    assert not cycle.gone


@pytest.mark.parametrize("began", [False, True])
async def test_what_is_sent_to_nobody_is_dropped(began: bool) -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.send(OK)
    if began:
        await cycle.send(body(b"a", more=True))
    written = len(line.wire.writes)
    cycle.leave()
    await cycle.send(body(b"b", more=True))
    await cycle.send(body())
    assert len(line.wire.writes) == written
    assert line.ends == []


# --- the application's end -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, BadRequest("nobody caught this")], ids=["returned", "raised"])
@pytest.mark.parametrize("began", [False, True])
async def test_an_application_that_ends_without_an_answer_has_failed(
    error: Exception | None, began: bool, caplog: pytest.LogCaptureFixture
) -> None:
    line = Connection()
    cycle = line.cycle()
    if began:
        await cycle.send(OK)
        await cycle.send(body(b"a", more=True))
    cycle.finish(error)
    assert line.ends == ["failed"]
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == (error is not None)


@pytest.mark.parametrize("left", [False, True])
async def test_an_application_that_has_answered_or_whose_client_left_has_not(left: bool) -> None:
    line = Connection()
    cycle = line.cycle()
    if left:
        cycle.leave()
    await cycle.send(OK)
    await cycle.send(body())
    cycle.finish(None)
    assert line.ends == ([] if left else ["kept"])


# --- pieces without a message around them ------------------------------------------------------------


async def test_a_piece_is_a_chunk_of_a_body_that_has_begun() -> None:
    line = await answered(head(), body(b"one", more=True))
    cycle = line.cycles[-1]
    await cycle.push(b"two")
    await cycle.push(b"")
    assert line.wire.writes[1:] == [b"3\r\ntwo\r\n"]
    await cycle.send(body(b"three"))
    assert line.wire.writes[-1] == b"5\r\nthree\r\n0\r\n\r\n"


async def test_a_piece_before_the_body_has_begun_comes_behind_its_head() -> None:
    line = Connection()
    cycle = line.cycle()
    await cycle.send(head())
    await cycle.push(b"one")
    (written,) = line.wire.writes
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\n3\r\none\r\n")


async def test_a_piece_waits_for_a_slow_reader_and_is_dropped_for_one_who_left() -> None:
    line = await answered(head(), body(b"one", more=True))
    cycle = line.cycles[-1]
    line.flow.pause_writing()
    waiting = asyncio.ensure_future(cycle.push(b"two"))
    await asyncio.sleep(0)
    assert len(line.wire.writes) == 1
    line.flow.resume_writing()
    await waiting
    assert line.wire.writes[1:] == [b"3\r\ntwo\r\n"]
    cycle.leave()
    await cycle.push(b"three")
    assert len(line.wire.writes) == 2


async def test_a_piece_after_the_end_is_a_bug() -> None:
    line = await answered(head(), body(b"one"))
    with pytest.raises(RuntimeError, match="after its end"):
        await line.cycles[-1].push(b"two")


async def test_a_body_flows_while_it_is_chunked_begun_and_read_and_has_no_end() -> None:
    line = await answered(head(), body(b"one", more=True))
    cycle = line.cycles[-1]
    assert cycle.flows
    cycle.pour(b"two")
    assert line.wire.writes[1:] == [b"3\r\ntwo\r\n"]
    seen = []
    for step in (line.flow.pause_writing, line.flow.resume_writing):
        step()
        seen.append(cycle.flows)
    await cycle.send(body(b""))
    assert [*seen, cycle.flows] == [False, True, False]
    gone = (await answered(head(), body(b"one", more=True))).cycles[-1]
    gone.leave()
    assert not gone.flows
    sized = (await answered(head(200, (b"content-length", b"9")), body(b"one", more=True))).cycles[-1]
    assert not sized.flows
    assert not Connection().cycle().flows
