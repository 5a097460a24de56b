"""The client connections of one plane: limits on their number, and a periodic check of their time limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from uvicorn.server import ServerState

from gateway.config import ServerSettings
from gateway.errors import GatewayError, OutOfDescriptors, TooManyConnections
from gateway.formats.headers import Lines
from gateway.write_batcher import WriteBatcher

SLOWEST_SWEEP = 1.0
"""The longest interval between two sweeps, in seconds. Short time limits make the interval shorter."""
RETRY_AFTER = 1.0
"""The Retry-After of a refused connection, in seconds. It is short because connections end often."""

MOST_TURNED_AWAY = 256
"""The most connections that are sent a refusal at the same time. Others are aborted without a response."""


def no_lines(_: bytes | None) -> Lines:
    """Return no CORS header lines: the default for a plane without CORS."""
    return []


class AdmittedConnection(Protocol):
    """A connection whose time limits the sweep checks."""

    def check(self, now: float) -> None:
        """Enforce the time limits that have passed at `now`, in seconds of the event loop's clock."""


class ConnectionAdmission(ServerState):
    """uvicorn's server state of one plane, extended by the limits of `[server]` and their bookkeeping.

    There is one per plane; all connections of the plane share it. Time limits need no timer per request: a
    connection stores its deadline, and the sweep compares it with the clock. A limit is therefore enforced
    up to one sweep late: a quarter of the shortest limit, and at most one second.

    Args:
        limits: the `[server]` table of the configuration.
        refused: called with the reason of each refusal, a member of `REFUSALS` in the metric families.
        cors: returns the header lines that let a web page read a refusal; its argument is the Origin of the
            request, or None if the Origin is not known.
    """

    def __init__(
        self,
        limits: ServerSettings,
        refused: Callable[[str], None],
        cors: Callable[[bytes | None], Lines] = no_lines,
    ) -> None:
        self.standing = b""
        super().__init__()
        self.write_batcher = WriteBatcher()
        self.refused = refused
        self.cors = cors
        self._guests: dict[AdmittedConnection, str | None] = {}
        self._turned_away: set[AdmittedConnection] = set()
        self._peers: Counter[str] = Counter()
        self._next = 0.0
        self._room = math.inf
        self._most_turned_away = MOST_TURNED_AWAY
        self.reconfigure(limits)

    def reconfigure(self, limits: ServerSettings) -> None:
        """Apply new limits. Deadlines that are already set do not change, and connections stay open."""
        self.limits = limits
        shortest = min(
            limits.header_timeout,
            limits.body_timeout,
            limits.write_timeout,
            limits.body_total,
            limits.keepalive,
        )
        self._period = min(SLOWEST_SWEEP, shortest / 4)

    def confine(self, room: float, turned_away: int = MOST_TURNED_AWAY) -> None:
        """Limit the number of served connections to `room`, because there are no file descriptors for more.

        `turned_away`: the most connections that are sent a refusal at the same time.
        """
        self._room = room
        self._most_turned_away = turned_away

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response. uvicorn sets them once per second, because they contain the date.

        `standing` contains the same headers as bytes.
        """
        return self._default_headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._default_headers = headers
        self.standing = b"".join([b"%b: %b\r\n" % header for header in headers])

    def enter(self, guest: AdmittedConnection, peer: str | None) -> GatewayError | None:
        """Register a connection. Return the error to refuse it with if a limit is exceeded, otherwise None.

        `peer` is the client's address, None on Unix sockets. Every registered connection must call `leave`
        when it ends, including a refused one.
        """
        error = self._objection(peer)
        if error is not None:
            self._turned_away.add(guest)
            return error
        self._guests[guest] = peer
        if peer is not None:
            self._peers[peer] += 1
        return None

    def _objection(self, peer: str | None) -> GatewayError | None:
        if 0 < self.limits.max_connections <= len(self._guests):
            return TooManyConnections("There are too many connections. Try again.", retry_after=RETRY_AFTER)
        if len(self._guests) >= self._room:
            return OutOfDescriptors(
                "The gateway has no file descriptor left for this connection. Try again.",
                retry_after=RETRY_AFTER,
            )
        if peer is not None and 0 < self.limits.max_connections_per_peer <= self._peers[peer]:
            return TooManyConnections(
                "There are too many connections from your address. Use fewer, or close idle ones.",
                retry_after=RETRY_AFTER,
            )
        return None

    @property
    def crowded(self) -> bool:
        """Return True if too many refused connections are open to send a refusal to another one."""
        return len(self._turned_away) > self._most_turned_away

    def leave(self, guest: AdmittedConnection) -> None:
        """Unregister a connection that has ended."""
        self._turned_away.discard(guest)
        peer = self._guests.pop(guest, None)
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def sweep(self, now: float) -> None:
        """Check the time limits of every connection, if the sweep interval has passed."""
        if now < self._next:
            return
        self._next = now + self._period
        for guest in (*self._guests, *self._turned_away):
            guest.check(now)
