"""Reads request bodies within their size limit; refuses them before reading where that is possible."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Message, Receive

from gateway.api.client_guard import ClientChannel
from gateway.errors import BodyTooLarge, ClientGone, UnsupportedMediaType

Headers = Mapping[bytes, bytes]
"""A request's headers by lower-case name; the first value of a repeated header."""
_USUAL = frozenset({None, b"", b"application/json", b"application/json; charset=utf-8"})


FIRST = 65_536
"""Bytes of a body without `content-length` that are read before more memory is requested."""


async def _at_once(_: int) -> None:
    """Grant any amount of memory."""


def require_json(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` if `content-type` is present and is not JSON in UTF-8."""
    said = headers.get(b"content-type")
    if said not in _USUAL:
        _require_json((said or b"").decode("latin-1"))


def _require_json(kind: str) -> None:
    media, *parameters = [piece.strip().lower() for piece in kind.split(";")]
    if media and media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMediaType("Send the body as `Content-Type: application/json`.")
    charsets = [value for value in parameters if value.startswith("charset=")]
    if any(value.removeprefix("charset=").strip("\"'") not in ("utf-8", "utf8") for value in charsets):
        raise UnsupportedMediaType("Send the body in UTF-8.")


def require_identity(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` for a compressed body."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaType("Compressed request bodies are not read. Send the body as it is.")


def whole_body(headers: Headers, client: ClientChannel, limit: int) -> bytes | None:
    """The whole body, if all of it has come already; None where it must be read. Raises as `read_body`."""
    if b"content-encoding" in headers:
        require_identity(headers)
    body = client.whole_body()
    if body is not None and len(body) > limit:
        raise _too_large(limit)
    return body


async def read_body(
    headers: Headers, receive: Receive, limit: int, take: Callable[[int], Awaitable[None]] = _at_once
) -> bytes:
    """Read the whole body. `take` is awaited before so many bytes of it are held.

    Raises `BodyTooLarge` beyond `limit` bytes, `UnsupportedMediaType`, `ClientGone` when it breaks off.
    """
    require_identity(headers)
    length = headers.get(b"content-length")
    declared = int(length) if length is not None and length.isdigit() else 0
    if declared > limit:
        raise _too_large(limit)
    room = max(declared, FIRST)
    await take(room)
    message = await receive()
    body = io.BytesIO()
    # It grows in its place. To join megabytes at the end would copy them in one step, and wait for the lock.
    size = body.write(_piece(message))
    while message.get("more_body", False) and size <= limit:
        if size + FIRST > room and not declared:
            room = min(2 * room, limit + FIRST)
            await take(room)
        message = await receive()
        size += body.write(_piece(message))
    if size > limit:
        raise _too_large(limit)
    return body.getvalue()


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone("The client left while it sent its request.")
    piece: bytes = message.get("body", b"")
    return piece


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than the {limit} bytes that are taken here. Send fewer or shorter messages, or"
        " smaller pictures and files."
    )
