from __future__ import annotations

import pytest

from gateway.errors import BadRequest, GatewayError, UnsupportedTransferCoding
from gateway.http1.head import Headers, check

HOST = (b"host", b"gateway:8000")


def coded(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [HOST, *((b"transfer-encoding", value) for value in values)]


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        pytest.param("1.1", [HOST], id="today's"),
        pytest.param("1.0", [HOST], id="old"),
        pytest.param("1.0", [], id="old-without-host"),
        pytest.param("1.1", [(b"accept", b"*/*"), HOST, (b"x-host", b"other")], id="among-others"),
        pytest.param("1.1", [(b"host", b"a.b-c_d.example")], id="name"),
        pytest.param("1.1", [(b"host", b"127.0.0.1")], id="ipv4"),
        pytest.param("1.1", [(b"host", b"gateway:")], id="empty-port"),
        pytest.param("1.1", [(b"host", b"[::1]")], id="ipv6"),
        pytest.param("1.1", [(b"host", b"[::ffff:1.2.3.4]:80")], id="ipv6-with-port"),
        pytest.param("1.1", coded(b"chunked"), id="chunked"),
        pytest.param("1.1", coded(b"CHUNKED"), id="chunked-in-capitals"),
    ],
)
def test_a_plain_head_is_taken(version: str, headers: Headers) -> None:
    check(version, headers)


@pytest.mark.parametrize(
    ("version", "headers", "kind", "words"),
    [
        pytest.param("0.9", [HOST], BadRequest, "HTTP/1.1", id="before-headers"),
        pytest.param("2.0", [HOST], BadRequest, "HTTP/1.1", id="another-wire"),
        pytest.param("1.1", [], BadRequest, "exactly one Host", id="no-host"),
        pytest.param("1.0", [HOST] * 2, BadRequest, "exactly one Host", id="two-hosts-in-the-old-version"),
        pytest.param("1.1", [HOST, HOST], BadRequest, "exactly one Host", id="host-twice"),
        pytest.param("1.1", [(b"host", b"")], BadRequest, "Host header", id="empty-host"),
        pytest.param("1.1", [(b"host", b"a/healthz?x=")], BadRequest, "Host header", id="host-with-path"),
        pytest.param("1.1", [(b"host", b"user@a")], BadRequest, "Host header", id="host-with-user"),
        pytest.param("1.1", [(b"host", b"a:80:80")], BadRequest, "Host header", id="two-ports"),
        pytest.param("1.1", [(b"host", b"a:port")], BadRequest, "Host header", id="port-of-letters"),
        pytest.param("1.1", [(b"host", b"[::1")], BadRequest, "Host header", id="open-bracket"),
        pytest.param("1.1", [(b"host", b"a\nb")], BadRequest, "Host header", id="newline"),
        pytest.param("1.1", [(b"host", "你".encode())], BadRequest, "Host header", id="no-ascii"),
        pytest.param("1.0", coded(b"chunked"), BadRequest, "HTTP/1.0", id="coding-in-the-old-version"),
        pytest.param("1.1", coded(b"chunked", b"chunked"), BadRequest, "stand once", id="chunked-twice"),
        pytest.param("1.1", coded(b"chunked, chunked"), BadRequest, "stand once", id="chunked-list"),
        pytest.param("1.1", coded(b""), BadRequest, "must be", id="empty-coding"),
        pytest.param("1.1", coded(b"\x0bchunked"), BadRequest, "must be", id="odd-blank"),
        pytest.param("1.1", coded(b"gzip, chunked"), UnsupportedTransferCoding, "only", id="gzip-before"),
        pytest.param("1.1", coded(b"gzip", b"chunked"), UnsupportedTransferCoding, "only", id="two-lines"),
        pytest.param("1.1", coded(b"identity"), UnsupportedTransferCoding, "only", id="identity"),
        pytest.param("1.1", coded(b"xchunked"), UnsupportedTransferCoding, "only", id="unknown"),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(
    version: str, headers: Headers, kind: type[GatewayError], words: str
) -> None:
    with pytest.raises(GatewayError, match=words) as caught:
        check(version, headers)
    assert type(caught.value) is kind
