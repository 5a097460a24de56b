"""The protocol alone: a transport that is none, and a clock that is moved by naming a time."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.config import ServerSettings
from gateway.http1.admission import ConnectionAdmission
from gateway.http1.connection import HIGH_WATER, LINGER, NEVER, ClientConnection, ClientConnectionState
from gateway.http1.exchange import HttpExchange

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what was written, and what was asked of it."""

    def __init__(self, peer: tuple[str, int] | None = ("10.0.0.1", 5)) -> None:
        super().__init__({"peername": peer, "sockname": ("10.0.0.2", 80)})
        self.written = b""
        self.writes = 0
        self.ended = False
        self.closed = False
        self.aborted = False
        self.unsent = 0
        self.high = 0
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.written += data
        self.writes += 1

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Application:
    """Answers 200 once `go` is set, having read the whole body; notes what it saw."""

    def __init__(self, *, reads: bool = True) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.reads = reads
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if self.reads and not await self._read(receive):
            return
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _read(self, receive: Receive) -> bool:
        body, more = b"", True
        while more:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return False
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        return True


class Rig:
    """A connection that has just been made."""

    def __init__(self, application: Application | None = None, *, enters: int = 1, **limits: Any) -> None:
        self.application = application or Application()
        self.told: list[str] = []
        self.admission = ConnectionAdmission(ServerSettings(**limits), self.told.append)
        config = Config(self.application, lifespan="off", log_config=None)
        self.transport = Transport()
        for _ in range(enters):
            self.transport.ended = False
            self.connection = ClientConnection(config, self.admission, {}, asyncio.get_running_loop())
            self.connection.connection_made(self.transport)

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    async def settle(self) -> None:
        """Let everything run that can."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def fed(self, *pieces: bytes) -> bytes:
        """What is written once all this was read."""
        self.feed(*pieces)
        await self.settle()
        return self.transport.written

    def expire(self) -> None:
        """The moment that the connection is waiting for has come."""
        assert self.connection.deadline is not NEVER
        self.connection.check(self.connection.deadline)

    def stage(self) -> ClientConnectionState:
        return self.connection.stage

    def cut(self) -> bool:
        return self.transport.aborted

    def closed(self) -> bool:
        return self.transport.closed

    def lose(self) -> None:
        self.connection.connection_lost(None)


def statuses(written: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", written)


# --- the round of stages ---------------------------------------------------------------------------


async def test_a_request_goes_round_and_the_connection_waits_for_the_next() -> None:
    rig = Rig()
    assert rig.stage() is ClientConnectionState.IDLE
    rig.feed(GET[:10])
    assert rig.stage() is ClientConnectionState.HEAD
    rig.feed(GET[10:])
    assert rig.stage() is ClientConnectionState.ANSWER
    assert rig.connection.deadline == NEVER
    await rig.settle()
    assert rig.stage() is ClientConnectionState.IDLE
    assert statuses(await rig.fed(POST + b"body")) == [b"200", b"200"]
    assert rig.application.bodies == [b"", b"body"]
    assert b"connection: close" not in rig.transport.written
    assert not rig.transport.is_closing()


async def test_the_state_must_know_the_limits() -> None:
    with pytest.raises(TypeError, match="ConnectionAdmission"):
        ClientConnection(Config(Application(), lifespan="off", log_config=None), ServerState(), {})


async def test_a_writer_waits_early() -> None:
    assert Rig().transport.high == HIGH_WATER <= 65_536


async def test_what_comes_behind_a_request_in_work_ends_the_connection_after_its_answer() -> None:
    rig = Rig()
    written = await rig.fed(GET + GET + GET)
    assert statuses(written) == [b"200"]
    assert b"connection: close" in written
    assert len(rig.application.scopes) == 1
    assert rig.transport.ended
    assert rig.stage() is ClientConnectionState.ENDING


async def test_what_comes_while_an_answer_streams_ends_the_connection_after_it() -> None:
    rig = Rig()
    rig.application.go.clear()
    await rig.fed(GET)
    await rig.fed(GET)
    assert rig.stage() is ClientConnectionState.LAST
    assert rig.transport.written == b""
    rig.application.go.set()
    await rig.settle()
    assert statuses(rig.transport.written) == [b"200"]
    assert rig.transport.ended


async def test_blank_lines_behind_a_request_are_nothing() -> None:
    rig = Rig()
    await rig.fed(GET + b"\r\n")
    await rig.fed(b"\r\n")
    assert rig.stage() is ClientConnectionState.IDLE
    assert statuses(await rig.fed(GET)) == [b"200", b"200"]


async def test_an_answer_to_half_a_request_is_the_last() -> None:
    rig = Rig(Application(reads=False))
    written = await rig.fed(POST + b"bo")
    assert statuses(written) == [b"200"]
    assert b"connection: close" in written
    assert rig.transport.ended
    assert statuses(await rig.fed(b"dy" + GET)) == [b"200"]


OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: keep-alive, upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: upgrade\r\n",
    b"HTTP2-Settings: AAEAAEAA\r\nConnection: HTTP2-Settings\r\n",
    b"Upgrade: IRC/6.9, RTA/x11\r\nConnection: Upgrade\r\nExpect: 100-continue\r\n",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    "framed", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("size", [1, 7, 1000, None], ids=["crumbs", "pieces", "whole", "apart"])
async def test_an_offer_to_upgrade_is_ignored_and_the_body_read(
    offer: bytes, framed: bytes, size: int | None
) -> None:
    rig = Rig()
    head, _, body = framed.partition(b"\r\n\r\n")
    raw = POST.partition(b"\r\nContent-Length")[0] + b"\r\n" + offer + head + b"\r\n\r\n"
    for turn in (1, 2, 3):  # on one connection, another request between them
        pieces = (
            [raw, body]
            if size is None
            else [(raw + body)[i : i + size] for i in range(0, len(raw + body), size)]
        )
        await rig.fed(*pieces)
        assert rig.application.bodies[-1] == b"body"
        assert len(rig.application.bodies) == 2 * turn - 1
        assert dict(rig.application.scopes[-1]["headers"])[b"host"] == b"a"
        await rig.fed(GET)
        assert rig.application.bodies[-1] == b""
    assert [status for status in statuses(rig.transport.written) if status != b"100"] == [b"200"] * 6


async def test_a_request_without_a_body_that_offers_to_upgrade_leaves_its_connection_open() -> None:
    rig = Rig()
    call = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    await rig.fed(call)
    assert statuses(await rig.fed(call)) == [b"200", b"200"]


async def test_what_is_behind_a_request_that_offers_to_upgrade_is_not_read() -> None:
    rig = Rig()
    call = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    written = await rig.fed(call + GET)
    assert statuses(written) == [b"200"]
    assert b"connection: close" in written


@pytest.mark.parametrize(
    "length", [b"x", b"-1", b"4\r\nContent-Length: 5", b"4\r\nTransfer-Encoding: chunked"]
)
async def test_a_bad_framing_is_refused_with_an_offer_to_upgrade_too(length: bytes) -> None:
    rig = Rig()
    offered = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: " + length + b"\r\n\r\nbody"
    written = await rig.fed(POST.partition(b"\r\nContent-Length")[0] + b"\r\n" + offered)
    assert statuses(written) == [b"400"]
    assert rig.application.bodies == []


@pytest.mark.parametrize(
    "trailer",
    [
        b"Host: evil",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 3",
        b"Authorization: Bearer x",
        b"Expect: 100-continue",
        b"Connection: close",
        b"Connection: close, Upgrade\r\nUpgrade: h2c",
        b"Proxy-Connection: close",
        b"Origin: https://evil.example",
    ],
)
async def test_a_trailer_says_nothing_about_the_next_request(trailer: bytes) -> None:
    rig = Rig()
    written = await rig.fed(CHUNKED + b"2\r\nhi\r\n0\r\n" + trailer + b"\r\n\r\n")
    if trailer.startswith((b"Content-Length", b"Transfer-Encoding")):  # the parser itself refuses these
        assert statuses(written) == [b"400"]
        return
    await rig.fed(CHUNKED + b"2\r\nho\r\n0\r\n\r\n")
    assert rig.application.bodies == [b"hi", b"ho"]
    assert rig.application.scopes[0]["headers"] == rig.application.scopes[1]["headers"]
    assert statuses(rig.transport.written) == [b"200", b"200"]


async def test_a_trailer_approves_of_no_second_host() -> None:
    rig = Rig()
    await rig.fed(CHUNKED + b"2\r\nhi\r\n0\r\nHost: evil\r\n\r\n")
    two = CHUNKED.replace(b"Host: a\r\n", b"Host: a\r\nHost: evil\r\n")
    assert statuses(await rig.fed(two + b"2\r\nhi\r\n0\r\n\r\n")) == [b"200", b"400"]


async def test_a_client_of_http_1_0_gets_a_body_without_a_length_up_to_the_end_of_the_connection() -> None:
    async def application(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    rig = Rig(application)  # type: ignore[arg-type]
    written = await rig.fed(b"GET /livez HTTP/1.0\r\n\r\n")
    head, _, body = written.partition(b"\r\n\r\n")
    assert body == b"one two"
    assert b"chunked" not in head
    assert b"connection: close" in head
    assert rig.transport.ended


async def test_an_unended_body_of_a_client_of_http_1_0_is_cut_off() -> None:
    async def application(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})

    rig = Rig(application)  # type: ignore[arg-type]
    await rig.fed(b"GET /livez HTTP/1.0\r\n\r\n")
    assert rig.transport.aborted


async def test_an_idle_connection_is_kept_for_as_long_as_is_set() -> None:
    rig = Rig(keepalive=90.0)
    await rig.fed(GET)
    assert rig.connection.deadline == pytest.approx(rig.connection.loop.time() + 90, abs=5)


async def test_a_body_out_of_memory_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: Any) -> None:
        raise MemoryError

    rig = Rig()
    await rig.fed(POST)
    monkeypatch.setattr(HttpExchange, "feed", starve)
    assert statuses(await rig.fed(b"body")) == [b"503"]


async def test_trailers_never_reach_the_application() -> None:
    rig = Rig()
    await rig.fed(CHUNKED + b"2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    assert rig.application.bodies == [b"hi"]
    (scope,) = rig.application.scopes
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]


async def test_a_connection_that_is_shut_down_in_the_middle_of_a_body_ends_after_the_answer() -> None:
    rig = Rig()
    await rig.fed(POST + b"bo")
    rig.connection.shutdown()
    assert b"connection: close" in await rig.fed(b"dy")
    assert rig.transport.closed


async def test_an_answer_is_one_write() -> None:
    rig = Rig()
    rig.admission.default_headers = [(b"date", b"today")]
    assert await rig.fed(GET) == b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\nok"
    assert rig.transport.writes == 1


async def test_a_head_request_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    rig = Rig()
    written = await rig.fed(GET.replace(b"GET", b"HEAD"))
    assert written.endswith(b"content-length: 2\r\n\r\n")
    assert rig.stage() is ClientConnectionState.IDLE
    assert statuses(await rig.fed(GET)) == [b"200", b"200"]


@pytest.mark.parametrize(
    ("line", "header"),
    [(b"HTTP/1.0", b""), (b"HTTP/1.1", b"Connection: close\r\n"), (b"HTTP/1.0", b"X: y\r\n")],
)
async def test_a_client_that_wants_one_answer_gets_one(line: bytes, header: bytes) -> None:
    rig = Rig()
    written = await rig.fed(GET[:-2].replace(b"HTTP/1.1", line) + header + b"\r\n")
    assert b"connection: close\r\n" in written
    assert rig.closed() or rig.transport.ended


async def test_what_a_request_aims_at_is_told_in_its_scope_each_time() -> None:
    rig = Rig()
    for target in (b"/x?a=b", b"/x?a=b", b"/%E6%A8%A1%2Fy", b"http://elsewhere/z"):
        await rig.fed(GET.replace(b"/x", target, 1))
    await rig.fed(POST + b"body")
    told = [(s["method"], s["path"], s["raw_path"], s["query_string"]) for s in rig.application.scopes]
    assert told == [
        ("GET", "/x", b"/x", b"a=b"),
        ("GET", "/x", b"/x", b"a=b"),
        ("GET", "/模/y", b"/%E6%A8%A1%2Fy", b""),
        ("GET", "/z", b"/z", b""),
        ("POST", "/x", b"/x", b""),
    ]
    first, second, *_ = rig.application.scopes
    assert first is not second
    assert first["client"] == ("10.0.0.1", 5)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://elsewhere/z", b"/z", b"elsewhere"),
        (b"HTTP://Elsewhere:80/z?q", b"/z", b"Elsewhere:80"),
        (b"https://[::1]:8000", b"/", b"[::1]:8000"),
        (b"http://elsewhere?q", b"/", b"elsewhere"),
        (b"http://elsewhere:/%2F", b"/%2F", b"elsewhere:"),
    ],
)
async def test_an_absolute_target_names_the_host(target: bytes, path: bytes, host: bytes) -> None:
    rig = Rig()
    for asked in (target, b"/x", target):
        await rig.fed(GET.replace(b"/x", asked, 1))
    told = [(s["raw_path"], s["headers"]) for s in rig.application.scopes]
    assert told == [(path, [(b"host", host)]), (b"/x", [(b"host", b"a")]), (path, [(b"host", host)])]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"100-continue", 1), (b"100-Continue", 1), (b"100-continue  \t", 1), (b" ,100-continue,", 1),
        (b"100-continue, 100-continue", 1), (b"100-continue\r\nExpect: 100-continue", 1), (b"", 0),
        (b"200-ok", 0), (b"100-continued", 0),
    ],
)  # fmt: skip
async def test_a_client_that_waits_for_a_100_is_told_however_it_says_so(value: bytes, told: int) -> None:
    rig = Rig()
    head = POST.replace(b"Content", b"Expect: %b\r\nContent" % value)
    assert statuses(await rig.fed(head)) == [b"100"] * told
    assert statuses(await rig.fed(b"body")) == [b"100"] * told + [b"200"]
    assert statuses(await rig.fed(POST, b"body")) == [b"100"] * told + [b"200"] * 2


async def test_an_application_that_fails_is_a_500_and_the_end() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nb: c")]})
        await send({"type": "http.response.body", "body": b"ok"})

    rig = Rig()
    rig.connection.app = broken
    written = await rig.fed(GET)
    assert statuses(written) == [b"500"]
    assert b"b: c" not in written
    assert rig.transport.ended


async def test_a_connection_has_one_memory_and_no_other_connections() -> None:
    rig, other = Rig(), Rig()
    for one in (rig, rig, other):
        await one.fed(GET)
    first, second = (scope["exchange"].remembered for scope in rig.application.scopes)
    assert first is second
    assert other.application.scopes[0]["exchange"].remembered is not first


# --- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("began", [False, True], ids=["before-the-head", "after-the-head"])
async def test_an_application_learns_at_once_that_its_client_left(began: bool) -> None:
    told: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        scope["exchange"].on_leaving = lambda: told.append("left")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if began:
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"b", "more_body": True})

    rig = Rig()
    rig.connection.app = waits
    written = await rig.fed(GET)
    assert bool(written) is began
    rig.lose()
    assert told == ["left"]
    await rig.settle()
    assert rig.transport.written == written
    assert not rig.admission.tasks


async def test_a_client_that_leaves_behind_its_answer_left_nothing() -> None:
    rig = Rig()
    await rig.fed(GET)
    rig.lose()
    assert not rig.application.scopes[0]["exchange"].gone


# --- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([GET[:-2], b"X-A: " + b"x" * 2000], id="one-endless-value"),
        pytest.param([GET[:-2] + b"X-A: " + b"x" * 2000 + b"\r\n\r\n"], id="whole-in-one-piece"),
        pytest.param([GET[:-2], *[b"X-A: x\r\n"] * 200], id="many-small"),
        pytest.param([b"GET /" + b"x" * 2000], id="endless-target"),
        pytest.param([GET[:-2] + b"X-A: x\r\n" * 100 + b"\r\n"], id="too-many-headers"),
        pytest.param([CHUNKED, b"2;" + b"x" * 2000], id="endless-chunk-extension"),
        pytest.param([CHUNKED, b"0\r\nX-A: ", b"x" * 2000], id="endless-trailer"),
        pytest.param([CHUNKED + b"0\r\nX-A: " + b"x" * 2000 + b"\r\n\r\n"], id="large-trailer-in-one-piece"),
    ],
)
async def test_a_head_above_its_limits_is_a_431_and_the_end(pieces: list[bytes]) -> None:
    rig = Rig(max_header_bytes=1024)
    written = await rig.fed(*pieces)
    assert statuses(written) == [b"431"]
    assert b'"headers_too_large"' in written
    assert rig.told == ["headers_too_large"]
    assert rig.transport.ended
    assert rig.application.bodies == []


async def test_a_body_does_not_count_as_head() -> None:
    rig = Rig(max_header_bytes=1024)
    large = POST.replace(b"4", b"100000")
    assert statuses(await rig.fed(large + b"x" * 50_000, b"x" * 50_000)) == [b"200"]
    chunk = b"10\r\n" + b"x" * 16 + b"\r\n"
    assert statuses(await rig.fed(CHUNKED, *[chunk] * 500, b"0\r\n\r\n")) == [b"200", b"200"]


async def test_a_target_above_its_limit_is_a_414() -> None:
    written = await Rig().fed(b"GET /" + b"x" * 9000 + GET[6:])
    assert statuses(written) == [b"414"]


async def test_the_count_begins_anew_with_each_request() -> None:
    rig = Rig(max_header_bytes=1024)
    for _ in range(20):
        await rig.fed(GET[:-2] + b"X-A: " + b"x" * 500 + b"\r\n\r\n")
    assert statuses(rig.transport.written) == [b"200"] * 20


# --- framing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"GET /x HTTP/1.1\r\n\r\n", b"400", id="no-host"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked"), b"501", id="coding"),
        pytest.param(POST.replace(b"4", b"+4"), b"400", id="length"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"400", id="no-path"),
        pytest.param(b"\x16\x03\x01\x02", b"400", id="tls"),
        pytest.param(b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", b"400", id="version"),
        pytest.param(GET.replace(b"/x", b"ftp://a/x"), b"400", id="another-scheme"),
        pytest.param(GET.replace(b"/x", b"http://user@a/x"), b"400", id="target-with-user"),
        pytest.param(GET.replace(b"/x", b"http:///x"), b"400", id="target-of-nobody"),
        pytest.param(GET.replace(b"/x", b"http://a b/x"), b"400", id="target-with-a-blank"),
        pytest.param(GET.replace(b"/x", b"/x#y"), b"400", id="fragment"),
    ],
)
async def test_a_bad_head_is_refused_before_the_application_sees_it(raw: bytes, status: bytes) -> None:
    rig = Rig()
    assert statuses(await rig.fed(raw, GET)) == [status]
    assert rig.application.scopes == []
    assert rig.transport.ended


async def test_a_bad_body_is_one_refusal_and_the_application_learns_why() -> None:
    rig = Rig()
    await rig.fed(CHUNKED + b"2\r\nhi")
    written = await rig.fed(b"XX")
    assert statuses(written) == [b"400"]
    assert rig.application.gone == 1
    assert "not well-formed" in str(rig.application.scopes[0]["exchange"].fault)


async def test_a_bad_body_behind_an_answer_that_began_gets_no_second_answer() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.Event().wait()

    rig = Rig()
    rig.connection.app = early
    await rig.fed(CHUNKED + b"2\r\nhi")
    assert statuses(await rig.fed(b"XX")) == [b"200"]
    assert rig.transport.closed
    for task in rig.admission.tasks:
        task.cancel()
    await rig.settle()


# --- time ------------------------------------------------------------------------------------------


async def test_a_silent_socket_is_closed_without_a_word() -> None:
    rig = Rig()
    rig.expire()
    assert rig.transport.written == b""
    assert rig.transport.closed


async def test_half_a_head_is_a_408_however_it_trickles() -> None:
    rig = Rig()
    begun = rig.connection.deadline
    rig.feed(*(GET[at : at + 1] for at in range(20)))
    assert rig.connection.deadline == begun
    rig.expire()
    assert statuses(rig.transport.written) == [b"408"]
    assert rig.told == ["request_timeout"]


async def test_a_later_head_has_its_time_from_its_own_first_byte() -> None:
    rig = Rig()
    await rig.fed(GET)
    idle = rig.connection.deadline
    rig.feed(GET[:5])
    begun = rig.connection.deadline
    assert begun < idle
    rig.feed(GET[5:10])
    assert rig.connection.deadline == begun
    rig.expire()
    assert statuses(rig.transport.written) == [b"200", b"408"]


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    rig = Rig()
    await rig.fed(GET)
    rig.expire()
    assert statuses(rig.transport.written) == [b"200"]
    assert rig.transport.closed


async def test_a_body_that_pauses_is_a_408_and_the_application_learns_why() -> None:
    rig = Rig()
    await rig.fed(POST + b"b")
    first = rig.connection.deadline
    await rig.fed(b"o")
    assert rig.connection.deadline >= first
    rig.expire()
    await rig.settle()
    assert statuses(rig.transport.written) == [b"408"]
    assert rig.application.gone == 1
    assert "too slowly" in str(rig.application.scopes[0]["exchange"].fault)


async def test_a_body_that_we_do_not_read_is_not_the_clients_fault() -> None:
    rig = Rig()
    rig.feed(POST.replace(b"4", b"100000") + b"x" * 70_000)
    assert rig.transport.paused
    rig.expire()
    assert rig.transport.written == b""
    assert rig.connection.deadline is not NEVER
    await rig.settle()


async def test_an_answer_may_take_its_time() -> None:
    rig = Rig()
    rig.application.go.clear()
    await rig.fed(GET)
    rig.connection.check(asyncio.get_running_loop().time() + 1e6)
    assert not rig.transport.is_closing()
    rig.application.go.set()
    await rig.settle()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    rig = Rig(write_timeout=60.0)
    rig.transport.unsent = 5000
    rig.connection.check(100.0)
    rig.connection.deadline = NEVER
    rig.connection.check(159.0)
    assert not rig.cut()
    rig.connection.check(160.0)
    assert rig.cut()
    assert rig.told == ["write_timeout"]


async def test_a_client_that_takes_a_little_is_let_go_on() -> None:
    rig = Rig(write_timeout=60.0)
    rig.connection.deadline = NEVER
    for minute in range(10):
        rig.transport.unsent = 5000 - minute
        rig.connection.check(100.0 + 59 * minute)
    rig.transport.unsent = 0
    rig.connection.check(1e6)
    assert not rig.transport.aborted


async def test_after_the_last_answer_a_client_has_a_moment_to_close() -> None:
    rig = Rig()
    await rig.fed(b"\x00")
    assert rig.transport.ended
    assert not rig.closed()
    assert rig.connection.deadline <= asyncio.get_running_loop().time() + LINGER
    rig.expire()
    assert rig.closed()
    assert rig.connection.deadline == NEVER


# --- number ----------------------------------------------------------------------------------------


async def test_a_connection_above_a_cap_is_refused_unread() -> None:
    rig = Rig(enters=2, max_connections=1)
    written = await rig.fed(GET)
    assert statuses(written) == [b"503"]
    assert b"retry-after: 1\r\n" in written
    assert rig.told == ["too_many_connections"]
    assert rig.application.scopes == []


FULL_HEAD = b"Origin: https://page\r\nX: " + b"y" * 70_000


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(GET[:-2] + FULL_HEAD, b"431", id="head"),
        pytest.param(
            GET.replace(b"/x", b"/" + b"x" * 9_000)[:-2] + FULL_HEAD[:22] + b"\r\n", b"414", id="target"
        ),
        pytest.param(GET[:-2] + b"Origin: https://page\r\nX: y\r\nno field\r\n\r\n", b"400", id="no-field"),
        pytest.param(CHUNKED[:-2] + b"Origin: https://page\r\n\r\nx", b"400", id="body"),
        pytest.param(CHUNKED.replace(b"chunked\r\n", b"gzip\r\n" + FULL_HEAD[:22]), b"501", id="coding"),
    ],
)
async def test_a_page_that_may_read_answers_may_read_a_refusal_too(raw: bytes, status: bytes) -> None:
    rig = Rig()
    rig.admission.cors = lambda origin: [b"access-control-allow-origin: " + (origin or b"-")]
    written = await rig.fed(raw)
    assert statuses(written) == [status]
    assert b"\r\naccess-control-allow-origin: https://page\r\n" in written


async def test_a_page_of_nobody_knows_which_origin_reads_what_is_said_to_everybody() -> None:
    rig = Rig()
    rig.admission.cors = lambda origin: [b"access-control-allow-origin: " + (origin or b"*")]
    rig.feed(POST)
    rig.expire()
    await rig.settle()
    assert statuses(rig.transport.written) == [b"408"]
    assert b"\r\naccess-control-allow-origin: *\r\n" in rig.transport.written


async def test_in_a_crowd_nobody_is_answered() -> None:
    rig = Rig(enters=300, max_connections=1)
    assert statuses(await rig.fed(GET)) == [b"503"] * 256
    assert rig.cut()


async def test_a_connection_that_ends_makes_room() -> None:
    rig = Rig(max_connections=1)
    await rig.fed(GET)
    rig.lose()
    assert rig.admission.enter(rig.connection, "b") is None
