"""The failures that count against one backend, and if they are enough to act on. Pure.

`health` describes what a miss and a strike are, and which events clear them.
"""

from __future__ import annotations

AGAIN = 2
"""How many failures beyond `fall` make a backend doubted if all are of the same request. The automatic
retries of an SDK stay below this number."""


class FailureCounts:
    """The failures of one backend. Owned by its `BackendHealth`.

    `misses` counts failed connections, and `resets` those of them that broke after the request was sent.
    `pauses` counts busy answers without a Retry-After, and `unfit` counts answers such as 404 that point to
    an error in the configuration.
    """

    __slots__ = ("_failures", "_strikes", "_tenants", "misses", "pauses", "resets", "unfit")

    def __init__(self) -> None:
        self.misses = 0
        self.resets = 0
        self.pauses = 0
        self.unfit = 0
        self._failures = 0
        self._strikes: set[object] = set()
        self._tenants: set[str] = set()

    def strike(self, request: object | None, tenant: str) -> None:
        """Count the failure of a request.

        Failures of an equal request are one strike. None is equal to no other request.
        """
        self._strikes.add((tenant, object() if request is None else request))
        self._tenants.add(tenant)
        self._failures += 1

    def reset(self, tenant: str, fall: int) -> None:
        """Count a connection that was reset after a request of `tenant` was sent.

        It counts as a miss, but never as the miss that reaches `fall`.
        """
        self._tenants.add(tenant)
        self.resets += 1
        self.misses = min(self.misses + 1, max(0, fall - 1))

    def closed(self, fall: int) -> None:
        """Count a reused connection that the backend closed as a miss, unless `fall` would be reached."""
        if self.misses + len(self._strikes) + 1 < fall:
            self.misses += 1

    def forget_requests(self) -> None:
        """Forget the failures that requests may have caused: strikes and resets."""
        self._strikes.clear()
        self._tenants.clear()
        self._failures = self.resets = 0

    def forget_all(self) -> None:
        """Forget all failures: the backend has sent a complete answer."""
        self.forget_requests()
        self.misses = self.pauses = self.unfit = 0

    def enough(self, fall: int) -> bool:
        """Return True if a backend in service has failed often enough to be doubted.

        Either `fall` different failures or `fall` + `AGAIN` failures of any kind are enough.
        """
        different, total = self.misses + len(self._strikes), self.misses + self._failures
        return different >= fall or total >= fall + AGAIN

    @property
    def strikes(self) -> int:
        """The number of different requests that have failed."""
        return len(self._strikes)

    @property
    def several_tenants(self) -> bool:
        """True if requests of more than one tenant have failed."""
        return len(self._tenants) > 1

    @property
    def none(self) -> bool:
        """True if nothing counts against the backend."""
        return not (self.misses or self._strikes or self.pauses or self.resets or self.unfit)
