"""Who is connected to a plane: caps on how many, and one sweep that ends whoever takes too long."""

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
"""Seconds between two sweeps, where no limit is shorter than a few of them."""
RETRY_AFTER = 1.0
"""Seconds after which a client above a cap may try again: connections come and go quickly."""

MOST_TURNED_AWAY = 256
"""Connections that are refused with an answer at a time; beyond them they are cut off at once."""


def no_lines(_: bytes | None) -> Lines:
    """What a plane says that pages do not use."""
    return []


class AdmittedConnection(Protocol):
    """Somebody with time limits."""

    def check(self, now: float) -> None:
        """End what has taken too long by `now`, in seconds of the event loop's clock."""


class ConnectionAdmission(ServerState):
    """uvicorn's shared state of one plane, with the limits of `[server]` and what they need to be kept.

    Time limits cost nothing per request: a connection writes down a deadline, and the sweep compares. So a
    limit is kept to within a sweep, a quarter of the shortest limit and a second at most. `refused` is told
    the reason of each refusal, a word of `REFUSALS` in the families of metrics. `cors` gives the header lines
    that let a page read a refusal; it is given the request's Origin, None where that is not known.
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
        """Keep other limits from now on. Deadlines that are running stay, and nobody is sent away."""
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
        """Serve no more connections than `room` from now on, as there are no descriptors for more.

        `turned_away`: how many are refused with an answer at a time.
        """
        self._room = room
        self._most_turned_away = turned_away

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer. uvicorn sets them once a second, as the date is among them.

        `standing` are the same as bytes.
        """
        return self._default_headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._default_headers = headers
        self.standing = b"".join([b"%b: %b\r\n" % header for header in headers])

    def enter(self, guest: AdmittedConnection, peer: str | None) -> GatewayError | None:
        """Take note of a connection; give the error it must be refused with, if it is one too many.

        `peer` is its address, None on Unix sockets. Whoever entered must `leave`, refused or not.
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
        """Whether even those who are turned away are too many to be told why."""
        return len(self._turned_away) > self._most_turned_away

    def leave(self, guest: AdmittedConnection) -> None:
        """Take note that a connection has ended."""
        self._turned_away.discard(guest)
        peer = self._guests.pop(guest, None)
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def sweep(self, now: float) -> None:
        """Let every connection look at its time limits, if that is due."""
        if now < self._next:
            return
        self._next = now + self._period
        for guest in (*self._guests, *self._turned_away):
            guest.check(now)
