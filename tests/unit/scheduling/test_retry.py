"""Whether a failed try may be repeated, and how many repeats a site may make."""

import pytest

from gateway.scheduling.retry import FLOOR, Budget, Failure, Verdict, decide


def spent(share: float = 0.2) -> Budget:
    budget = Budget(share)
    while budget.spend():
        pass
    return budget


@pytest.mark.parametrize(
    ("failure", "attempts", "verdict"),
    [
        pytest.param(Failure(True, False, 1), 2, "retry", id="first-of-two"),
        pytest.param(Failure(True, False, 2), 2, "attempts_spent", id="second-of-two"),
        pytest.param(Failure(True, False, 2), 3, "retry", id="second-of-three"),
        pytest.param(Failure(True, False, 1), 1, "attempts_spent", id="retries-are-off"),
        pytest.param(Failure(False, False, 1), 2, "not_retryable", id="wrong-kind"),
        pytest.param(Failure(True, True, 1), 2, "content_sent", id="content-is-out"),
        pytest.param(Failure(False, True, 1), 2, "content_sent", id="content-is-the-first-reason"),
    ],
)
def test_the_verdict_names_its_reason(failure: Failure, attempts: int, verdict: Verdict) -> None:
    assert decide(failure, attempts, Budget(0.2)) == verdict


def test_an_empty_budget_forbids_the_retry() -> None:
    assert decide(Failure(True, False, 1), 2, spent()) == "budget_spent"


def test_only_a_retry_costs_something() -> None:
    budget = Budget(0.2)
    for failure in (Failure(False, False, 1), Failure(True, True, 1), Failure(True, False, 2)):
        decide(failure, 2, budget)
    assert budget.saved == FLOOR
    decide(Failure(True, False, 1), 2, budget)
    assert budget.saved == FLOOR - 1


def test_a_quiet_gateway_can_retry_at_once() -> None:
    assert Budget(0.0).spend()


@pytest.mark.parametrize(("share", "requests"), [(0.2, 5), (0.5, 2), (1.0, 1)])
def test_requests_earn_retries_by_their_share(share: float, requests: int) -> None:
    budget = spent(share)
    for _ in range(requests - 1):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    budget.earn()
    assert budget.spend()


def test_savings_are_bounded() -> None:
    budget = Budget(1.0)
    for _ in range(1000):
        budget.earn()
    assert budget.saved == FLOOR


def test_when_everything_fails_retries_stay_a_share_of_requests() -> None:
    budget = Budget(0.2)
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += decide(Failure(True, False, 1), 2, budget) == "retry"
    assert 200 <= retries <= 200 + FLOOR
