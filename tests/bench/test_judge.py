"""Streams that were held back do not count, however cheap they were."""

import pytest

from tests.bench.judge import HELD, LATE, judge, verdict
from tests.bench.record import Record, Sample
from tests.bench.workload import WORKLOADS


def stream(*, events: int = 1000, reads: int = 1000, first: float = 21_000) -> Sample:
    return Sample(done=10, events=events, reads=reads, cpu=0.1, first_p50=first)


@pytest.mark.parametrize(
    ("sample", "reference", "clients", "why"),
    [
        pytest.param(stream(), stream(), 100, "", id="as-prompt-as-nginx"),
        pytest.param(stream(events=1150), stream(), 100, "", id="just-so-many-at-once"),
        pytest.param(stream(events=1160), stream(), 100, HELD, id="too-many-at-once"),
        pytest.param(stream(events=0), stream(), 100, HELD, id="no-event-at-all"),
        pytest.param(stream(first=31_000), stream(), 100, "", id="ten-milliseconds-later"),
        pytest.param(stream(first=31_001), stream(), 100, LATE, id="later-still"),
        pytest.param(stream(first=31_001), stream(), 10, LATE, id="few-streams-have-no-excuse"),
        pytest.param(stream(first=70_000), stream(), 500, "", id="500-streams-begin-at-once"),
        pytest.param(stream(first=72_000), stream(), 500, LATE, id="500-streams-later-still"),
        pytest.param(stream(first=900_000), None, 100, "", id="nothing-to-hold-it-against"),
        pytest.param(stream(events=9000, first=90_000), stream(), 100, f"{HELD}, {LATE}", id="both"),
    ],
)
def test_a_stream_counts_when_it_is_prompt(
    sample: Sample, reference: Sample | None, clients: int, why: str
) -> None:
    assert verdict(sample, reference, clients) == why


def record(target: str, turn: int, **samples: Sample) -> Record:
    return Record(target, turn, samples=samples)


def test_streams_are_held_against_nginx_of_the_same_round() -> None:
    gateway = record("gateway", 1, s100=stream(first=50_000))
    others = [
        record("nginx", 1, s100=stream(first=45_000)),
        record("nginx", 2, s100=stream()),
        record("direct", 1, s100=stream()),
    ]
    judge([gateway, *others], WORKLOADS)
    assert gateway.samples["s100"].invalid == ""


def test_without_nginx_streams_are_held_against_no_proxy() -> None:
    gateway = record("gateway", 1, s100=stream(first=50_000))
    judge([gateway, record("direct", 1, s100=stream())], WORKLOADS)
    assert gateway.samples["s100"].invalid == LATE


def test_whole_answers_are_not_judged() -> None:
    gateway = record("gateway", 1, c32=Sample(done=10, reads=10, cpu=1.0))
    judge([gateway], WORKLOADS)
    assert gateway.samples["c32"].invalid == ""
