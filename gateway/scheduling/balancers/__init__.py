"""Which of several free backends takes a request. One policy per file. Pure.

`base`: the interface, and the choice that most fall back on; `least_busy`: the default; `weighted`: in
proportion to weights; `round_robin`: in turn; `random_two`: the emptier of two; `session`: one backend per
conversation; `prefix`: the backend that saw the longest beginning.

Rule: A balancer chooses among free backends only, so no GPU idles while a request waits that could use it.
Balancers do not import one another.
"""

from collections.abc import Callable

from gateway.scheduling.balancers.base import Balancer, Candidate
from gateway.scheduling.balancers.least_busy import LeastBusy
from gateway.scheduling.balancers.prefix import Prefix
from gateway.scheduling.balancers.random_two import RandomTwo
from gateway.scheduling.balancers.round_robin import RoundRobin
from gateway.scheduling.balancers.session import Session
from gateway.scheduling.balancers.weighted import Weighted

__all__ = ["BALANCERS", "Balancer", "Candidate", "balancer"]

BALANCERS: dict[str, Callable[[Callable[[], float]], Balancer]] = {
    "least-busy": lambda _: LeastBusy(),
    "weighted": lambda _: Weighted(),
    "round-robin": lambda _: RoundRobin(),
    "random-two": RandomTwo,
    "session": lambda _: Session(),
    "prefix": lambda _: Prefix(),
}
"""Every balancer by its name in the configuration; each is made with a source of random numbers in [0, 1)."""


def balancer(name: str, chance: Callable[[], float]) -> Balancer:
    """Make the balancer of one model."""
    return BALANCERS[name](chance)
