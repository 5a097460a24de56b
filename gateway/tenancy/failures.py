"""Delays the answers to wrong keys per client address, so that guessing keys is slow.

The first failures of an address are not delayed; after that its failures are rate limited. A valid key that
has been used from an address is not delayed there, whatever other clients behind the same address (NAT) do.
A valid key that is new at the address waits as long as a wrong key if that wait is `TRIAL` seconds or more.
Otherwise the delay would not slow an attacker: a client could treat a missing quick answer as "wrong key",
close the connection and try the next key on another one. Both tables are bounded; the least recently used
entries are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

FREE = 20
"""Number of failures of an address that are answered without delay."""
PACE = 0.1
"""Seconds of delay that each further failure adds; also the time after which one free failure is restored."""
LONGEST = 5.0
"""Longest delay of an answer, in seconds."""
TRIAL = 1.0
"""If a wrong key would wait this many seconds or more, a valid key that is new at the address waits as well.
"""
MOST = 4096
"""Maximum number of entries in each table: addresses, and pairs of address and key."""
_IPV6_NETWORK = 64


class AuthFailures:
    """Failures by address. One per process. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()

    def delay(self, address: str) -> float:
        """Count one failure of an address and return the delay of its answer, in seconds.

        `address` is "" for a Unix socket.
        """
        network, now = _network(address), self._clock()
        until = max(self._until.pop(network, now), now) + PACE
        wait = min(LONGEST, max(0.0, round(until - now - FREE * PACE, 6)))
        self._until[network] = min(until, now + FREE * PACE + LONGEST)
        if len(self._until) > MOST:
            self._until.popitem(last=False)
        return wait

    def trial(self, address: str, name: str) -> float:
        """Return the delay in seconds of a valid key with this name at this address; see `trust`."""
        network = _network(address)
        until = self._until.get(network)
        if until is not None and (network, name) not in self._used:
            wait = round(until - self._clock() - FREE * PACE, 6)
            if wait >= TRIAL:
                return min(LONGEST, wait)
        self.trust(address, name)
        return 0.0

    def trust(self, address: str, name: str) -> None:
        """Record that a valid key was used at an address, so that it is not delayed there again."""
        place = _network(address), name
        self._used[place] = None
        self._used.move_to_end(place)
        if len(self._used) > MOST:
            self._used.popitem(last=False)

    def __len__(self) -> int:
        return len(self._until)


def _network(address: str) -> str:
    """Return the key of an address: an IPv4 address itself, an IPv6 address's /64 network.

    A customer usually has a whole /64 network of IPv6.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - _IPV6_NETWORK):x}::"
