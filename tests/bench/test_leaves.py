"""What is said of clients that leave; and some that do."""

from __future__ import annotations

from tests.bench.leaves import CASES, Course, leaves
from tests.support.fleet import SERVERS
from tests.support.leaving import WINDOWS, Case, Departures

CASE = Case(SERVERS[0], stream=True, window="queued")


def course(*times: float, faults: tuple[str, ...] = ()) -> Course:
    return Course([(CASE, Departures(list(times), list(faults)))])


def test_every_server_is_left_at_every_moment_streamed_and_whole() -> None:
    assert len(CASES) == len(SERVERS) * len(WINDOWS) * 2
    assert len({str(case) for case in CASES}) == len(CASES)


def test_one_of_a_hundred_may_be_late() -> None:
    assert course(*[0.001] * 199, 0.3).faults() == []
    assert course(*[0.001] * 98, 0.3, 0.3).faults() == ["chatglm stream queued: the backend knew too late"]


def test_what_is_left_behind_is_told_once_for_each_case() -> None:
    found = course(0.001, faults=("a task is left", "a task is left", "an open file is left"))
    assert found.faults() == [
        "chatglm stream queued: a task is left",
        "chatglm stream queued: an open file is left",
    ]


def test_the_times_are_shown_for_each_moment() -> None:
    assert course(0.001, 0.002, 0.003).figures() == [
        "queued: 3 left, p50 2.0 ms, p99 3.0 ms (promised: 200.0 ms)"
    ]


async def test_clients_that_leave_are_measured() -> None:
    lines: list[str] = []
    chosen = [case for case in CASES if case.server.id in ("chatglm2", "openai")]
    found = await leaves(chosen, 2, lines.append)
    assert len(lines) == len(chosen) == 12
    assert all(len(one.times) == 2 for _, one in found.found)
    assert [fault for fault in found.faults() if "too late" not in fault] == []
