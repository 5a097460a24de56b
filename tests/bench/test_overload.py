"""What an overload must not do; and a short one, over a real gateway in a process of its own."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.bench import process
from tests.bench.overload import CARDS, Course, Phase, Plan, by_chance, evenly, run
from tests.bench.own import Reply, two_cores

SHORT = Plan(before=1.0, overload=1.5, after=0.5, direct=0.5)


def answered(came: float, seconds: float = 0.15, status: int = 200) -> Reply:
    return Reply(status, {}, came - seconds, came)


def refused(came: float, seconds: float = 0.002, when: str = "1") -> Reply:
    return Reply(503, {"retry-after": when} if when else {}, came - seconds, came)


def course(**changes: object) -> Course:
    """Ten cards' worth of answers a second; five seconds before, ten of twice as much, five after."""
    one = Course(
        10.0,
        Phase(0.0, 5.0, [answered(second / 8) for second in range(40)]),
        Phase(5.0, 10.0, [reply(5.05 + count / 10) for count in range(100) for reply in (answered, refused)]),
        Phase(15.0, 5.0, [answered(15.1 + count / 5) for count in range(25)]),
        [answered(1.0, 0.003)],
    )
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def overloaded(*odd: Reply, without: int = 0) -> Phase:
    """The overload with other replies besides, and some of its answers missing."""
    phase = course().overload
    return Phase(5.0, 10.0, [*phase.replies[without * 2 :], *odd])


def test_an_overload_without_harm_has_no_faults() -> None:
    assert course().goodput == pytest.approx(1.0)
    assert course().normal_after == 0
    assert course().faults() == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"overload": overloaded(without=6)}, "the cards were idle", id="goodput"),
        pytest.param({"overload": Phase(5.0, 10.0, [*course().overload.accepted])}, "no overload", id="none"),
        pytest.param({"overload": overloaded(*[refused(9, 0.06)] * 3)}, "refusals came late", id="late"),
        pytest.param({"overload": overloaded(refused(9, when=""))}, "when to come again", id="no-time"),
        pytest.param({"overload": overloaded(*[answered(9, 0.31)] * 3)}, "waited too long", id="slow"),
        pytest.param({"overload": overloaded(answered(9, status=0))}, "in another way", id="broken"),
        pytest.param({"overload": overloaded(answered(9, status=502))}, "in another way", id="502"),
        pytest.param({"looks": [answered(9, 0.003), answered(9, 0.101)]}, "/livez was slow", id="livez"),
        pytest.param({"looks": [answered(9, 0.003, 503)]}, "/livez was slow or failed", id="livez-failed"),
        pytest.param({"twice": 1}, "1 cards were asked two things", id="two-at-once"),
        pytest.param({"wasted": 2}, "2 answers were made for nobody", id="wasted"),
        pytest.param({"left": ["gateway_queue_depth is 1.0"]}, "queue_depth is 1.0 at the end", id="left"),
    ],
)
def test_each_harm_is_named(changes: dict[str, object], fault: str) -> None:
    (found,) = course(**changes).faults()
    assert fault in found


def test_it_recovers_when_the_last_odd_request_has_ended() -> None:
    late = course(after=Phase(15.0, 6.0, [refused(15.2), answered(17.5, 0.9), answered(20.0)]))
    assert late.normal_after == pytest.approx(2.5)
    assert late.faults() == []
    never = course(after=Phase(15.0, 6.0, [answered(20.0), refused(20.5)]))
    assert never.faults() == ["it did not recover in time"]


def test_every_promise_has_its_figure() -> None:
    figures = "\n".join(course().figures())
    assert "100 answered, 100 refused" in figures
    assert "goodput: 100.0%" in figures
    assert figures.count("promised") == 5


def test_requests_arrive_evenly_or_by_chance_at_the_rate() -> None:
    assert list(evenly(2.0, 2.0)) == [0.0, 0.5, 1.0, 1.5]
    moments = list(by_chance(100.0, 50.0, random.Random(1)))
    assert moments == sorted(moments)
    assert 4700 < len(moments) < 5300
    assert moments[-1] < 50


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
async def test_a_short_overload_is_met_and_measured(tmp_path: Path) -> None:
    before = set(process.family(os.getpid()))
    lines: list[str] = []
    found = await run(SHORT, tmp_path, lines.append, core=two_cores()[0])
    assert len(lines) == 3
    assert found.overload.refused
    assert found.overload.accepted
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in found.overload.refused)
    assert {reply.status for reply in found.looks} == {200}
    assert (found.twice, found.wasted, found.left) == (0, 0, [])
    assert 0.5 < found.goodput < 1.2
    assert 0 < found.capacity <= 10 * CARDS
    assert set(process.family(os.getpid())) <= before
