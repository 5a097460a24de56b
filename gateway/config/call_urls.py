"""Calls: which URLs of a backend are called, worked out from its `url`, `path` and dialect.

People write a server's address as they know it: the bare host, OpenAI's base URL (`.../v1`), another version
of it (`.../api/paas/v4`), or the whole address of the endpoint. Each leads to the same calls. Dialects name
endpoints as the original server has them (`/v1/chat/completions`, `/`, `/chat`); `CallUrls.at` gives the path
that this backend has for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
"""The endpoint of servers that speak OpenAI's API."""
STREAMING = ("/stream", "/chat")
"""The endpoints of dialect `chatglm-stream`: the one asked for streams, the one asked for whole answers."""
_ENDPOINTS: dict[str, tuple[str, ...]] = {
    "chatglm": ("/",),
    "chatglm2": ("/",),
    "chatglm3-native": ("/",),
    "chatglm-cpp-native": ("/",),
    "chatglm-stream": STREAMING,
}

_VERSION = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?(?:/openai)?$")
"""The end of a base URL: `/v1`, `/api/paas/v4`, `/v1beta/openai`."""
_ENDPOINT = re.compile(
    r"(?:/chat/completions)+$"
    r"|(?<=/v\d)/(?:completions|models(?:/[^/]+)?|chat|embeddings|responses|messages|health)$",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"/(?:docs|redoc|openapi\.json|health|healthz|metrics|version)$", re.IGNORECASE)
"""What people leave at the end of a base URL: another endpoint, or a page beside the API."""
_DOUBLED = re.compile(r"(/v\d+)\1+$")


class UrlSource(Protocol):
    """What a backend's table says of its address."""

    @property
    def url(self) -> str:
        """Scheme, host, port, and a path where there is one."""

    @property
    def path(self) -> str | None:
        """The path of the POST behind the url, where it is given."""

    @property
    def dialect(self) -> str:
        """The name of the dialect."""


def endpoints_of(dialect: str) -> tuple[str, ...]:
    """List the endpoints that a dialect posts to, as the original server names them."""
    return _ENDPOINTS.get(dialect, (CHAT,))


def is_native(dialect: str) -> bool:
    """Whether the dialect's server has one endpoint, at `/`."""
    return endpoints_of(dialect) == ("/",)


def names_openai(path: str) -> bool:
    """Whether a URL's path is that of an OpenAI-like server: a version, or the endpoint for chats."""
    bare = _tidy(path).rstrip("/")
    return bool(_VERSION.search(bare)) or bare.endswith("/chat/completions")


@dataclass(frozen=True, slots=True)
class CallUrls:
    """The paths of one backend. `origin` is scheme, host and port; `root` the path its server lies under.

    `api` stands in the place of `/v1`; `exact` gives the path of endpoints that are not under either.
    """

    origin: str
    root: str
    api: str
    exact: tuple[tuple[str, str], ...] = ()

    @classmethod
    def bare(cls, origin: str) -> CallUrls:
        """Give the calls of a server with the original paths, at `http://host:port`."""
        return cls(origin, "", "/v1")

    def at(self, endpoint: str) -> str:
        """Give the path of an endpoint that the dialect names as the original server has it."""
        for name, path in self.exact:
            if name == endpoint:
                return path
        if endpoint.startswith("/v1/"):
            return self.api + endpoint.removeprefix("/v1")
        return self.root + endpoint

    def url(self, endpoint: str) -> str:
        """Give the whole URL of an endpoint."""
        return self.origin + self.at(endpoint)

    def probe(self, endpoint: str) -> str:
        """Give the path of a GET that the dialect's servers answer; `path` of the table is not for it."""
        return (
            self.api + endpoint.removeprefix("/v1") if endpoint.startswith("/v1/") else self.root + endpoint
        )


def calls_of(backend: UrlSource) -> CallUrls:
    """Work out what is called for a backend's table."""
    parts = urlsplit(backend.url)
    origin, path = f"{parts.scheme}://{parts.netloc}", _tidy(parts.path)
    if is_native(backend.dialect):
        return _native(origin, path, backend.path)
    if backend.dialect == "chatglm-stream":
        return _streaming(origin, path.rstrip("/"), backend.path)
    return _openai(origin, path.rstrip("/"), backend.path)


def _tidy(path: str) -> str:
    return re.sub("/{2,}", "/", path)


def _native(origin: str, written: str, path: str | None) -> CallUrls:
    """The url is what is posted to, with the slash at its end or without, as it is written."""
    post = (written.rstrip("/") + path) if path else (written or "/")
    root = post.partition("?")[0].rpartition("/")[0]
    return CallUrls(origin, root, f"{root}/v1", (("/", post),))


def _streaming(origin: str, written: str, path: str | None) -> CallUrls:
    base = written + (path or "")
    for endpoint in STREAMING:
        base = base.removesuffix(endpoint)
    return CallUrls(origin, base, f"{base}/v1")


def _openai(origin: str, written: str, path: str | None) -> CallUrls:
    exact: tuple[tuple[str, str], ...] = ()
    if path:
        exact = ((CHAT, written + path),)
        written += path.partition("?")[0] if path.partition("?")[0].endswith("/chat/completions") else ""
    base = _ENDPOINT.sub("", _BESIDE.sub("", written))
    base = _DOUBLED.sub(r"\1", re.sub(r"/V(?=\d+(?:/|$))", "/v", base))
    named = bool(_ENDPOINT.search(written)) or bool(_VERSION.search(base))
    api = base if named else f"{base}/v1"
    return CallUrls(origin, _VERSION.sub("", api), api, exact)
