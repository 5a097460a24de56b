"""How long a refused key waits for its answer: who guesses keys is slowed, by address.

Each address has some failures free; from then on its refusals are paced. Good keys that an address has used
do not wait, whatever others behind it (NAT) do; one that it has not used waits as long as a wrong one, where
that is `TRIAL` seconds or more. Or the pace would be no hindrance: who leaves after a moment without an
answer, to try the next key on another connection, would know that it was wrong. Both tables are bounded: what
was used longest ago goes.
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
TRIAL = 1.0
"""Seconds that a wrong key waits from which a good one that its address has not used waits as well."""
MOST = 4096
"""Addresses, and keys of addresses, that are known again."""
_IPV6_NETWORK = 64


class AuthFailures:
    """Refused keys by address. One for the process; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: OrderedDict[str, float] = OrderedDict()
        self._used: OrderedDict[tuple[str, str], None] = OrderedDict()

    def delay(self, address: str) -> float:
        """Count one failure of an address ("" for a Unix socket); give the seconds that its answer waits."""
        network, now = _network(address), self._clock()
        until = max(self._until.pop(network, now), now) + PACE
        wait = min(LONGEST, max(0.0, round(until - now - FREE * PACE, 6)))
        self._until[network] = min(until, now + FREE * PACE + LONGEST)
        if len(self._until) > MOST:
            self._until.popitem(last=False)
        return wait

    def trial(self, address: str, name: str) -> float:
        """Give the seconds that a good key, of that name, waits at this address; see `trust`."""
        network = _network(address)
        until = self._until.get(network)
        if until is not None and (network, name) not in self._used:
            wait = round(until - self._clock() - FREE * PACE, 6)
            if wait >= TRIAL:
                return min(LONGEST, wait)
        self.trust(address, name)
        return 0.0

    def trust(self, address: str, name: str) -> None:
        """Note that a good key was used at an address: it does not wait there again."""
        place = _network(address), name
        self._used[place] = None
        self._used.move_to_end(place)
        if len(self._used) > MOST:
            self._used.popitem(last=False)

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
