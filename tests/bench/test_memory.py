"""What is said of a gateway in a small container; and a short time in one, where cgroups can be made."""

from __future__ import annotations

import pytest

from tests.bench.memory import MIB, Found, Load, bodies, measured, possible


def test_a_gateway_that_was_killed_grew_or_stood_still_is_told_of() -> None:
    found = Found("x", killed=True, slowest=0.2, held=[50 * MIB] * 5 + [100 * MIB])
    assert found.faults() == [
        "x: the gateway was killed",
        "x: memory grew from 50 to 100 MiB",
        "x: /livez took 200 ms",
    ]
    assert Found("x", slowest=0.05, held=[50 * MIB, 60 * MIB]).faults() == []


@pytest.mark.skipif(not possible(), reason="no memory cgroup can be made here")
async def test_large_bodies_at_once_do_not_kill_a_gateway_in_a_small_container() -> None:
    found = await measured(bodies, 192, Load(bodies=40))
    assert not found.killed
    assert sum(found.answers.values()) == 40
    assert found.answers.keys() <= {"200", "503"}
    assert found.answers["200"] > 0
