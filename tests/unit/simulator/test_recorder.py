from __future__ import annotations

from gateway.simulator.recorder import Recorder, RequestRecord


def record(body: str = "") -> RequestRecord:
    return RequestRecord("POST", "/", {"host": "x"}, body)


def test_record_shows_its_body_as_json_where_it_is_json() -> None:
    assert record('{"a": 1}').describe() == {
        "method": "POST",
        "path": "/",
        "headers": {"host": "x"},
        "body": '{"a": 1}',
        "json": {"a": 1},
        "finished": False,
    }
    assert record("{").json is None


def test_recorder_counts_generations_from_arrival_to_end() -> None:
    recorder, one, two = Recorder(10), record(), record()
    recorder.arrive(one, generates=True)
    recorder.arrive(two, generates=True)
    recorder.settle(one, generates=True, whole=True)
    assert (recorder.in_flight, recorder.max_in_flight, recorder.started, recorder.completed) == (1, 2, 2, 1)
    recorder.settle(two, generates=True, whole=False)
    assert (recorder.in_flight, recorder.completed) == (0, 1)
    assert one.finished
    assert two.finished


def test_other_requests_are_remembered_but_not_counted() -> None:
    recorder, probe = Recorder(10), record()
    recorder.arrive(probe, generates=False)
    recorder.settle(probe, generates=False, whole=True)
    assert list(recorder.requests) == [probe]
    assert (recorder.started, recorder.completed, recorder.max_in_flight) == (0, 0, 0)


def test_recorder_remembers_no_more_than_its_limit() -> None:
    recorder = Recorder(2)
    for body in ("1", "2", "3"):
        recorder.arrive(record(body), generates=False)
    assert [entry.body for entry in recorder.requests] == ["2", "3"]


def test_reset_keeps_what_is_still_in_flight() -> None:
    recorder, running = Recorder(10), record()
    recorder.arrive(running, generates=True)
    recorder.reset()
    assert (len(recorder.requests), recorder.in_flight, recorder.max_in_flight, recorder.started) == (
        0,
        1,
        1,
        0,
    )
