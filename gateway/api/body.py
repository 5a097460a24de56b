"""Reads a request's body: counted while it comes, refused before it is read where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Receive

from gateway.errors import BodyTooLarge, ClientGone, UnsupportedMediaType

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first header of that name (lower case)."""
    return next((value for key, value in headers if key == name), None)


def require_json(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` for a body that says it is not JSON in UTF-8. Saying nothing is fine."""
    kind = (header(headers, b"content-type") or b"").decode("latin-1")
    media, *parameters = [piece.strip().lower() for piece in kind.split(";")]
    if media and media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMediaType("Send the body as `Content-Type: application/json`.")
    charsets = [value for value in parameters if value.startswith("charset=")]
    if any(value.removeprefix("charset=").strip("\"'") not in ("utf-8", "utf8") for value in charsets):
        raise UnsupportedMediaType("Send the body in UTF-8.")


def require_identity(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` for a compressed body."""
    encoding = header(headers, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaType("Compressed request bodies are not read. Send the body as it is.")


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """Read the whole body. Raises `BodyTooLarge` beyond `limit` bytes, `ClientGone` when it breaks off."""
    length = header(headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("The client left while it sent its request.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes. Shorten the messages.")
