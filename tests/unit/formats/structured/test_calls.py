"""Calls in text: in many forms, of offered functions only."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.formats.structured.calls import MAX_CALLS, MAX_READ, read_calls

OFFERED = ("get_weather", "calc")


def found(text: str, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in read_calls(text, OFFERED, **options).calls]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"function": {"name": "calc", "arguments": "{}"}}', [("calc", {})]),
        ('{"name": "calc"}', [("calc", {})]),
        ('{"name": "calc", "arguments": null}', [("calc", {})]),
        ('{"action": "functions.calc", "action_input": {"a": 1}}', [("calc", {"a": 1})]),
        ('{"名称": "calc", "参数": {"a": "一"}}', [("calc", {"a": "一"})]),
        ("<tool_call>calc</tool_call>", [("calc", {})]),
        ("<tool_call>calc<arg_key>a</arg_key><arg_value>[1]</arg_value>", [("calc", {"a": [1]})]),
        ("Action: `calc`\nAction Input: ```json\n{}\n```", [("calc", {})]),
        ('calc(a=[1, {"b": ")"}])', [("calc", {"a": [1, {"b": ")"}]})]),
        ("  calc()\n  calc(a=-1)", [("calc", {}), ("calc", {"a": -1})]),
    ],
)
def test_form_is_read(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert found(text) == calls


@pytest.mark.parametrize(
    "text",
    [
        "calc(1)",
        "calc(a=b)",
        "calc(a=__import__('os'))",
        "please calc(a=1)",
        '{"name": 5}',
        "[]",
        "{}",
        "<tool_call></tool_call>",
        "Action: calc",
        "calc\nis a function",
    ],
)
def test_what_is_no_call_of_an_offered_function_is_none(text: str) -> None:
    assert found(text) == []
    assert read_calls(text, OFFERED).text == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"name": "other", "arguments": {}}', "no tool 'other'"),
        ("<tool_call>?</tool_call>", "cannot be read"),
        ('{"name": "calc", "arguments": [1]}', "not a JSON object"),
        ("Action: other\nAction Input: {}", "no tool 'other'"),
    ],
)
def test_fault_of_what_looks_like_a_call_is_told(text: str, fault: str) -> None:
    assert fault in read_calls(text, OFFERED).fault


def test_only_the_wanted_forms_are_read() -> None:
    text = '{"name": "calc", "arguments": {}}'
    assert found(text, forms=("glm4",)) == []
    assert found("calc\n{}", forms=("glm4",)) == [("calc", {})]
    assert found(text, forms=("json",)) == [("calc", {})]


def test_number_of_calls_and_length_of_text_are_bounded() -> None:
    many = "[" + ",".join(['{"name": "calc", "arguments": {}}'] * (MAX_CALLS + 5)) + "]"
    assert len(found(many)) == MAX_CALLS
    assert found('{"name": "calc", "arguments": {}}' + " " * MAX_READ) == []
    assert read_calls("calc()", ()).calls == ()


@pytest.mark.parametrize(
    "text",
    ["{" * 60_000, "calc(" * 12_000, "<tool_call>" * 5_000, "Action: calc\n" * 4_000, "calc\n" * 9_000],
)
def test_no_text_takes_long(text: str) -> None:
    assert len(found(text)) <= MAX_CALLS  # returns at all: bounded by constants
