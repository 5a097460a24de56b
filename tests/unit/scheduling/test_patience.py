"""How long to wait for the next bytes, and what their absence is called."""

import pytest

from gateway.errors import FirstTokenTimeout, StallTimeout, TotalTimeout, UpstreamTimeout
from gateway.scheduling.patience import Limits, Patience

LIMITS = Limits(connect=1, first_token=20, between_tokens=5, total=100)
BEGAN = 1000.0


@pytest.mark.parametrize(
    ("streams", "now", "begun", "deadline", "error"),
    [
        pytest.param(True, 1000, False, 1020, FirstTokenTimeout, id="before-the-first-token"),
        pytest.param(True, 1015, False, 1020, FirstTokenTimeout, id="the-first-token-is-due-from-the-start"),
        pytest.param(True, 1010, True, 1015, StallTimeout, id="between-tokens-counts-from-now"),
        pytest.param(True, 1098, True, 1100, TotalTimeout, id="the-end-ends-all"),
        pytest.param(True, 1095, True, 1100, TotalTimeout, id="stall-and-end-at-once-is-the-end"),
        pytest.param(False, 1000, False, 1100, TotalTimeout, id="whole-answers-are-silent-to-their-end"),
        pytest.param(False, 1030, True, 1035, StallTimeout, id="a-whole-body-may-still-stall"),
    ],
)
def test_deadline_and_its_meaning(
    streams: bool, now: float, begun: bool, deadline: float, error: type[UpstreamTimeout]
) -> None:
    patience = Patience(LIMITS, BEGAN, streams=streams)
    found = patience.deadline(now, begun=begun)
    assert found == deadline
    assert type(patience.error(found, begun=begun)) is error


@pytest.mark.parametrize(
    ("streams", "begun", "said"), [(True, False, "20 s"), (True, True, "5 s"), (False, False, "100 s")]
)
def test_the_error_tells_the_limit_that_passed(streams: bool, begun: bool, said: str) -> None:
    patience = Patience(LIMITS, BEGAN, streams=streams)
    assert said in patience.error(patience.deadline(BEGAN, begun=begun), begun=begun).message


def test_a_first_token_limit_above_the_total_never_counts() -> None:
    patience = Patience(Limits(1, 500, 5, 100), BEGAN, streams=True)
    deadline = patience.deadline(BEGAN, begun=False)
    assert deadline == BEGAN + 100
    assert isinstance(patience.error(deadline, begun=False), TotalTimeout)


def test_doubled_patience_began_at_the_same_time_and_ends_later() -> None:
    doubled = Patience(LIMITS, BEGAN, streams=False).doubled()
    assert doubled.deadline(BEGAN, begun=False) == BEGAN + 200
    assert doubled.total == 200
    assert doubled.connect == 1


def test_doubled_patience_still_waits_for_the_first_token_of_a_stream() -> None:
    assert Patience(LIMITS, BEGAN, streams=True).doubled().deadline(BEGAN, begun=False) == BEGAN + 20
