from __future__ import annotations

import json

import pytest

from gateway.simulator.exchange import Reply, json_reply
from gateway.simulator.fault_effects import spoil_event, spoil_reply, substitute
from gateway.simulator.faults import SimulatedFault


def test_garbage_says_json_and_is_none() -> None:
    reply = substitute(SimulatedFault("garbage"))
    assert (reply.status, reply.content_type) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)


def test_html_is_a_page_with_status_200() -> None:
    reply = substitute(SimulatedFault("html"))
    assert (reply.status, reply.content_type) == (200, "text/html; charset=utf-8")
    assert reply.body.startswith(b"<html>")


@pytest.mark.parametrize(
    ("content", "left"),
    [
        pytest.param({"response": "a", "status": 200}, {"status": 200}, id="native"),
        pytest.param({"id": "x", "choices": [{}]}, {"id": "x", "choices": []}, id="openai-like"),
    ],
)
def test_missing_response_takes_out_the_answer(content: object, left: object) -> None:
    assert json.loads(spoil_reply(json_reply(content), SimulatedFault("missing-response")).body) == left


def test_missing_response_empties_the_events_of_a_stream() -> None:
    fault = SimulatedFault("missing-response")
    assert spoil_event(b'data: {"choices":[{"delta":{}}]}\r\n\r\n', fault) == b'data: {"choices":[]}\r\n\r\n'
    assert spoil_event(b"data: [DONE]\r\n\r\n", fault) == b"data: [DONE]\r\n\r\n"


@pytest.mark.parametrize("fault", [None, SimulatedFault("slow", 1)], ids=["none", "another"])
def test_other_faults_leave_the_reply_alone(fault: SimulatedFault | None) -> None:
    reply = Reply(200, b"not json at all")
    assert spoil_reply(reply, fault) == reply
    assert spoil_event(b"data: {\r\n\r\n", fault) == b"data: {\r\n\r\n"
