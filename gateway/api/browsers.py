"""Protection against foreign web pages, and CORS: the `Host` names and origins that are served.

A web page that is open in a browser can send requests to a gateway on the same machine. Where no keys are
needed, only these rules refuse them: `Host` shows a page that resolves its own name to this address (DNS
rebinding), `Origin` shows a page of another origin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.body import require_json
from gateway.api.request_context import request_context
from gateway.config import Address, ServerSettings
from gateway.errors import HostNotAllowed, OriginNotAllowed, UnsupportedMediaType
from gateway.formats.headers import Lines, Pairs

Headers = Mapping[bytes, bytes]
"""A request's headers by lower-case name; the first value of a repeated header."""

ANY = "*"
MOST_HOSTS = 256
"""Values of `Host` whose check is remembered."""
MAX_AGE = 7200
"""Seconds for which a browser may cache the answer to a preflight (`access-control-max-age`)."""

# Names by which containers reach their host. They cannot be resolved to it by a public name server.
_THIS_MACHINE = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})
_PORT = re.compile(r":[0-9]*$")
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_ELSEWHERE = frozenset({b"cross-site", b"same-site"})

EXPOSED = (
    b"openai-processing-ms",
    b"openai-version",
    b"retry-after",
    b"retry-after-ms",
    b"www-authenticate",
    b"x-gateway-attempts",
    b"x-gateway-backend",
    b"x-gateway-ignored",
    b"x-gateway-queue-ms",
    b"x-gateway-usage",
    b"x-request-id",
    b"x-should-retry",
)
"""Response headers that scripts of allowed origins may read."""


