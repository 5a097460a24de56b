"""Responses to requests that are refused before they reach the application. The connection then closes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus

from gateway.errors import GatewayError
from gateway.formats import openai

_STANDING = (
    b"content-type: application/json\r\n"
    b"cache-control: no-store\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"connection: close\r\n"
)


def answer(
    error: GatewayError, headers: Iterable[tuple[bytes, bytes]] = (), lines: Iterable[bytes] = ()
) -> bytes:
    """Return the bytes of an HTTP/1.1 response with OpenAI's error envelope.

    `headers` (pairs) and `lines` (`name: value`) are added to the head, for example the date.
    """
    status = HTTPStatus(error.row.status)
    body = openai.write_error(error)
    said = [b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()), _STANDING]
    said += [b"%s: %s\r\n" % field for field in (*headers, *_advice(error))]
    said += [line + b"\r\n" for line in lines]
    return b"".join([*said, b"content-length: %d\r\n\r\n" % len(body), body])


def _advice(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """Return the header fields that tell the client when to retry, or not to retry."""
    fields: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        fields.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        fields.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after * 1000)))
    if error.row.repeat is not None:
        fields.append((b"x-should-retry", b"true" if error.row.repeat else b"false"))
    return fields
