"""The client hangs up: while it waits in the queue, before the first token, in the middle of its answer.

How it is measured: `tests/support/leaving.py`. `make leaves` does the same a thousand times each.
"""

from __future__ import annotations

import math
import statistics

import pytest

from tests.faults.checks import BOTH, EVERY
from tests.support.fleet import Server
from tests.support.leaving import WINDOWS, Case, Departures, Window, depart
from tests.support.visitor import How

LEAVES = 6
"""How many clients leave in each window."""
LIMIT = 0.2
"""Seconds to the end of the backend's connection, for 99 of 100 (P4)."""


def check_fast(found: Departures) -> None:
    """The 99th percentile; of few times, the worst but one in a hundred."""
    worst = sorted(found.times)[math.ceil(len(found.times) * 0.99) - 1]
    median = statistics.median(found.times)
    assert worst <= LIMIT, f"p99 {worst * 1000:.0f} ms, median {median * 1000:.0f} ms"


@pytest.mark.parametrize("how", ["fin", "rst"])
@EVERY
@BOTH
@pytest.mark.parametrize("window", WINDOWS)
async def test_the_backend_is_free_or_booked_and_nothing_is_left(
    server: Server, stream: bool, window: Window, how: How
) -> None:
    found = await depart(Case(server, stream, window), LEAVES, how)
    assert found.faults == []
    assert len(found.times) == LEAVES
    check_fast(found)
