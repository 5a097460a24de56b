"""A template is used only if chunks that match it can differ in nothing but their text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.shared.chunk_templates import ChunkTemplate, shape_of
from gateway.dialects.shared.state import AnswerState


def shape(chunk: dict[str, Any], raw: bytes | None = None, **out: Any) -> ChunkTemplate | None:
    raw = raw if raw is not None else b"data: " + json.dumps(chunk).encode()
    return shape_of(chunk, AnswerState().take(chunk), raw, {**chunk, **out})


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def test_shape_gives_the_text_and_what_to_write() -> None:
    found = shape(chunk({"content": "a"}), usage=None)
    assert found is not None
    event = b"data: " + json.dumps(chunk({"content": "b"})).encode() + b"\n\n"
    assert found.text(event) == b"b"
    assert json.loads(found.written(event, b"b")[6:]) == {**chunk({"content": "b"}), "usage": None}
    same = shape(chunk({"content": "a"}))
    assert same is not None
    assert same.written(event, b"b") is event


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(chunk({"role": "assistant", "content": "a"}), id="a-role"),
        pytest.param(chunk({"content": ""}), id="nothing"),
        pytest.param(chunk({"content": "a", "more": 1}), id="more"),
        pytest.param(chunk({"content": "a"}, usage={"prompt_tokens": 1}), id="usage"),
        pytest.param({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}, id="finish"),
        pytest.param({"choices": [{"message": {"content": "a"}}]}, id="no-delta"),
    ],
)
def test_chunks_that_say_more_than_a_text_have_no_shape(chunk: dict[str, Any]) -> None:
    assert shape(chunk) is None


def test_bytes_that_could_mean_another_member_have_no_shape() -> None:
    twice = (
        b'data: {"choices":[{"index":0,"x":{"content":"a"},"delta":{"content":"a"},"finish_reason":null}]}'
    )
    value = json.loads(twice[6:])
    assert shape(value, twice) is None
