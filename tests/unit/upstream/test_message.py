"""Lean requests and responses are what httpx's are, to whoever looks."""

from __future__ import annotations

import httpx
import pytest

from gateway.upstream.dialer import Origin
from gateway.upstream.message import LeanRequest, LeanResponse, Route, head_of, origin_of

BODY = b'{"prompt":"hello"}'


def built() -> httpx.Request:
    client = httpx.AsyncClient(base_url="http://gpu-0:8000/api", headers={"authorization": "Bearer k"})
    return client.build_request(
        "POST", "/v1/chat", content=BODY, headers={"content-type": "application/json"}
    )


async def test_a_lean_request_looks_like_the_one_httpx_builds() -> None:
    fat = built()
    lean = LeanRequest(Route(fat), BODY, {})
    assert isinstance(lean, httpx.Request)
    assert (lean.method, lean.url, lean.content) == (fat.method, fat.url, fat.content)
    assert lean.headers == fat.headers
    assert lean.read() == await lean.aread() == BODY
    assert b"".join([piece async for piece in lean.stream]) == BODY  # type: ignore[union-attr]  # either kind
    assert not hasattr(lean, "else")


def test_a_route_has_the_head_up_to_the_length() -> None:
    route = Route(built())
    assert route.origin == Origin("http", "gpu-0", 8000)
    assert route.head.startswith(b"POST /api/v1/chat HTTP/1.1\r\nHost: gpu-0:8000\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in route.head
    assert route.head.lower().count(b"content-length") == 1
    assert route.head.endswith(b"\r\ncontent-length: ")


async def test_a_lean_response_is_read_like_any_other() -> None:
    response = LeanResponse(
        200,
        [(b"Content-Type", b"text/plain"), (b"X", b"1")],
        httpx.ByteStream(b"hi"),
        {"http_version": b"HTTP/1.0"},
    )
    assert isinstance(response, httpx.Response)
    assert response.field(b"content-type") == "text/plain"
    assert response.field(b"missing") is None
    assert response.headers["x"] == "1"
    assert (response.http_version, response.is_success) == ("HTTP/1.0", True)
    assert await response.aread() == b"hi"
    assert (response.text, response.is_closed) == ("hi", True)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        pytest.param("http://h", Origin("http", "h", 80), id="http"),
        pytest.param("https://h/x", Origin("https", "h", 443), id="https"),
        pytest.param("http://[::1]:81", Origin("http", "::1", 81), id="ipv6"),
        pytest.param("http://例子.test", Origin("http", "xn--fsqu00a.test", 80), id="idna"),
    ],
)
def test_the_origin_of_a_url(url: str, origin: Origin) -> None:
    assert origin_of(httpx.URL(url)) == origin


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\0b"])
def test_a_header_cannot_break_out_of_its_line(value: bytes) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        head_of("GET", httpx.URL("http://h/"), [(b"x", value)])
