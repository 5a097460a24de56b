"""Every collection whose size a client decides has a maximum: taken at it, and refused above it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.formats import limits, native, openai

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
USER = {"role": "user", "content": "Hello"}


def chat(**body: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **body}).encode()


def call(**members: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}} | members


def nested(levels: int) -> Any:
    return {"x": nested(levels - 1)} if levels > 1 else {}


FUNCTION = {"name": "f"}
CHATS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "nesting": (limits.MAX_DEPTH, lambda size: chat(metadata=nested(size))),
    "values": (limits.MAX_VALUES - 8, lambda size: chat(metadata={"x": [1] * size})),
    "members of metadata": (
        limits.MAX_VALUES - 8,
        lambda size: chat(metadata={f"{n}": 1 for n in range(size)}),
    ),
    "unknown members": (limits.MAX_VALUES - 8, lambda size: chat(**{f"x{n}": 1 for n in range(size)})),
    "messages": (limits.MAX_MESSAGES, lambda size: chat(messages=[USER] * size)),
    "parts of a message": (
        limits.MAX_PARTS,
        lambda size: chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * size}]),
    ),
    "calls of a message": (
        limits.MAX_CALLS,
        lambda size: chat(messages=[{"role": "assistant", "tool_calls": [call()] * size}, USER]),
    ),
    "tools": (limits.MAX_TOOLS, lambda size: chat(tools=[{"type": "function", "function": FUNCTION}] * size)),
    "functions": (limits.MAX_TOOLS, lambda size: chat(functions=[FUNCTION] * size)),
    "stop texts": (limits.MAX_STOPS, lambda size: chat(stop=["x"] * size)),
    "a stop text": (limits.MAX_STOP, lambda size: chat(stop="x" * size)),
    "a stop text of a list": (limits.MAX_STOP, lambda size: chat(stop=["x" * size])),
    "logit_bias": (limits.MAX_BIASES, lambda size: chat(logit_bias={f"{n}": 1 for n in range(size)})),
    "a function's name": (limits.MAX_NAME, lambda size: chat(functions=[{"name": "x" * size}])),
    "a named function": (
        limits.MAX_NAME,
        lambda size: chat(tools=[], tool_choice={"type": "function", "function": {"name": "x" * size}}),
    ),
    "a speaker's name": (limits.MAX_NAME, lambda size: chat(messages=[{**USER, "name": "x" * size}])),
    "a call's id": (
        limits.MAX_ID,
        lambda size: chat(messages=[{"role": "assistant", "tool_calls": [call(id="x" * size)]}, USER]),
    ),
    "a result's id": (
        limits.MAX_ID,
        lambda size: chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "x" * size}, USER]),
    ),
    "user": (limits.MAX_ID, lambda size: chat(user="x" * size)),
    "n": (128, lambda size: chat(n=size)),
    "top_logprobs": (20, lambda size: chat(top_logprobs=size)),
    "digits of a number": (limits.MAX_DIGITS, lambda size: chat(x=10**size - 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_each_collection_of_a_chat_is_taken_at_its_maximum_and_refused_above(name: str) -> None:
    most, body = CHATS[name]
    openai.read_chat(body(most))
    with pytest.raises(BadRequest):
        openai.read_chat(
            body(most + 1 if name not in ("values", "members of metadata", "unknown members") else most + 9)
        )


def test_the_native_doors_history_has_a_maximum() -> None:
    def body(size: int) -> bytes:
        return json.dumps({"prompt": "x", "history": [["a", "b"]] * size}).encode()

    assert len(native.read_request(body(limits.MAX_PAIRS)).history) == limits.MAX_PAIRS
    with pytest.raises(BadRequest):
        native.read_request(body(limits.MAX_PAIRS + 1))


@pytest.mark.parametrize("name", [name for name in vars(limits) if name.startswith("MAX_")])
def test_each_maximum_stands_in_the_docs(name: str) -> None:
    assert f"{getattr(limits, name):,}" in PAGE


@pytest.mark.parametrize(
    "body",
    [
        chat(tools=[1] * 9_000),
        chat(tools=[{"type": "function", "function": {"name": 1, "parameters": 1}}] * 1_000),
        chat(messages=[{"role": "robot"}] * 4_000),
        chat(messages=[{"role": "user", "content": [1] * 2_000}] * 9),
        chat(messages=[{"role": "assistant", "tool_calls": [1] * 250}] * 50),
        chat(logit_bias={f"{n}": "x" for n in range(2_000)}),
        chat(logit_bias={f"{n}": "x" for n in range(9_000)}),
        chat(stop=[1] * 9_000),
        chat(functions=[1] * 9_000),
    ],
)
def test_many_faults_cost_no_more_than_one(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest):
        openai.read_chat(body)
    assert time.process_time() - began < 2  # milliseconds; only another order of work would be seen
