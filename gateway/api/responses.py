"""Sends responses as ASGI messages: complete ones, errors, and the head and end of event streams."""

from __future__ import annotations

import math
from collections.abc import Iterable

from starlette.types import Send

from gateway.errors import GatewayError, Unauthorized
from gateway.formats import openai
from gateway.formats.headers import Pairs

JSON: Pairs = [(b"content-type", b"application/json")]
EVENT_STREAM: Pairs = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def send_whole(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send a complete response; `content-length` is added."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: GatewayError, body: bytes, extra: Pairs) -> None:
    """Send an error response; `retry-after` and similar headers are added."""
    await send_whole(send, error.row.status, body, [*JSON, *extra, *error_headers(error)])


def error_headers(error: GatewayError) -> Pairs:
    """Return the headers that an error needs: `retry-after`, `x-should-retry`, `www-authenticate`."""
    headers: Pairs = []
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(error.retry_after * 1000)).encode()))
    if error.row.repeat is not None:
        headers.append((b"x-should-retry", b"true" if error.row.repeat else b"false"))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


async def start_stream(send: Send, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send the head of an event stream, with status 200."""
    await send({"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM, *headers]})


async def end_stream(send: Send, last: bytes) -> None:
    """Send the last bytes of an event stream and end the body."""
    await send({"type": "http.response.body", "body": last, "more_body": False})


def error_body(error: GatewayError) -> bytes:
    """Return the body of an error in OpenAI's format."""
    return openai.write_error(error)
