from __future__ import annotations

import pytest

from gateway.simulator.dialects.jsoncall import find_call, write_call


def test_written_call_is_read_back() -> None:
    assert find_call(write_call("f", {"a": "北"}), ["f"]) == {"name": "f", "arguments": '{"a": "北"}'}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('g\n{"a": 1}', id="not-offered"),
        pytest.param("f", id="no-arguments"),
        pytest.param("f\ntext", id="no-object"),
        pytest.param("f\n{broken", id="broken-json"),
    ],
)
def test_other_text_is_no_call(text: str) -> None:
    assert find_call(text, ["f"]) is None


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("cogview\n{a cat", {"name": "cogview", "arguments": '{"prompt": "{a cat"}'}),
        ("simple_browser\n{x}", {"name": "simple_browser", "arguments": '"{x}"'}),
        ("cogview\na cat", None),
        ("f\n{bad json", None),
    ],
)
def test_two_names_are_calls_whether_offered_or_not(text: str, call: dict[str, str] | None) -> None:
    assert find_call(text, ["f"]) == call
