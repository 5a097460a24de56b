"""Asks a running gateway for its health: the probe inside containers, so it must start fast.

Only the standard library is used, and no proxy: `http.client` knows none.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

_AGAIN = 0.3
"""Seconds between two probes while one waits."""
MOST_TEXT = 4_194_304
"""Bytes of an answer that is read."""
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound

# A password may hold any character, also one that ends the host of a URL: the last @ counts. The full-width
# and the escaped one are mistakes for it.
_USER = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|//)?.*(?:[@＠]|%40)", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)


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


def without_secrets(url: str) -> str:
    """Give a URL, also one that cannot be read, as it may be shown: without user, password and query."""
    if url.startswith("unix:"):
        return url
    return _QUERY.sub("?***", _USER.sub(r"\1***@", url))


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
    told = without_secrets(url)
    place = told.rstrip("/") + (" " if url.startswith("unix:") else "") + path
    try:
        connection = _connection(url, timeout)
    except ValueError as error:
        return False, f"{told}: {error}"
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
    status, text = got(url, path, timeout)
    return text if status == http.HTTPStatus.OK else None


def got(url: str, path: str, timeout: float) -> tuple[int, str]:
    """GET `path`; its status and the text of a 200. (0, ""): no answer, or none of text within `MOST_TEXT`.

    `timeout` is for connecting, and for the whole answer, also where it comes in small pieces.
    """
    try:
        connection = _connection(url, timeout)
    except ValueError:
        return 0, ""
    try:
        connection.connect()
        with _cut_after(timeout, connection.sock) as late:
            connection.request("GET", _prefix(url) + path, headers={"Connection": "close"})
            with connection.getresponse() as answer:
                ok = answer.status == http.HTTPStatus.OK
                text = answer.read(MOST_TEXT + 1).decode() if ok else ""
        return (0, "") if late() or len(text) > MOST_TEXT else (answer.status, text)
    except (OSError, http.client.HTTPException, ValueError):
        return 0, ""
    finally:
        connection.close()


@contextlib.contextmanager
def _cut_after(seconds: float, sock: socket.socket) -> Iterator[Callable[[], bool]]:
    """End a connection that still goes on after so many seconds; gives what tells whether that was done."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield cut.is_set
    finally:
        timer.cancel()


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
