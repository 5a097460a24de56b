"""Checks of a request's head that the HTTP parser does not make itself.

The parser accepts some heads that RFC 9112 forbids: a missing or repeated Host, a transfer coding before
`chunked`, unknown HTTP versions. Behind another proxy, each of these can be used for request smuggling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.errors import BadRequest, GatewayError, UnsupportedTransferCoding

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields as pairs of a lower-case name and a value."""

WATCHED = frozenset({b"host", b"transfer-encoding"})
"""The headers that `check` looks at."""
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
_CODING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a transfer coding: a token of RFC 9110."""


def check(version: str, headers: Headers) -> None:
    """Raise `BadRequest` or `UnsupportedTransferCoding` for a head that is ambiguous.

    Only the headers in `WATCHED` are read; the caller may leave out all others.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    hosts = [value for name, value in headers if name == b"host"]
    if hosts or version == "1.1":  # HTTP/1.0 does not require Host
        _require_one_host(hosts)
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        _require_chunked(version, codings)


def parted(target: bytes) -> tuple[bytes | None, bytes]:
    """Split a request target into its authority and its path with query.

    The authority is None unless the target is in absolute form. Raises `BadRequest` if a target in absolute
    form has no valid authority.
    """
    if target[:1] == b"/" or b"://" not in target:
        return None, target
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not _HOST.fullmatch(found[1]):
        raise BadRequest("The request's target cannot be read.")
    rest = found[2]
    return found[1], rest if rest[:1] == b"/" else b"/" + rest


def addressed(headers: Headers, authority: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers with Host replaced by the authority of the target (RFC 9112, 3.2.2)."""
    return [(b"host", authority), *(field for field in headers if field[0] != b"host")]


def _require_one_host(values: list[bytes]) -> None:
    if len(values) != 1:
        raise BadRequest("A request must have exactly one Host header.")
    if not _HOST.fullmatch(values[0]):
        raise BadRequest("The Host header is not the name or address of a host.")


def _require_chunked(version: str, values: list[bytes]) -> None:
    if version == "1.0":
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding. Send a Content-Length.")
    if len(values) != 1 or values[0].lower() != b"chunked":
        raise _wrong_coding(b",".join(values))


def _wrong_coding(value: bytes) -> GatewayError:
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if all(_CODING.fullmatch(coding) for coding in codings) and set(codings) != {b"chunked"}:
        return UnsupportedTransferCoding("The only transfer coding that is read here is `chunked`.")
    return BadRequest("The Transfer-Encoding must be `chunked`, and stand once.")
