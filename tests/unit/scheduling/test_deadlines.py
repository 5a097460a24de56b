"""How long the gateway waits for the next bytes, and which error a time-out raises."""

import pytest

from gateway.errors import FirstTokenTimeout, StallTimeout, TotalTimeout, UpstreamTimeout
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines

LIMITS = DeadlineLimits(connect=1, first_token=20, between_tokens=5, total=100)
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
    deadlines = Deadlines(LIMITS, BEGAN, streams=streams)
    found = deadlines.deadline(now, begun=begun)
    assert found == deadline
    assert type(deadlines.error(found, begun=begun)) is error


@pytest.mark.parametrize(
    ("streams", "begun", "said"), [(True, False, "20 s"), (True, True, "5 s"), (False, False, "100 s")]
)
def test_the_error_tells_the_limit_that_passed(streams: bool, begun: bool, said: str) -> None:
    deadlines = Deadlines(LIMITS, BEGAN, streams=streams)
    assert said in deadlines.error(deadlines.deadline(BEGAN, begun=begun), begun=begun).message


def test_a_first_token_limit_above_the_total_never_counts() -> None:
    deadlines = Deadlines(DeadlineLimits(1, 500, 5, 100), BEGAN, streams=True)
    deadline = deadlines.deadline(BEGAN, begun=False)
    assert deadline == BEGAN + 100
    assert isinstance(deadlines.error(deadline, begun=False), TotalTimeout)


def test_doubled_patience_began_at_the_same_time_and_ends_later() -> None:
    doubled = Deadlines(LIMITS, BEGAN, streams=False).doubled()
    assert doubled.deadline(BEGAN, begun=False) == BEGAN + 200
    assert doubled.total == 200
    assert doubled.connect == 1


def test_doubled_patience_of_a_stream_waits_past_the_first_token_limit() -> None:
    assert Deadlines(LIMITS, BEGAN, streams=True).doubled().deadline(BEGAN, begun=False) == BEGAN + 200


def test_what_comes_without_content_does_not_move_the_limit() -> None:
    deadlines = Deadlines(LIMITS, BEGAN, streams=True)
    for now in (1010.0, 1011.0, 1012.0):
        assert deadlines.deadline(now, begun=True) == 1015
        deadlines.nothing(now + 1, begun=True)
    assert deadlines.silent == 3
    deadlines.content()
    assert deadlines.deadline(1013, begun=True) == 1018


def test_time_in_which_nobody_waited_is_not_the_backends() -> None:
    deadlines = Deadlines(LIMITS, BEGAN, streams=True)
    deadlines.deadline(1010, begun=True)
    deadlines.nothing(1011, begun=True)
    deadlines.nothing(1050, begun=True)  # the bytes had arrived before the read began
    assert deadlines.deadline(1060, begun=True) == 1064
    deadlines.content()
    deadlines.nothing(1090, begun=True)
    assert deadlines.silent == 0


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
    deadlines = Deadlines(LIMITS, BEGAN, streams=True)
    deadlines.deadline(since, begun=begun)
    if error is None:
        deadlines.nothing(now, begun=begun)
    else:
        with pytest.raises(error):
            deadlines.nothing(now, begun=begun)


def test_silence_in_a_flow_goes_on_behind_it() -> None:
    deadlines = Deadlines(LIMITS, BEGAN, streams=True)
    assert deadlines.flowed(1013, 1010) == 1015
    assert deadlines.silent == 3
    assert deadlines.deadline(1013, begun=True) == 1015
    assert deadlines.flowed(1013, 1013.5) == 1018.5
    assert deadlines.silent == 0
