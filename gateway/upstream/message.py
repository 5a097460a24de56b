"""httpx's requests and responses without what nobody asks for: headers and streams are made on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from gateway.upstream.dialer import Origin

Fields = list[tuple[bytes, bytes]]
"""Header fields as they stand on the wire."""


class Route:
    """Where a kind of request goes: method, URL and head, made once from a request built by httpx.

    `head` ends where the content length has to follow. Shared by all requests of that kind.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.method = request.method
        self.url = request.url
        self.origin = origin_of(request.url)
        self.fields = [item for item in request.headers.raw if item[0].lower() != b"content-length"]
        self.head = head_of(self.method, self.url, self.fields) + b"content-length: "


class LeanRequest(httpx.Request):
    """A request on a route. `headers` and `stream` are made when somebody looks, such as a mock."""

    def __init__(self, route: Route, body: bytes, extensions: dict[str, Any]) -> None:
        self.route = route
        self.method = route.method
        self.url = route.url
        self.extensions = extensions
        self.body = body
        self._content = body

    def __getattr__(self, name: str) -> Any:
        value: Any
        if name == "headers":
            length = (b"content-length", b"%d" % len(self._content))
            value = httpx.Headers([*self.route.fields, length])
        elif name == "stream":
            value = httpx.ByteStream(self._content)
        else:
            raise AttributeError(name)
        setattr(self, name, value)
        return value


class LeanResponse(httpx.Response):
    """A response of our own transport. `headers` are made when somebody looks."""

    def __init__(
        self, status: int, fields: Fields, stream: httpx.AsyncByteStream, extensions: Mapping[str, Any]
    ) -> None:
        self.status_code = status
        self.fields = fields
        self.stream = stream
        self.extensions = extensions  # type: ignore[assignment]  # httpx declares a dict but only reads it
        self.history = []
        self.next_request = None
        self.is_closed = False
        self.is_stream_consumed = False
        self.default_encoding = "utf-8"
        self._request = None
        self._num_bytes_downloaded = 0

    def __getattr__(self, name: str) -> Any:
        if name != "headers":
            raise AttributeError(name)
        self.headers = httpx.Headers(self.fields)
        return self.headers

    async def aclose(self) -> None:
        if not self.is_closed and isinstance(self.stream, httpx.AsyncByteStream):
            self.is_closed = True
            await self.stream.aclose()

    def field(self, name: bytes) -> str | None:
        """The value of the header `name` (in lower case), without making all headers."""
        for key, value in self.fields:
            if len(key) == len(name) and key.lower() == name:
                return value.decode("latin-1")
        return None


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
