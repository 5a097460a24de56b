"""Which attempts are retried, how many retries are allowed, and to which other models a request may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    TABLE,
    BadRequest,
    ContextExceeded,
    Draining,
    GatewayError,
    NoBackend,
    QueueFull,
    QueueTimeout,
    UnsupportedParameter,
    UpstreamRejected,
)
from gateway.scheduling.retry import LEAST, WINDOW, Cause, Failure, RetryBudget, cause, may_retry


def spent(share: float = 0.2, least: float = 1.0) -> RetryBudget:
    budget = RetryBudget(share, least)
    while budget.spend(0.0):
        pass
    return budget


@pytest.mark.parametrize(
    ("failure", "attempts", "allowed"),
    [
        pytest.param(Failure(True, False, 1), 2, True, id="first-of-two"),
        pytest.param(Failure(True, False, 2), 2, False, id="second-of-two"),
        pytest.param(Failure(True, False, 2), 3, True, id="second-of-three"),
        pytest.param(Failure(True, False, 1), 1, False, id="retries-are-off"),
        pytest.param(Failure(False, False, 1), 2, False, id="wrong-kind"),
        pytest.param(Failure(True, True, 1), 2, False, id="content-was-sent"),
        pytest.param(Failure(False, True, 1), 2, False, id="content-was-sent-and-wrong-kind"),
    ],
)
def test_a_failure_is_retried_only_before_content_and_within_the_attempts(
    failure: Failure, attempts: int, allowed: bool
) -> None:
    assert may_retry(failure, attempts, RetryBudget(0.2), 0.0) is allowed


def test_an_empty_budget_forbids_the_retry() -> None:
    assert not may_retry(Failure(True, False, 1), 2, spent(), 0.0)


def test_only_a_retry_costs_something() -> None:
    budget = RetryBudget(0.2)
    before = budget.left(0.0)
    for failure in (Failure(False, False, 1), Failure(True, True, 1), Failure(True, False, 2)):
        may_retry(failure, 2, budget, 0.0)
    assert budget.left(0.0) == before
    may_retry(Failure(True, False, 1), 2, budget, 0.0)
    assert budget.left(0.0) == before - 1


def test_a_quiet_gateway_can_retry_at_once() -> None:
    budget = RetryBudget(0.0)
    assert budget.left(0.0) == LEAST * WINDOW
    assert budget.spend(0.0)


def test_without_share_and_least_nothing_is_retried() -> None:
    budget = RetryBudget(0.0, 0.0)
    budget.earn(0.0)
    assert not budget.spend(0.0)


@pytest.mark.parametrize(("share", "requests"), [(0.2, 5), (0.5, 2), (1.0, 1)])
def test_requests_earn_retries_by_their_share(share: float, requests: int) -> None:
    budget = spent(share)
    for _ in range(requests - 1):
        budget.earn(0.0)
    assert not budget.spend(0.0)
    budget.earn(0.0)
    assert budget.spend(0.0)
    assert not budget.spend(0.0)


def test_what_was_spent_comes_back_when_the_window_has_passed() -> None:
    budget = spent()
    assert not budget.spend(WINDOW - 0.001)
    assert budget.left(WINDOW) == WINDOW


def test_what_was_earned_is_gone_when_the_window_has_passed() -> None:
    budget = RetryBudget(1.0, 0.0)
    budget.earn(3.0)
    assert budget.left(3.0 + WINDOW - 1) == 1
    assert not budget.spend(3.0 + WINDOW)


def test_a_long_pause_forgets_everything() -> None:
    budget = RetryBudget(1.0, 0.0)
    for _ in range(50):
        budget.earn(1.0)
    assert budget.left(1e6) == 0


def test_when_everything_fails_retries_stay_a_share_of_requests() -> None:
    budget = RetryBudget(0.2)
    retries = 0
    for _ in range(1000):
        budget.earn(5.5)
        retries += may_retry(Failure(True, False, 1), 2, budget, 5.5)
    assert retries == 200 + LEAST * WINDOW


def test_the_budget_shows_its_counts() -> None:
    budget = RetryBudget(0.2)
    budget.earn(0.0)
    budget.spend(0.0)
    assert repr(budget) == "<RetryBudget 1 retries of 1 requests>"


steps = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0, 11.0, 1000.0]), st.booleans()), max_size=200)


@given(steps, st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 0.1, 1.0]))
def test_no_window_has_more_retries_than_its_requests_and_time_allow(
    steps: list[tuple[float, bool]], share: float, least: float
) -> None:
    budget, now = RetryBudget(share, least), 0.0
    requests: list[int] = []
    retries: list[int] = []
    for pause, asks in steps:
        now += pause
        since = int(now) - WINDOW
        allowed = share * sum(one > since for one in requests) + least * WINDOW
        made = sum(one > since for one in retries)
        if asks:
            budget.earn(now)
            requests.append(int(now))
        elif budget.spend(now):
            retries.append(int(now))
            assert made + 1 <= allowed + 1e-9
        else:
            assert made + 1 > allowed - 1e-9, "refused though there was one left"


# --- other models ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "why"),
    [
        pytest.param(ContextExceeded(""), "context", id="too-long"),
        pytest.param(NoBackend(""), "outage", id="none-up"),
        pytest.param(QueueFull(""), "outage", id="queue-full"),
        pytest.param(QueueTimeout(""), "outage", id="queue-too-slow"),
        pytest.param(Draining(""), None, id="our-own-end"),
        pytest.param(BadRequest(""), None, id="bad-request"),
        pytest.param(UnsupportedParameter(""), None, id="not-honoured"),
        pytest.param(UpstreamRejected("", code="content_filter"), None, id="filtered"),
    ],
)
def test_the_cause_says_which_models_may_help(error: GatewayError, why: Cause | None) -> None:
    assert cause(error) == why


@pytest.mark.parametrize("kind", [kind for kind, row in TABLE.items() if row.blames])
def test_whatever_a_backend_is_blamed_for_is_an_outage(kind: type[GatewayError]) -> None:
    assert cause(kind("")) == "outage"