class BrowserRules:
    """Which `Host` names and which origins one plane serves. Shared by its doors.

    Args:
        server: the settings of the section `[server]`; `reconfigure` replaces them.
        address: where the plane listens.
        pages: True if `server.cors_origins` applies to the plane.
    """

    def __init__(self, server: ServerSettings, address: Address, *, pages: bool = True) -> None:
        self._address = address
        self._pages = pages
        self.reconfigure(server)

    def reconfigure(self, server: ServerSettings) -> None:
        """Use other settings."""
        self._hosts = frozenset(server.hosts)
        self._known: set[bytes] = set()
        origins = server.cors_origins if self._pages else ()
        self._origins = frozenset(origin.encode() for origin in origins)
        self._everybody = ANY in origins
        self.on = bool(origins)

    # --- without keys ------------------------------------------------------------------------------

    def require_ours(self, method: str, headers: Headers) -> None:
        """Refuse requests that only a web page of another site sends. For planes without keys.

        Raises `HostNotAllowed` if the `Host` name is not one of this gateway (DNS rebinding), and
        `OriginNotAllowed` if the page's origin is neither the gateway's own nor an allowed one.
        """
        host = headers.get(b"host")
        if host is not None and host not in self._known:
            self.require_host(headers)
        origin = headers.get(b"origin")
        if origin is not None:
            self._require_origin(origin, headers)
        elif method != "GET" and headers.get(b"sec-fetch-site") in _ELSEWHERE:
            raise _foreign("another origin")

    def answers(self, scope: Scope) -> bool:
        """Return True if the `Host` of a request is a name of this gateway."""
        try:
            self.require_host(request_context(scope).headers)
        except HostNotAllowed:
            return False
        return True

    def require_host(self, headers: Headers) -> None:
        """Raise `HostNotAllowed` if `Host` is not a name of this gateway."""
        host = headers.get(b"host")
        if host is None or host in self._known:  # browsers always send Host
            return
        name = _PORT.sub("", host.decode("latin-1")).lower()
        if not self._answers_to(name.removesuffix(".")):
            raise HostNotAllowed(
                f"Without keys this gateway does not answer to the name {name!r}: any web page might use it."
                " Ask for localhost or 127.0.0.1, or add the name to server.hosts in config.toml."
            )
        if len(self._known) >= MOST_HOSTS:
            self._known.clear()
        self._known.add(host)

    def _answers_to(self, name: str) -> bool:
        address = self._address
        bare = name.removeprefix("[").removesuffix("]")
        if ANY in self._hosts or bare in self._hosts or address.path:
            return True
        ip = _ip(bare)
        if ip is not None:
            return ip.is_loopback or ip.is_unspecified or self._listens_at(ip)
        if name in _THIS_MACHINE or name.endswith(".localhost") or name == address.host.lower():
            return True
        # Beyond loopback, a name without a dot belongs to the local network, such as a Compose service.
        return not address.is_local and "." not in name

    def _listens_at(self, ip: IPv4Address | IPv6Address) -> bool:
        own = _ip(self._address.host)
        return own is not None and (own.is_unspecified or own == ip)

    def _require_origin(self, origin: bytes, headers: Headers) -> None:
        if self.allows(origin) and not self._everybody:
            return
        _, scheme, place = origin.lower().partition(b"://")
        if not scheme or place != headers.get(b"host", b"").lower():
            raise _foreign(repr(origin.decode("latin-1")[:256]))

    # --- CORS --------------------------------------------------------------------------------------

    def allows(self, origin: bytes) -> bool:
        """Return True if scripts of `origin` may read responses."""
        return self._everybody or origin.lower() in self._origins

    def lines(self, headers: Headers) -> Lines:
        """Return the CORS headers of a response, as `name: value` lines. Only while `on`."""
        if self._everybody:
            return [b"access-control-allow-origin: *", _EXPOSE]
        origin = headers.get(b"origin")
        if origin is None or not self.allows(origin):
            return [b"vary: Origin"]
        return [b"access-control-allow-origin: " + origin, _EXPOSE, b"vary: Origin"]

    def early_lines(self, origin: bytes | None) -> Lines:
        """Return the CORS headers of an error sent before the request's head was complete.

        `origin` is None if it has not been read yet. The error can then be read by a page only if exactly one
        origin is allowed.
        """
        if not self.on:
            return []
        if origin is None and len(self._origins) == 1:
            (origin,) = self._origins
        return self.lines({} if origin is None else {b"origin": origin})

    def preflight(self, method: str, headers: Headers) -> Pairs | None:
        """Return the headers of the answer to a CORS preflight; None if the request is not a preflight.

        Raises `OriginNotAllowed`.
        """
        wanted = b"access-control-request-headers"
        if not self.on or method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        origin = headers.get(b"origin", b"")
        if not self.allows(origin):
            raise _foreign(repr(origin.decode("latin-1")[:256]))
        answer: Pairs = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-max-age", b"%d" % MAX_AGE),
        ]
        if _NAMES.fullmatch(headers.get(wanted, b"")):
            answer.append((b"access-control-allow-headers", headers[wanted]))
        if headers.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer


_EXPOSE = b"access-control-expose-headers: " + b", ".join(EXPOSED)


def require_json_of_browsers(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` if a web page sends a body without the content type JSON in UTF-8.

    Browsers send a preflight before a request with that content type, but not before one with `text/plain`.
    """
    if b"origin" in headers or b"sec-fetch-site" in headers or b"sec-fetch-mode" in headers:
        if not headers.get(b"content-type"):
            raise UnsupportedMediaType("Send the body as `Content-Type: application/json`.")
        require_json(headers)


class LocalPage:
    """Wraps a page of the admin plane: on a loopback address, only loopback `Host` names are served."""

    def __init__(self, page: ASGIApp, rules: BrowserRules, address: Address) -> None:
        self._page = page
        self._rules = rules if address.is_local else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises `HostNotAllowed`."""
        if self._rules is not None:
            self._rules.require_host(request_context(scope).headers)
        await self._page(scope, receive, send)


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _foreign(origin: str) -> OriginNotAllowed:
    return OriginNotAllowed(
        f"Web pages of {origin} may not use this gateway. To let them, add the origin to server.cors_origins"
        " in config.toml."
    )
