"""What all requests of a kind share on the wire."""

from __future__ import annotations

import httpx
import pytest

from gateway.upstream.dialer import Origin
from gateway.upstream.request_head import RequestRoute, head_of, origin_of


def built() -> httpx.Request:
    client = httpx.AsyncClient(base_url="http://gpu-0:8000/api", headers={"authorization": "Bearer k"})
    headers = {"content-type": "application/json"}
    return client.build_request("POST", "/v1/chat", content=b"{}", headers=headers)


def test_a_route_has_the_head_up_to_the_length() -> None:
    route = RequestRoute(built())
    assert route.origin == Origin("http", "gpu-0", 8000)
    assert route.url == "http://gpu-0:8000/api/v1/chat"
    assert route.head.startswith(b"POST /api/v1/chat HTTP/1.1\r\nHost: gpu-0:8000\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in route.head
    assert route.head.lower().count(b"content-length") == 1
    assert route.head.endswith(b"\r\ncontent-length: ")


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
