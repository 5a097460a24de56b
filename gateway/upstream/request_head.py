"""Requests as they stand on the wire: what all requests of a kind share is made once."""

from __future__ import annotations

import httpx

from gateway.upstream.dialer import Origin

Fields = list[tuple[bytes, bytes]]
"""Header fields as they stand on the wire."""


class RequestRoute:
    """Where a kind of request goes: URL, server and head, made once from a request built by httpx.

    `head` ends where the content length has to follow. Shared by all requests of that kind.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.url = request.url
        self.origin = origin_of(request.url)
        fields = [item for item in request.headers.raw if item[0].lower() != b"content-length"]
        self.head = head_of(request.method, self.url, fields) + b"content-length: "


def origin_of(url: httpx.URL) -> Origin:
    """The server that a URL leads to."""
    host = url.raw_host.decode("ascii")
    return Origin(url.scheme, host, url.port or (443 if url.scheme == "https" else 80))


def head_of(method: str, url: httpx.URL, fields: Fields) -> bytes:
    """The head of a request without the empty line that ends it.

    Raises `httpx.LocalProtocolError` where a field would break out of its line.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), url.raw_path)]
    lines += [b"%b: %b" % item for item in fields]
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise httpx.LocalProtocolError("A header field holds a line break.")
    return b"\r\n".join(lines) + b"\r\n"
