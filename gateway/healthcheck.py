"""Asks a running gateway for its health: the probe inside containers, so it must start fast.

Only the standard library is used, and no proxy: `http.client` knows none.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

_AGAIN = 0.3
"""Seconds between two probes while one waits."""
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See `HTTPConnection`."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def url_of(listen: str) -> str:
    """Give the URL at which a plane with this `listen` value is reached from the same machine."""
    if listen.startswith("unix:"):
        return listen
    host, _, port = listen.rpartition(":")
    return f"http://{_UNSPECIFIED.get(host, host)}:{port}"


def probe(url: str, path: str, timeout: float) -> tuple[bool, str]:
    """GET `path` at `url` (http, https or unix:/socket); whether it answered 200, and one line that says so.

    `timeout` is in seconds, for connecting and for the answer each. Never raises for an unhealthy gateway.
    """
    place = url.rstrip("/") + (" " if url.startswith("unix:") else "") + path
    try:
        connection = _connection(url, timeout)
    except ValueError as error:
        return False, f"{url}: {error}"
    try:
        connection.request("GET", _prefix(url) + path, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"{place}: no answer: {_reason(error)}"
    finally:
        connection.close()
    return status == http.HTTPStatus.OK, f"{place}: {status}"


def wait_well(
    url: str,
    path: str,
    timeout: float,
    wait: float,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> tuple[bool, str]:
    """Probe again for up to `wait` seconds until it is well twice in a row; as `probe` where `wait` is 0.

    Twice, as a gateway that has just begun has not looked at its backends yet.
    """
    until = clock() + wait
    well, line = probe(url, path, timeout)
    before = not wait
    while not (well and before) and clock() < until:
        before = well
        pause(_AGAIN)
        well, line = probe(url, path, timeout)
    return well, line


def fetch(url: str, path: str, timeout: float) -> str | None:
    """GET `path` and give the text of a 200; None for any other end. As for `probe`."""
    try:
        connection = _connection(url, timeout)
    except ValueError:
        return None
    try:
        connection.request("GET", _prefix(url) + path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        return None
    finally:
        connection.close()


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    if url.startswith("unix:"):
        return _SocketConnection(url.removeprefix("unix:"), timeout)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("is no URL; write http://HOST:PORT or unix:/PATH")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=timeout)


def _prefix(url: str) -> str:
    return "" if url.startswith("unix:") else urlsplit(url).path.rstrip("/")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
