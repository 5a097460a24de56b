"""The sockets that clients connect to: bound here, or handed over by systemd.

A restart without a refused connection needs a socket that outlives the process, or a second one for the same
address. systemd keeps the first kind and hands it over (`LISTEN_FDS`; sd_listen_fds(3)). `server.reuse_port`
allows the second: the next process listens beside the old one, which then stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Address, Config, ServerSettings
from gateway.upstream.socket_options import DEAD_AFTER, watch

BACKLOG = 2048
RECEIVE_BUFFER = 65_536
"""Bytes of a body that the system may hold while the gateway does not read it (Linux doubles it)."""
_FIRST = 3
"""The number of the first descriptor that systemd hands over."""
_NAMES = ("data", "admin")
_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


@dataclass(frozen=True, slots=True)
class Listeners:
    """The sockets of both planes. `outlive`: somebody else listens when this process does not any more.

    `handed_over`: that is systemd, which keeps the sockets.
    """

    data: socket.socket
    admin: socket.socket
    outlive: bool
    handed_over: bool


@contextlib.contextmanager
def listening(
    server: ServerSettings, admin: Address, environ: MutableMapping[str, str] = os.environ
) -> Iterator[Listeners]:
    """Listen for the length of a `with`. Raises `OSError` when an address cannot be bound."""
    with contextlib.ExitStack() as stack:
        given = {name: stack.enter_context(sock) for name, sock in handed_over(environ).items()}
        found = []
        for name, address in zip(_NAMES, (server.address, admin), strict=True):
            sock = given.get(name) or stack.enter_context(_bound(address, server))
            # What is accepted inherits it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, server.send_buffer)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                watch_clients(sock, server)
            sock.setblocking(False)
            found.append(sock)
        yield Listeners(
            found[0], found[1], outlive="data" in given or server.reuse_port, handed_over=bool(given)
        )


def watch_clients(listener: socket.socket, server: ServerSettings) -> None:
    """Have clients that vanish without a word found, so that their requests end; for those accepted from now.

    A client that is there and takes nothing of its answer is let be for `server.write_timeout`, which the
    system would not know of: it takes a closed window for a peer that is gone.
    """
    if listener.family != socket.AF_UNIX:
        watch(listener, max(DEAD_AFTER, math.ceil(server.write_timeout) + 1))


def handed_over(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """The sockets that systemd has handed over, by plane; a process that this one starts gets none of them.

    A socket unit names its plane with `FileDescriptorName=data` or `admin`; of others the first is the data
    plane's, the second the admin plane's.
    """
    meant, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, socket.socket] = {}
    for place in range(int(count)):
        sock = _given(_FIRST + place)
        name = names[place] if place < len(names) else ""
        if name not in _NAMES:
            name = next((one for one in _NAMES if one not in found), "")
        if not name or name in found:
            for one in (sock, *found.values()):
                one.close()
            raise OSError(errno.EINVAL, "systemd handed over more sockets than one for each plane")
        found[name] = sock
    return found


def _given(descriptor: int) -> socket.socket:
    """One of the sockets. Raises `OSError` for what is none that takes connections."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise OSError(error.errno, "systemd handed over what is no socket") from None
    sock.set_inheritable(False)
    if sock.type != socket.SOCK_STREAM or sock.family not in _FAMILIES:
        sock.close()
        raise OSError(
            errno.EINVAL, "systemd handed over a socket of another kind: use ListenStream= and Accept=no"
        )
    return sock


def require_keys(data: socket.socket, settings: Config) -> None:
    """Raise `OSError` where others than this machine reach the data plane, and nobody needs a key.

    The configuration is checked for that; but where systemd listens is not for it to say.
    """
    if settings.auth_required or settings.server.auth == "none" or data.family == socket.AF_UNIX:
        return
    host, port = data.getsockname()[:2]
    if not Address(host=host, port=port).is_local:
        raise OSError(
            errno.EACCES,
            f"systemd listens at {Address(host=host, port=port)}, which can be reached from outside, and"
            ' there are no keys; add a [[keys]] table, or set auth = "none" in [server] to let everybody in',
        )


@contextlib.contextmanager
def _bound(address: Address, server: ServerSettings) -> Iterator[socket.socket]:
    if address.path:
        with _unix_socket(Path(address.path)) as bound:
            yield bound
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, address.port))
        bound.listen(BACKLOG)
        yield bound


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """A Unix socket, whose file is removed at the end if it is still this one's.

    Raises `OSError` where another process serves there.
    """
    if path.is_socket():
        _require_left_behind(path)
        path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        mine = _identity(path)
        try:
            bound.listen(BACKLOG)
            yield bound
        finally:
            if _identity(path) == mine:
                path.unlink(missing_ok=True)


def _require_left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as call:
        call.setblocking(False)
        error = call.connect_ex(str(path))
    if error not in {errno.ECONNREFUSED, errno.ENOENT}:  # EAGAIN: its backlog is full
        raise OSError(errno.EADDRINUSE, "another process serves on this Unix socket")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


async def accept_waiting(sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> int:
    """Take the connections that wait on a listening socket, as closing resets them; give their number."""
    loop, count = asyncio.get_running_loop(), 0
    while count < BACKLOG:
        try:
            connection, _ = sock.accept()
        except OSError:  # nobody waits any more, or no descriptor is left
            break
        connection.setblocking(False)
        await loop.connect_accepted_socket(protocol, connection)
        count += 1
    return count
