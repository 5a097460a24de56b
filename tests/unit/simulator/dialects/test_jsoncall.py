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
