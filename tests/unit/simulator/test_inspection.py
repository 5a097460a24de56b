from __future__ import annotations

import json
from typing import Any

from gateway.simulator.exchange import Request
from gateway.simulator.faults import SimulatedFaults
from gateway.simulator.inspection import PREFIX, Inspection
from gateway.simulator.recorder import Recorder, RequestRecord
from tests.unit.simulator.helpers import get, post


def make() -> tuple[Inspection, Recorder, SimulatedFaults]:
    recorder, faults = Recorder(10), SimulatedFaults()
    return Inspection("chatglm", recorder, faults), recorder, faults


def answer(inspection: Inspection, request: Request) -> tuple[int, Any]:
    reply = inspection.answer(request)
    return reply.status, json.loads(reply.body)


def test_state_shows_the_requests_and_the_counts() -> None:
    inspection, recorder, _ = make()
    recorder.arrive(RequestRecord("POST", "/", {"host": "x"}, '{"prompt": "你好"}'), generates=True)
    status, state = answer(inspection, get(PREFIX + "state"))
    assert status == 200
    assert {name: value for name, value in state.items() if name != "requests"} == {
        "dialect": "chatglm",
        "in_flight": 1,
        "max_in_flight": 1,
        "started": 1,
        "completed": 0,
    }
    assert [entry["json"] for entry in state["requests"]] == [{"prompt": "你好"}]


def test_faults_are_queued_in_order() -> None:
    inspection, _, faults = make()
    assert answer(inspection, post(PREFIX + "faults", ["reset", {"kind": "slow", "value": 1}])) == (
        200,
        {"faults": 2},
    )
    taken = [faults.take("/", generates=True) for _ in range(2)]
    assert [fault.kind if fault else None for fault in taken] == ["reset", "slow"]


def test_bad_faults_are_refused_with_the_reason() -> None:
    inspection, _, faults = make()
    status, body = answer(inspection, post(PREFIX + "faults", ["reset", "explode"]))
    assert status == 400
    assert "unknown fault 'explode'" in body["error"]
    assert answer(inspection, post(PREFIX + "faults", {}))[0] == 400
    assert answer(inspection, post(PREFIX + "faults", b"{"))[0] == 400
    assert len(faults) == 0


def test_reset_forgets_requests_and_faults() -> None:
    inspection, recorder, faults = make()
    recorder.arrive(RequestRecord("GET", "/", {}, ""), generates=False)
    faults.extend(["reset"])
    assert answer(inspection, post(PREFIX + "reset", None))[0] == 200
    assert (len(recorder.requests), len(faults)) == (0, 0)


def test_other_paths_behind_the_back_door_are_not_there() -> None:
    assert answer(make()[0], get(PREFIX + "faults"))[0] == 404
