"""Policies that choose one of several free backends for a request. One policy per file. Pure.

`base`: the interface, and the default choice that most policies use; `least_busy`: the default policy;
`weighted`: in proportion to the configured weights; `round_robin`: in configuration order; `random_two`:
the less loaded of two random backends; `session`: the same backend for every request of a conversation;
`prefix`: the backend that last received the longest prefix of the prompt.

Rule: A balancer chooses among free backends only, so no GPU is idle while a request that could use it
waits. Balancers do not import one another.
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
"""The constructor of each balancer, by its name in the configuration. The argument is a source of random
numbers in [0, 1)."""


def balancer(name: str, chance: Callable[[], float]) -> Balancer:
    """Create the balancer of one model; `chance` returns random numbers in [0, 1)."""
    return BALANCERS[name](chance)
