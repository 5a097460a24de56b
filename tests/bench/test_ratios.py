"""Ratios are of one round, and what does not count is in none of them."""

import pytest

from tests.bench.judge import HELD, LATE
from tests.bench.ratios import INVALID, Book, Goal, goals
from tests.bench.record import Record, Sample
from tests.bench.workload import WORKLOADS


def requests(us: float, done: int = 1000, bad: int = 0) -> Sample:
    return Sample(done=done, cpu=us * done / 1e6, bad=bad)


def events(us: float, invalid: str = "") -> Sample:
    return Sample(done=10, events=1000, reads=1000, cpu=us * 1000 / 1e6, invalid=invalid)


def book(*records: Record) -> Book:
    return Book(records, WORKLOADS)


def test_a_ratio_is_of_figures_of_the_same_round() -> None:
    one = book(
        Record("nginx", 1, samples={"c32": requests(20)}),
        Record("gateway", 1, samples={"c32": requests(80)}),
        Record("nginx", 2, samples={"c32": requests(40)}),
        Record("gateway", 2, samples={"c32": requests(120)}),
        Record("gateway", 3, samples={"c32": requests(500)}),
    )
    assert one.ratios("gateway", "nginx", "c32") == pytest.approx([4.0, 3.0])


def test_streams_are_compared_by_event() -> None:
    one = book(
        Record("nginx", 1, samples={"s100": events(20)}), Record("gateway", 1, samples={"s100": events(50)})
    )
    assert one.ratios("gateway", "nginx", "s100") == pytest.approx([2.5])


@pytest.mark.parametrize(
    ("mine", "yours", "count"),
    [
        pytest.param(HELD, "", 0, id="held-back"),
        pytest.param(LATE, "", 0, id="late"),
        pytest.param("", HELD, 0, id="anchor-held-back"),
        pytest.param("", LATE, 1, id="a-late-anchor-is-no-cheaper"),
    ],
)
def test_what_does_not_count_gives_no_ratio(mine: str, yours: str, count: int) -> None:
    one = book(
        Record("nginx", 1, samples={"s100": events(20, yours)}),
        Record("gateway", 1, samples={"s100": events(50, mine)}),
    )
    assert len(one.ratios("gateway", "nginx", "s100")) == count


def test_a_figure_is_invalid_when_most_rounds_are() -> None:
    rounds = [
        Record("gateway", turn, samples={"s100": events(50, why)}) for turn, why in enumerate(["", LATE])
    ]
    assert not book(*rounds).is_invalid("gateway", "s100")
    rounds.append(Record("gateway", 2, samples={"s100": events(50, HELD)}))
    assert book(*rounds).is_invalid("gateway", "s100")


def test_native_work_is_held_against_a_routers_plain_requests() -> None:
    one = book(
        Record("smg", 1, samples={"c32": requests(200)}),
        Record("gateway", 1, samples={"c32": requests(80), "native_c32": requests(100)}),
    )
    assert one.ratios("gateway", "smg", "native_c32") == pytest.approx([0.5])


def test_added_latency_is_over_no_proxy_of_the_same_round() -> None:
    one = book(
        Record("direct", 1, samples={"r100": Sample(done=1, latency_p50=300)}),
        Record("gateway", 1, samples={"r100": Sample(done=1, latency_p50=900)}),
        Record("gateway", 2, samples={"r100": Sample(done=1, latency_p50=5000)}),
    )
    assert one.added("gateway", "r100", "latency_p50") == [600]


def test_faults_of_all_rounds_are_counted() -> None:
    one = book(
        Record("gateway", 1, samples={"c1": requests(1, bad=2)}),
        Record("gateway", 2, samples={"c32": requests(1, bad=3)}),
    )
    assert one.bad("gateway") == 5


def state_of(what: str, *records: Record) -> str:
    (found,) = [goal for goal in goals(book(*records)) if goal.what == what]
    return found.state


def test_a_goal_without_figures_is_not_measured() -> None:
    assert state_of("request, 32 clients / nginx") == "not measured"


@pytest.mark.parametrize(
    ("us", "state"),
    [
        pytest.param(80, "aim", id="aim"),
        pytest.param(100, "must", id="must"),
        pytest.param(130, "MISSED", id="more"),
    ],
)
def test_a_goal_knows_whether_it_is_met(us: float, state: str) -> None:
    nginx = Record("nginx", 1, samples={"c32": requests(20)})
    gateway = Record("gateway", 1, samples={"c32": requests(us)})
    assert state_of("request, 32 clients / nginx", nginx, gateway) == state


def test_a_stream_that_was_held_back_meets_no_goal() -> None:
    nginx = Record("nginx", 1, samples={"s100": events(20)})
    gateway = Record("gateway", 1, samples={"s100": events(1, HELD)})
    assert state_of("event, 100 streams / nginx", nginx, gateway) == INVALID


def test_the_gateway_is_held_against_itself_for_translation_and_crowds() -> None:
    samples = {"c32": requests(100), "c256": requests(140), "native_c32": requests(120)}
    found = {goal.what: goal.values for goal in goals(book(Record("gateway", 1, samples=samples)))}
    assert found["translated / passed request, 32 clients"] == pytest.approx((1.2,))
    assert found["request, 256 clients / 32 clients"] == pytest.approx((1.4,))


def test_a_goal_that_was_not_run_does_not_fail() -> None:
    assert Goal("what", 1, 1, ()).state == "not measured"
