"""The average duration of answers, and the waiting times that clients are told."""

import pytest

from gateway.scheduling.service_time import LONGEST, UNKNOWN, ServiceTime


def learned(*seconds: float) -> ServiceTime:
    service = ServiceTime()
    for one in seconds:
        service.learn(one)
    return service


def test_before_any_answer_a_guess_is_told() -> None:
    assert learned().mean == UNKNOWN


def test_the_first_answer_replaces_the_guess() -> None:
    assert learned(2.0).mean == 2.0


def test_later_answers_move_the_mean_by_a_fifth() -> None:
    assert learned(10.0, 20.0).mean == pytest.approx(12.0)


def test_the_mean_follows_a_lasting_change() -> None:
    assert learned(1.0, *[30.0] * 50).mean == pytest.approx(30.0, abs=0.01)


@pytest.mark.parametrize(
    ("position", "slots", "seconds"),
    [(1, 1, 4.0), (2, 1, 8.0), (1, 4, 4.0), (4, 4, 4.0), (5, 4, 8.0), (1, 0, 4.0)],
)
def test_the_wait_is_a_round_of_answers_for_every_slotful_ahead(
    position: int, slots: int, seconds: float
) -> None:
    assert learned(4.0).wait(position, slots) == seconds


@pytest.mark.parametrize(
    ("mean", "position", "told"),
    [
        pytest.param(0.01, 1, 1, id="at-least-a-second"),
        pytest.param(1.2, 1, 2, id="rounded-up"),
        pytest.param(30.0, 3, 90, id="by-position"),
        pytest.param(300.0, 50, LONGEST, id="bounded"),
    ],
)
def test_retry_after_is_whole_seconds_within_reason(mean: float, position: int, told: int) -> None:
    found = learned(mean).retry_after(position, 1)
    assert found == told
    assert isinstance(found, int)
