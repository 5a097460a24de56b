"""JSON values in the text of models."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.formats.structured.recovery import MAX_REPAIRED, NOTHING, bracketed, json_values, strict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("null", None),
        ('"a"', "a"),
        ("1e400", NOTHING),
        ("NaN", NOTHING),
        ("[Infinity]", NOTHING),
        ("{'a': 1}", NOTHING),
        ("[" * 100_000, NOTHING),
        ("", NOTHING),
    ],
)
def test_strict_reads_json_and_nothing_else(text: str, value: Any) -> None:
    assert strict(text) == value or strict(text) is value


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ('text {"a": "}"} more', {"a": "}"}),
        ('{"a": {"b": [1, {}]}} {"c": 1}', {"a": {"b": [1, {}]}}),
        ("```json\n[1]\n```", [1]),
        ("(True, {'a': (1, 2)})", {"a": [1, 2]}),
        ("{'a': True, 'b': None}", {"a": True, "b": None}),
        ('{"a": "x\ny"}', {"a": "x\ny"}),
        ("{「a」：「他说“好”」}", {"a": "他说“好”"}),
        ('｛"a"：1｝', {"a": 1}),
    ],
)
def test_first_value_is_the_most_literal_reading(text: str, first: Any) -> None:
    assert next(json_values(text)) == first


@pytest.mark.parametrize("text", ["", "no json", "a: 1", "}{", "<think>{}</think>"])
def test_text_without_a_bracketed_part_has_no_value(text: str) -> None:
    assert [one for one in json_values(text) if one != {}] == []


def test_values_with_numbers_that_json_lacks_are_left_out() -> None:
    assert not [one for one in json_values("{'a': 1e999}") if one == {"a": float("inf")}]


def test_long_or_deep_parts_are_not_repaired() -> None:
    assert list(json_values("{'a': '" + "x" * MAX_REPAIRED + "'}")) == []
    assert list(json_values("{'a':" * 100 + "1" + "}" * 100)) == []


def test_bracketed_parts_end_at_their_own_bracket() -> None:
    text = 'a {"b": "]}"} c [1] d {'
    assert [text[start:end] for start, end in bracketed(text)] == ['{"b": "]}"}', "[1]", "{"]


@pytest.mark.parametrize("bad", ["{" * 50_000, "[" * 20_000, '{"a":' * 10_000, "```" * 10_000, "{'" * 9_000])
def test_no_text_takes_long(bad: str) -> None:
    assert len(list(json_values(bad))) < 20  # returns at all: bounded by constants
