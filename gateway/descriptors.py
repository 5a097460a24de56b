"""How many file descriptors there are, and who may have them: clients never take the last ones.

A connection is a descriptor, of a client as of a backend. Where all are in use, connections to backends fail,
and the event loop closes new clients of both planes unheard. So the soft limit is raised at the start. Where
that is not enough, each plane serves no more clients than leave the backends, the other plane and the process
itself theirs.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

from gateway.config import Config

BESIDES = 32
"""Descriptors of the process itself: event loop, log, configuration, threads, questions to DNS."""
ADMIN = 16
"""Clients of the admin plane that always find a descriptor."""
BURST = 256
"""Connections that may be accepted before the first is looked at, and refusals under way, at the most."""
LEAST = 4
UNLIMITED = 65_536
"""Clients to have descriptors for where `server.max_connections` sets no limit."""


@dataclass(frozen=True, slots=True)
class DescriptorLimits:
    """Clients that each plane may have, where descriptors are scarce.

    `turned_away`: refusals under way at a time. `backlog`: connections that the system may keep ready.
    """

    limit: int
    data: int
    admin: int
    turned_away: int
    backlog: int


def wanted(settings: Config) -> int:
    """The descriptors that these settings can need."""
    return _clients(settings) + _backends(settings) + ADMIN + 2 * BURST + BESIDES


def raised(settings: Config) -> int | None:
    """Raise the soft limit as far as it is needed and allowed, and give it; None: there is none."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    needed = wanted(settings)
    aim = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if aim > soft:
        with contextlib.suppress(OSError, ValueError):  # macOS has a further limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
            return aim
    return soft


def room(settings: Config, limit: int | None) -> DescriptorLimits | None:
    """How to share out `limit` descriptors; None where there are enough for all."""
    if limit is None or limit >= wanted(settings):
        return None
    spare = max(0, limit - BESIDES - ADMIN)
    spare -= min(_backends(settings), spare // 2)
    burst = max(LEAST, min(BURST, spare // 8))
    most = max(LEAST, spare - 3 * burst)  # two planes may be rushed at once, and refusals be under way
    return DescriptorLimits(limit, min(most, _clients(settings)), ADMIN, burst, burst)


def _clients(settings: Config) -> int:
    return settings.server.max_connections or UNLIMITED


def _backends(settings: Config) -> int:
    return sum((one.slots + 2) * (one.max_discovered if one.discover else 1) for one in settings.backends)
