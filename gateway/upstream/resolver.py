"""Looks up the name of one server: off the event loop, one look-up at a time, the last answer kept."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Address: TypeAlias = tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes] | str]
"""A family of sockets, and where to connect."""

Lookup: TypeAlias = Callable[..., list[Any]]
"""`socket.getaddrinfo`; tests bring their own."""

FRESH = 5.0
"""Seconds that an answer is used without asking again: connections are opened in bursts."""
STALE_WAIT = 0.25
"""Seconds to wait for a slow resolver where an older answer is at hand."""


class Resolver:
    """The addresses of one host. Belongs to one event loop.

    `fixed` are addresses that are known already: then nothing is ever looked up.
    A look-up has a thread of its own, at most one at a time for each host: a resolver that hangs holds up
    neither the event loop, nor other names, nor the end of the process.
    """

    def __init__(self, host: str, port: int, lookup: Lookup | None = None, fixed: Sequence[str] = ()) -> None:
        self._host = host
        self._port = port
        self._lookup = lookup or socket.getaddrinfo
        self._known = [found for one in fixed or (host,) for found in _literal(one, port)]
        self._fresh_until = math.inf if self._known else -math.inf
        self._looking: asyncio.Future[list[Address] | OSError] | None = None

    async def wait_addresses(self, seconds: float | None) -> list[Address]:
        """The addresses, within `seconds`. Raises `OSError`, of which `TimeoutError` is one.

        An answer from before is given where there is no newer one in time.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._fresh_until:
            return self._known
        looking = self._looking or self._begin(loop)
        if self._known:
            seconds = STALE_WAIT if seconds is None else min(seconds / 2, STALE_WAIT)
        await asyncio.wait({looking}, timeout=seconds)
        if not self._known:
            found = (
                looking.result() if looking.done() else TimeoutError("The name was not looked up in time.")
            )
            if isinstance(found, OSError):
                try:
                    raise found
                finally:
                    del found, looking  # its traceback refers to this frame
        return self._known

    def doubt(self) -> None:
        """Look up again before the next connection: nobody answers at the addresses known."""
        if self._fresh_until < math.inf:
            self._fresh_until = -math.inf

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[list[Address] | OSError]:
        looking = self._looking = loop.create_future()
        name = f"address of {self._host}"
        threading.Thread(target=self._look, args=(loop, looking), name=name, daemon=True).start()
        return looking

    def _look(
        self, loop: asyncio.AbstractEventLoop, looking: asyncio.Future[list[Address] | OSError]
    ) -> None:
        result: list[Address] | OSError
        try:
            found = self._lookup(self._host, self._port, type=socket.SOCK_STREAM)
            result = [(family, where) for family, _, _, _, where in found]
        except OSError as error:
            result = error
        except UnicodeError:  # of names that no resolver could be asked for
            result = OSError("The name cannot be looked up.")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._learn, looking, result)

    def _learn(
        self, looking: asyncio.Future[list[Address] | OSError], result: list[Address] | OSError
    ) -> None:
        self._looking = None
        if not isinstance(result, OSError) and result:
            self._known = result
            self._fresh_until = asyncio.get_running_loop().time() + FRESH
        looking.set_result(result)

    def __repr__(self) -> str:
        return f"<Resolver {self._host} {len(self._known)} known{', looking' if self._looking else ''}>"


def _literal(host: str, port: int) -> list[Address]:
    """The address of a host that is one already; of a name none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if isinstance(address, ipaddress.IPv4Address):
        return [(socket.AF_INET, (host, port))]
    return [] if address.scope_id else [(socket.AF_INET6, (host, port, 0, 0))]
