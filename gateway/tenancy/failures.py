"""How long a refused key waits for its answer: who guesses keys is slowed, by address.

Good keys never wait, whatever others behind the same address (NAT) do. Each address has some failures free;
from then on its refusals are paced. The table of addresses is bounded: the one that failed longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

FREE = 20
"""Failures in a row that an address has free."""
PACE = 0.1
"""Seconds that each failure beyond those adds; also the time that gives one back."""
LONGEST = 5.0
"""Seconds that an answer waits at most."""
MOST = 4096
"""Addresses that are known again."""
_IPV6_NETWORK = 64


class Failures:
    """Refused keys by address. One for the process; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()

    def delay(self, address: str) -> float:
        """Count one failure of an address ("" for a Unix socket); give the seconds that its answer waits."""
        network, now = _network(address), self._clock()
        until = max(self._until.pop(network, now), now) + PACE
        wait = min(LONGEST, max(0.0, round(until - now - FREE * PACE, 6)))
        self._until[network] = min(until, now + FREE * PACE + LONGEST)
        if len(self._until) > MOST:
            self._until.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._until)


def _network(address: str) -> str:
    """An IPv4 address as it is, of an IPv6 address the part that one customer has."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - _IPV6_NETWORK):x}::"
