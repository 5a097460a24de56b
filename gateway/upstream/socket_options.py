"""Options of TCP sockets. Each is set where the system has it, and silently not elsewhere.

A peer that vanishes (its machine lost power, its network is gone) sends no end of the connection. Two options
find it within `DEAD_AFTER` seconds: the user time-out while bytes of ours are not acknowledged, keep-alive
probes while nothing is under way, as in a long generation. A server that is merely busy is not mistaken for
it: its system acknowledges bytes and answers probes.

One case needs care: with the user time-out set, Linux also drops a peer that acknowledges but whose window
stays closed, as that of a busy server is which does not read a large body. See `allow_closed_window`.
"""

from __future__ import annotations

import contextlib
import socket
import sys

DEAD_AFTER = 30
"""Seconds after which a peer that acknowledges nothing is given up."""
_IDLE, _INTERVAL, _COUNT = 10, 5, 4
"""The first keep-alive probe after so many seconds, the next ones at this interval, and so many in all."""
FIRST_READS = 8
"""How many reads of an incomplete answer are acknowledged at once: the head, the first events of a stream."""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
# macOS has other names for the first probe and for the user time-out; Windows has no such time-out.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
_RXT_CONNDROPTIME = 0x80 if sys.platform == "darwin" else None
_KEEP_IDLE: int | None = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
_TCP = (socket.AF_INET, socket.AF_INET6)


def tune(sock: socket.socket) -> None:
    """Set the options of a TCP socket that is about to connect."""
    _set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    watch(sock, DEAD_AFTER)


def watch(sock: socket.socket, dead_after: int) -> None:
    """Have a vanished peer of this TCP socket, or of those it accepts on Linux, found after so many seconds.

    Without a user time-out (as on Windows) that is `DEAD_AFTER`, and only while nothing is under way.
    """
    _set(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set(sock, socket.IPPROTO_TCP, _KEEP_IDLE, _IDLE)
    _set(sock, socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), _INTERVAL)
    _set(sock, socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), _COUNT)
    _set(sock, socket.IPPROTO_TCP, _USER_TIMEOUT, dead_after * 1000)
    _set(sock, socket.IPPROTO_TCP, _RXT_CONNDROPTIME, dead_after)


def allow_closed_window(sock: socket.socket, allowed: bool) -> None:
    """Let a peer whose window is closed be waited for, while a large body goes out, or no longer.

    Meanwhile only keep-alive probes, which begin when all was acknowledged, tell that a peer has vanished.
    """
    _set(sock, socket.IPPROTO_TCP, _USER_TIMEOUT, 0 if allowed else DEAD_AFTER * 1000)


def quick_reads(sock: socket.socket | None) -> int:
    """How many reads of an incomplete answer on this socket are to be acknowledged at once."""
    return FIRST_READS if sock is not None and _QUICKACK is not None and sock.family in _TCP else 0


def acknowledge(sock: socket.socket) -> None:
    """Acknowledge now what has come.

    A server that writes an answer in two pieces, with Nagle's algorithm in force, sends the second when the
    first was acknowledged, which a system left to itself delays by 40 ms.
    """
    _set(sock, socket.IPPROTO_TCP, _QUICKACK, 1)


def _set(sock: socket.socket, level: int, option: int | None, value: int) -> None:
    if option is not None:
        with contextlib.suppress(OSError):  # known and not taken, or closed already
            sock.setsockopt(level, option, value)
