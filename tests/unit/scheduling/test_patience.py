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


def test_doubled_patience_of_a_stream_waits_past_the_first_token_limit() -> None:
    assert Patience(LIMITS, BEGAN, streams=True).doubled().deadline(BEGAN, begun=False) == BEGAN + 200


def test_what_comes_without_content_does_not_move_the_limit() -> None:
    patience = Patience(LIMITS, BEGAN, streams=True)
    for now in (1010.0, 1011.0, 1012.0):
        assert patience.deadline(now, begun=True) == 1015
        patience.nothing(now + 1, begun=True)
    assert patience.silent == 3
    patience.content()
    assert patience.deadline(1013, begun=True) == 1018


def test_time_in_which_nobody_waited_is_not_the_backends() -> None:
    patience = Patience(LIMITS, BEGAN, streams=True)
    patience.deadline(1010, begun=True)
    patience.nothing(1011, begun=True)
    patience.nothing(1050, begun=True)  # it was there already when somebody looked
    assert patience.deadline(1060, begun=True) == 1064
    patience.content()
    patience.nothing(1090, begun=True)
    assert patience.silent == 0


@pytest.mark.parametrize(
    ("begun", "since", "now", "error"),
    [
        (True, 1010, 1014.9, None),
        (True, 1010, 1015, StallTimeout),
        (True, 1098, 1100, TotalTimeout),
        (False, 1000, 1019.9, None),
        (False, 1000, 1020, FirstTokenTimeout),
    ],
)
def test_a_flood_without_content_meets_the_limits_too(
    begun: bool, since: float, now: float, error: type[UpstreamTimeout] | None
) -> None:
    patience = Patience(LIMITS, BEGAN, streams=True)
    patience.deadline(since, begun=begun)
    if error is None:
        patience.nothing(now, begun=begun)
    else:
        with pytest.raises(error):
            patience.nothing(now, begun=begun)


def test_silence_in_a_flow_goes_on_behind_it() -> None:
    patience = Patience(LIMITS, BEGAN, streams=True)
    assert patience.flowed(1013, 1010) == 1015
    assert patience.silent == 3
    assert patience.deadline(1013, begun=True) == 1015
    assert patience.flowed(1013, 1013.5) == 1018.5
    assert patience.silent == 0
