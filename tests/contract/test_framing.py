"""What is well framed gets one answer; what can be read in two ways gets one refusal, and the end.

Every case is sent to a real port in one write, and again byte by byte, always with a second request behind
it: whoever took a message to end at another place would be seen by that one's answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest

from tests.support.stack import Stack, threaded

Class = Literal["refused", "clean"]
"""`refused`: one 4xx or 5xx in the envelope, then the end. `clean`: one whole answer, whatever it says."""

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
LENGTH = b"%d" % len(BODY)
HOST = b"Host: localhost\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(*headers: bytes, body: bytes = BODY, host: bytes = HOST, version: bytes = b"1.1") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    kind = b"Content-Type: application/json\r\n"
    return b"POST /v1/chat/completions HTTP/" + version + b"\r\n" + host + kind + lines + b"\r\n" + body


def get(target: bytes = b"/livez", *headers: bytes, version: bytes = b"1.1", host: bytes = HOST) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + host + lines + b"\r\n"


def chunked(body: bytes, *headers: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *headers, body=body)


WHOLE = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
"""The body as one chunk and its end."""


def case(name: str, raw: bytes, wanted: Class) -> Any:
    return pytest.param(raw, wanted, id=name)


LENGTHS = [
    case("cl-cl-diff", post(b"Content-Length: " + LENGTH, b"Content-Length: 5"), "refused"),
    case("cl-cl-same", post(b"Content-Length: " + LENGTH, b"Content-Length: " + LENGTH), "clean"),
    case("cl-list-same", post(b"Content-Length: " + LENGTH + b", " + LENGTH), "clean"),
    case("cl-plus", post(b"Content-Length: +" + LENGTH), "refused"),
    case("cl-underscore", post(b"Content-Length: 5_7"), "refused"),
    case("cl-negative", post(b"Content-Length: -1"), "refused"),
    case("cl-huge", post(b"Content-Length: 99999999999999999999"), "refused"),
    case("cl-above-the-cap", post(b"Content-Length: 9223372036854775807"), "refused"),
    case("cl-empty", post(b"Content-Length: "), "refused"),
    case("cl-nbsp", post(b"Content-Length: \xa0" + LENGTH), "refused"),
]
CODINGS = [
    case("cl-te", post(b"Content-Length: " + LENGTH, b"Transfer-Encoding: chunked", body=WHOLE), "refused"),
    case("te-cl", post(b"Transfer-Encoding: chunked", b"Content-Length: " + LENGTH, body=WHOLE), "refused"),
    case("te-identity", post(b"Transfer-Encoding: identity"), "refused"),
    case("te-xchunked", post(b"Transfer-Encoding: xchunked", body=WHOLE), "refused"),
    case("te-chunked-twice", chunked(WHOLE, b"Transfer-Encoding: chunked"), "refused"),
    case("te-chunked-chunked", post(b"Transfer-Encoding: chunked, chunked", body=WHOLE), "refused"),
    case("te-list", post(b"Transfer-Encoding: gzip, chunked", body=WHOLE), "refused"),
    case(
        "te-two-lines", post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=WHOLE), "refused"
    ),
    case("te-space-colon", post(b"Transfer-Encoding : chunked", body=WHOLE), "refused"),
    case("te-vtab", post(b"Transfer-Encoding: \x0bchunked", body=WHOLE), "refused"),
    case("te-empty", post(b"Transfer-Encoding: ", body=WHOLE), "refused"),
    case("te-http10", post(b"Transfer-Encoding: chunked", body=WHOLE, version=b"1.0"), "refused"),
    case("te-in-capitals", post(b"Transfer-Encoding: Chunked", body=WHOLE), "clean"),
]
CHUNKS = [
    case("chunk-whole", chunked(WHOLE), "clean"),
    case("chunk-extension", chunked(WHOLE.replace(b"\r\n", b";name=value\r\n", 1)), "clean"),
    case("chunk-bare-lf", chunked(WHOLE.replace(b"\r\n", b"\n", 1)), "refused"),
    case("chunk-negative", chunked(b"-" + WHOLE), "refused"),
    case("chunk-0x", chunked(b"0x" + WHOLE), "refused"),
    case("chunk-underscore", chunked(b"0_" + WHOLE), "refused"),
    case("chunk-overflow", chunked(b"fffffffffffffffff\r\n" + BODY), "refused"),
    case("chunk-bad-terminator", chunked(WHOLE.replace(BODY + b"\r\n", BODY + b"XX")), "refused"),
    case("chunk-ext-lf", chunked(WHOLE.replace(b"\r\n", b";a\nb\r\n", 1)), "refused"),
    case("chunk-blank-before", chunked(b" " + WHOLE), "refused"),
]
HOSTS = [
    case("no-host", get(host=b""), "refused"),
    case("no-host-http10", get(host=b"", version=b"1.0"), "clean"),
    case("two-host", get(host=HOST * 2), "refused"),
    case("two-different-hosts", get(host=HOST + b"Host: other\r\n"), "refused"),
    case("host-with-path", get(host=b"Host: a/healthz?x=\r\n"), "refused"),
    case("host-with-user", get(host=b"Host: user@a\r\n"), "refused"),
    case("host-list", get(host=b"Host: a, b\r\n"), "refused"),
    case("host-empty", get(host=b"Host: \r\n"), "refused"),
    case("host-with-port", get(host=b"Host: localhost:8000\r\n"), "clean"),
    case("host-ipv6", get(host=b"Host: [::1]:8000\r\n"), "clean"),
]
HEADERS = [
    case("obs-fold", get(b"/livez", b"X-A: a\r\n b"), "refused"),
    case("nul-header", get(b"/livez", b"X-A: a\x00b"), "refused"),
    case("cr-header", get(b"/livez", b"X-A: a\rb"), "refused"),
    case("lf-only", get().replace(b"\r\n", b"\n"), "refused"),
    case("empty-header-name", get(b"/livez", b": x"), "refused"),
    case("space-in-name", get(b"/livez", b"X A: x"), "refused"),
    case("utf8-header", get(b"/livez", "X-A: 你好".encode()), "clean"),
    case("header-70k", get(b"/livez", b"X-A: " + b"x" * 70_000), "refused"),
    case("header-60k", get(b"/livez", b"X-A: " + b"x" * 60_000), "clean"),
    case("headers-5000", get(b"/livez", *[b"X-%d: x" % number for number in range(5000)]), "refused"),
    case("headers-101", get(b"/livez", *[b"X-%d: x" % number for number in range(100)]), "refused"),
    case("headers-100", get(b"/livez", *[b"X-%d: x" % number for number in range(99)]), "clean"),
]
TARGETS = [
    case("abs-uri", get(b"http://gateway/livez"), "clean"),
    case("abs-uri-userinfo", get(b"http://user:pass@gateway/livez"), "clean"),
    case("abs-uri-without-path", get(b"http://gateway"), "clean"),
    case("http-0.9", b"GET /livez\r\n\r\n", "refused"),
    case("http-0.9-named", get(version=b"0.9"), "refused"),
    case("http-2.0", get(version=b"2.0"), "refused"),
    case("http-1.2", get(version=b"1.2"), "refused"),
    case("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "refused"),
    case("url-%00", get(b"/livez%00"), "clean"),
    case("url-dotdot", get(b"/v1/../livez"), "clean"),
    case("url-%2f", get(b"/v1%2fmodels"), "clean"),
    case("url-raw-utf8", get("/你".encode()), "clean"),
    case("url-too-long", get(b"/" + b"x" * 9000), "refused"),
    case("url-of-8000", get(b"/" + b"x" * 8000), "clean"),
    case("blank-lines-before", b"\r\n\r\n" + get(), "clean"),
]
METHODS = [
    case("expect-odd", post(b"Content-Length: " + LENGTH, b"Expect: the-unexpected"), "clean"),
    case("upgrade-h2c", get(b"/livez", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), "clean"),
    case(
        "upgrade-h2c-post",
        post(b"Content-Length: " + LENGTH, b"Connection: Upgrade", b"Upgrade: h2c"),
        "clean",
    ),
    case("upgrade-websocket", get(b"/livez", b"Connection: Upgrade", b"Upgrade: websocket"), "clean"),
    case("connect", b"CONNECT gateway:443 HTTP/1.1\r\n" + HOST + b"\r\n", "clean"),
    case("options-star", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", "clean"),
    case("bad-method", b"FOO /livez HTTP/1.1\r\n" + HOST + b"\r\n", "clean"),
    case("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "refused"),
    case(
        "trailer-authorization",
        chunked(WHOLE.replace(b"0\r\n\r\n", b"0\r\nAuthorization: Bearer x\r\n\r\n")),
        "clean",
    ),
    case(
        "trailers-without-end",
        chunked(WHOLE.replace(b"0\r\n\r\n", b"0\r\nX-A: " + b"x" * 200_000 + b"\r\n\r\n")),
        "refused",
    ),
]
ALL = [*LENGTHS, *CODINGS, *CHUNKS, *HOSTS, *HEADERS, *TARGETS, *METHODS]


@pytest.fixture(scope="module")
def one() -> Iterator[Stack]:
    """One gateway for all of them: none may leave it in a worse state."""
    with threaded("chatglm2") as running:
        yield running


async def sent(one: Stack, raw: bytes, slices: int) -> bytes:
    """All that comes back until the gateway closes."""
    host, port = one.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(20):
            for at in range(0, len(raw), slices):
                writer.write(raw[at : at + slices])
                await writer.drain()
                await asyncio.sleep(0)  # so that each goes out by itself
            return await reader.read()
    finally:
        writer.close()


class Answers:
    """The answers in a stream of bytes, each checked to be whole."""

    def __init__(self, raw: bytes) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.last_closes = False
        while raw:
            raw = self._take(raw)

    def _take(self, raw: bytes) -> bytes:
        head, end, rest = raw.partition(b"\r\n\r\n")
        assert end, f"a head was cut: {raw[:200]!r}"
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert status, f"not an answer: {raw[:200]!r}"
        lines = [line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:]]
        headers = dict(line for line in lines if len(line) == 2)
        if status[1] == b"100":
            return rest
        length = int(headers[b"content-length"])
        assert len(rest) >= length, "a body was cut"
        self.statuses.append(int(status[1]))
        self.bodies.append(rest[:length])
        self.last_closes = headers.get(b"connection") == b"close"
        return rest[length:]


BEHIND = get(b"/behind", b"Connection: close")
"""A request that ends its connection; only a gateway that read the case to its right end answers it."""


def check(raw: bytes, wanted: Class) -> None:
    answers = Answers(raw)
    assert 1 <= len(answers.statuses) <= 2, answers.statuses
    if wanted == "refused":
        assert len(answers.statuses) == 1
        assert 400 <= answers.statuses[0] < 600
        assert answers.statuses[0] != 500
        assert answers.last_closes
        assert set(json.loads(answers.bodies[0])["error"]) == {"message", "type", "param", "code"}
    elif len(answers.statuses) == 2:
        assert answers.statuses[1] == 404, "the second answer is to the second request"
        assert b"/v1" in answers.bodies[1]


@pytest.mark.parametrize(("raw", "wanted"), ALL)
async def test_a_message_in_one_piece_has_one_answer(one: Stack, raw: bytes, wanted: Class) -> None:
    check(await sent(one, raw + BEHIND, slices=1_000_000), wanted)


@pytest.mark.parametrize(("raw", "wanted"), ALL)
async def test_a_message_in_crumbs_has_one_answer(one: Stack, raw: bytes, wanted: Class) -> None:
    check(await sent(one, raw + BEHIND, slices=1 if len(raw) < 1000 else 997), wanted)


# --- sequences -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 100])
@pytest.mark.parametrize("slices", [7, 1_000_000])
async def test_pipelined_requests_are_answered_in_order_or_the_connection_ends_after_one(
    one: Stack, number: int, slices: int
) -> None:
    raw = b"".join(get(b"/v1/models/%d" % at) for at in range(number)) + BEHIND
    answers = Answers(await sent(one, raw, slices))
    assert 1 <= len(answers.statuses) <= number + 1
    assert answers.last_closes
    assert set(answers.statuses) == {404}


async def test_what_stands_behind_a_request_that_is_being_answered_is_never_run(one: Stack) -> None:
    """The second would be an answer of its own: its model is not there."""
    raw = post(b"Content-Length: " + LENGTH) + post(b"Content-Length: " + LENGTH)
    one.only.reset()
    answers = Answers(await sent(one, raw, 1_000_000))
    assert answers.statuses == [200]
    assert answers.last_closes
    assert len(one.only.requests) == 1


async def test_a_request_inside_a_body_is_a_body(one: Stack) -> None:
    raw = get(b"/livez", b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED + BEHIND
    answers = Answers(await sent(one, raw, 1_000_000))
    assert answers.statuses[0] == 200
    assert len(answers.statuses) <= 2
    assert all(b"smuggled" not in body for body in answers.bodies)


async def test_one_after_the_other_goes_on_in_the_same_connection(one: Stack) -> None:
    async with httpx.AsyncClient(base_url=one.url, trust_env=False) as http:
        ports = {
            (await http.get("/livez")).extensions["network_stream"].get_extra_info("client_addr")
            for _ in range(5)
        }
    assert len(ports) == 1


async def test_what_is_sent_before_an_answer_that_refuses_it_does_not_cost_the_answer(one: Stack) -> None:
    """The body is larger than all buffers on the way: closing at once would reset it and the answer."""
    raw = post(b"Content-Length: 50000000", body=b"x" * 50_000_000)
    answers = Answers(await sent(one, raw, 65_536))
    assert answers.statuses == [413]
    assert answers.last_closes


async def test_trailers_are_no_headers(one: Stack) -> None:
    """`expect` would be refused among the headers."""
    raw = chunked(WHOLE.replace(b"0\r\n\r\n", b"0\r\nExpect: odd\r\nX-Request-Id: mine\r\n\r\n")) + BEHIND
    answer = await sent(one, raw, 1_000_000)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"mine" not in answer


async def test_a_refusal_is_counted(one: Stack) -> None:
    def refused() -> float:
        text = one.run.gateway.metrics.render()[0].decode()
        found = re.search(r'gateway_client_refusals_total\{reason="bad_request"\} (\S+)', text)
        assert found
        return float(found[1])

    before = refused()
    await sent(one, post(b"Content-Length: +5"), 1_000_000)
    assert refused() == before + 1
