"""Complete answers: passed on unchanged if nothing is wrong, else corrected member by member."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.dialects.base import Outgoing
from gateway.dialects.shared.answering import answer_of
from gateway.errors import UpstreamGarbled
from gateway.formats.events import Event, Passed, Repair, Usage
from tests.support.opened import opened

OUTGOING = Outgoing(path="/", body=b"", streams=False, prompt=7, passes=True, model="m")
COUNTED = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


def answer(message: dict[str, Any], finish: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    head = {"id": "x", "object": "chat.completion", "created": 7, "model": "m"}
    return {**head, "choices": [choice], "usage": COUNTED, **more}


def told(value: dict[str, Any], outgoing: Outgoing = OUTGOING) -> dict[str, Any]:
    (passed,) = [one for one in answer_of(outgoing, json.dumps(value).encode()) if isinstance(one, Passed)]
    found: dict[str, Any] = json.loads(passed.data)
    return found


def test_served_name_is_replaced_and_all_else_stays() -> None:
    value = answer({"role": "assistant", "content": "a", "refusal": None}, model="served", timings={"a": 1})
    assert told(value) == {**value, "model": "m"}


@pytest.mark.parametrize("legacy", [False, True])
def test_calls_are_normalised_and_finish_the_answer(legacy: bool) -> None:
    value = answer({"role": "assistant", "content": None, "tool_calls": [CALL]})
    choice = told(value, replace(OUTGOING, legacy=legacy))["choices"][0]
    function = {"name": "f", "arguments": '{"a":1}'}
    if legacy:
        assert choice["message"]["function_call"] == function
        assert choice["finish_reason"] == "function_call"
    else:
        assert choice["message"]["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
        assert choice["finish_reason"] == "tool_calls"


def test_reasoning_is_written_under_both_names_and_half_characters_are_replaced() -> None:
    message = {"role": "assistant", "content": "a\ud83d", "reasoning": "hm"}
    said = told(answer(message))["choices"][0]["message"]
    assert said == {**message, "content": "a\ufffd", "reasoning_content": "hm", "refusal": None}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("model", ["m", "served"])
def test_what_is_no_number_of_json_becomes_null_in_what_passes(number: float, model: str) -> None:
    value = answer({"role": "assistant", "content": "NaN"}, model=model, timings={"a": number})
    value["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": number}]}
    found = told(value)
    assert found["timings"] == {"a": None}
    assert found["choices"][0]["logprobs"] == {"content": [{"token": "a", "logprob": None}]}
    assert found["choices"][0]["message"]["content"] == "NaN"


def test_absent_or_absurd_usage_is_estimated() -> None:
    for usage in (None, {"prompt_tokens": 10**400, "completion_tokens": 1}):
        counted = told(answer({"role": "assistant", "content": "word"}, usage=usage))["usage"]
        assert counted == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


CHUNKS = [
    {"id": "x", "created": 7, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]},
    {"id": "x", "created": 7, "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "eos"}]},
    {"choices": [], "usage": COUNTED, "timings": {"a": 1}},
]
STREAM = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in CHUNKS) + b"data: [DONE]\n\n"


def test_a_stream_where_a_whole_answer_was_asked_for_is_put_together() -> None:
    repair, passed, usage = answer_of(OUTGOING, STREAM)
    assert repair == Repair("other_kind")
    assert isinstance(passed, Passed)
    value = json.loads(passed.data)
    assert value["choices"][0]["message"]["content"] == "ab"
    assert value["choices"][0]["finish_reason"] == "stop"
    assert (value["id"], value["created"], value["timings"]) == ("x", 7, {"a": 1})
    assert usage == Usage(5, 3, "backend")


def test_each_kind_of_client_gets_the_same_of_each_kind_of_answer() -> None:
    def plain(outgoing: Outgoing, body: bytes) -> list[Event | str]:
        events = opened(answer_of(outgoing, body))
        text = "".join(getattr(event, "text", "") for event in events)
        return [
            *(event for event in events if not (hasattr(event, "text") or isinstance(event, Repair))),
            text,
        ]

    whole = json.dumps(answer({"role": "assistant", "content": "ab"})).encode()
    kinds = [OUTGOING, replace(OUTGOING, passes=False), replace(OUTGOING, chunks=True)]
    assert len({str(plain(kind, body)) for kind in kinds for body in (whole, STREAM)}) == 1


def test_an_answer_without_a_choice_is_garbled() -> None:
    for outgoing in (OUTGOING, replace(OUTGOING, passes=False)):
        with pytest.raises(UpstreamGarbled):
            answer_of(outgoing, b'{"choices":[]}')
