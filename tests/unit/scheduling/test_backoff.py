"""The rest after failures doubles up to its limit, and is shortened at random."""

from __future__ import annotations

import pytest

from gateway.scheduling.backoff import REST, SPREAD, rest_after, spread


def test_the_rest_doubles_with_each_failure_up_to_the_longest() -> None:
    assert [rest_after(count, 3.0, 0.0) for count in range(1, 6)] == [REST, 2 * REST, 4 * REST, 3.0, 3.0]


def test_a_rest_shorter_than_the_first_is_possible() -> None:
    assert rest_after(1, 0.1, 0.0) == 0.1


@pytest.mark.parametrize("count", [17, 18, 5000])
def test_any_number_of_failures_gives_a_finite_rest(count: int) -> None:
    assert rest_after(count, 1e9, 0.0) == REST * 2.0**16


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 8.0), (0.5, 8.0 * (1 - SPREAD / 2))])
def test_chance_shortens_a_time_and_never_lengthens_it(chance: float, expected: float) -> None:
    assert spread(8.0, chance) == expected
    assert rest_after(100, 8.0, chance) == expected
