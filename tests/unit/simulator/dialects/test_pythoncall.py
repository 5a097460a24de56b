from __future__ import annotations

import pytest

from gateway.simulator.dialects.pythoncall import fenced, find_call, write_call


def test_written_call_is_read_back() -> None:
    text = fenced("f", {"city": "北京", "n": 2, "deep": {"a": [None, True]}})
    assert find_call(text) == {
        "name": "f",
        "arguments": '{"city": "北京", "n": 2, "deep": {"a": [null, true]}}',
    }
    assert write_call("f", {}) == fenced("f", {}) + "<|observation|>"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        pytest.param("Answer is\nx\n42\ny", {"name": "Answer is", "arguments": "42"}, id="false-call"),
        pytest.param("\n plain answer", None, id="leading-newline"),
        pytest.param("one line", None, id="no-newline"),
        pytest.param("f\n```python\ntool_call(a=undefined)\n```", None, id="no-literal"),
        pytest.param("f\n```python\ntool_call('a')\n```", None, id="no-keyword"),
        pytest.param("f\n```python\n__import__('os').system('x')\n```", None, id="nothing-is-run"),
        pytest.param("f\n```\n```", None, id="nothing-in-the-fence"),
        pytest.param(
            "f\n```\n1\n```<|assistant|>g\n```\n2\n```",
            {"name": "g", "arguments": "2"},
            id="last-part-counts",
        ),
    ],
)
def test_call_is_what_the_servers_take_for_one(text: str, call: object) -> None:
    assert find_call(text) == call
