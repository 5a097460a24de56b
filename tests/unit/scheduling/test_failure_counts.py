"""Which failures add up, which are the same, and which are forgotten when."""

from __future__ import annotations

import pytest

from gateway.scheduling.failure_counts import AGAIN, FailureCounts

FALL = 3


def struck(*requests: object | None, tenant: str = "a") -> FailureCounts:
    counts = FailureCounts()
    for request in requests:
        counts.strike(request, tenant)
    return counts


@pytest.mark.parametrize(
    ("requests", "strikes", "enough"),
    [
        pytest.param([], 0, False, id="nothing"),
        pytest.param([1, 2], 2, False, id="two-different"),
        pytest.param([1, 2, 3], 3, True, id="three-different"),
        pytest.param([None, None, None], 3, True, id="unknown-requests-are-different"),
        pytest.param([1] * (FALL + AGAIN - 1), 1, False, id="the-retries-of-an-sdk"),
        pytest.param([1] * (FALL + AGAIN), 1, True, id="one-request-too-often"),
    ],
)
def test_equal_requests_are_one_strike(requests: list[int | None], strikes: int, enough: bool) -> None:
    counts = struck(*requests)
    assert (counts.strikes, counts.enough(FALL)) == (strikes, enough)


def test_misses_and_strikes_add_up() -> None:
    counts = struck(1, 2)
    counts.misses = 1
    assert counts.enough(FALL)


def test_equal_requests_of_two_tenants_are_two_strikes() -> None:
    counts = struck(1)
    assert not counts.several_tenants
    counts.strike(1, "b")
    assert (counts.strikes, counts.several_tenants) == (2, True)


def test_resets_never_reach_the_limit_of_misses() -> None:
    counts = FailureCounts()
    for _ in range(9):
        counts.reset("a", FALL)
    assert (counts.misses, counts.resets) == (FALL - 1, 9)


def test_with_a_limit_of_one_a_reset_is_no_miss() -> None:
    counts = FailureCounts()
    counts.reset("a", 1)
    assert (counts.misses, counts.resets) == (0, 1)


def test_closed_connections_never_reach_the_limit_together_with_strikes() -> None:
    counts = struck(1)
    for _ in range(9):
        counts.closed(FALL)
    assert counts.misses == 1
    assert not counts.enough(FALL)


def test_forgetting_requests_keeps_what_no_request_has_caused() -> None:
    counts = struck(1, 2)
    counts.reset("b", FALL)
    counts.pauses = counts.unfit = 1
    counts.forget_requests()
    assert (counts.strikes, counts.resets, counts.several_tenants) == (0, 0, False)
    assert (counts.misses, counts.pauses, counts.unfit) == (1, 1, 1)
    assert not counts.none


@pytest.mark.parametrize("name", ["misses", "resets", "pauses", "unfit"])
def test_an_answer_forgets_everything(name: str) -> None:
    counts = FailureCounts()
    setattr(counts, name, 2)
    before = counts.none
    counts.strike(1, "a")
    counts.forget_all()
    assert (before, counts.none, counts.strikes) == (False, True, 0)
