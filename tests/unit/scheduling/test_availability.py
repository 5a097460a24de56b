"""The availability interface, and the availabilities that the tests of the scheduler use."""

import pytest

from gateway.scheduling.availability import Availability
from gateway.scheduling.health import BackendHealth, HealthRules
from tests.support.resting import LONGEST_REST, REST, RestingBackend, rest_after


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, LONGEST_REST), (100_000, LONGEST_REST)],
)
def test_rests_double_up_to_a_limit(failures: int, seconds: float) -> None:
    assert rest_after(failures) == seconds


def test_a_new_backend_may_be_asked_with_all_its_slots() -> None:
    rest = RestingBackend(3)
    assert rest.usable(0)
    assert rest.slots_now(0) == 3
    assert rest.share(0) == 1
    assert rest.next_change(0) is None


def test_a_failure_ends_with_the_rest() -> None:
    rest = RestingBackend(1)
    rest.failed(10)
    assert not rest.usable(10)
    assert rest.next_change(10) == 10 + REST
    assert rest.usable(10 + REST)
    assert rest.next_change(10 + REST) is None


def test_what_fails_during_a_rest_is_part_of_the_same_failure() -> None:
    rest = RestingBackend(1)
    rest.failed(0)
    rest.failed(0.5)
    assert (rest.failures, rest.rests_until) == (1, REST)


def test_an_answer_ends_a_rest_and_forgets_all_failures() -> None:
    rest = RestingBackend(1)
    rest.failed(0)
    rest.failed(REST)
    rest.answered()
    assert rest.usable(REST)
    rest.failed(5)
    assert rest.rests_until == 5 + REST


def test_a_backend_that_is_down_for_days_still_only_rests() -> None:
    rest = RestingBackend(1)
    now = 0.0
    for _ in range(3000):
        rest.failed(now)
        now = rest.rests_until
    rest.failed(now)
    assert rest.rests_until == now + LONGEST_REST


def test_the_health_of_a_backend_is_an_availability() -> None:
    health: Availability = BackendHealth(2, HealthRules(fall=1, rise=1, slow_start=0))
    assert (health.usable(0.0), health.slots_now(0.0), health.share(0.0)) == (True, 2, 1.0)
