"""Chunks, and the first members of chunks, in the form that the client must get."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.dialects.base import Outgoing
from gateway.dialects.shared.rewriting import ChunkRewriter, UsageCompleter, head_of, identified, written
from gateway.dialects.shared.state import AnswerState
from gateway.formats.events import Delta, Finish, ToolPiece, Usage

OUTGOING = Outgoing(
    path="/",
    body=b"",
    streams=True,
    prompt=7,
    passes=True,
    model="m",
    stamp=lambda prefix: (prefix + "new", 9),
)


@pytest.mark.parametrize(
    ("answer", "head"),
    [
        ({"id": "x", "created": 7, "model": "other"}, ("x", 7)),
        ({"id": "x", "created": 7.5}, ("x", 7)),
        ({"id": "x", "created": 1796086887}, ("x", 1796086887)),
        ({"id": "x", "created": 10**400}, ("x", 9)),
        ({"id": ""}, ("chatcmpl-new", 9)),
        ({"id": 5, "created": "now"}, ("chatcmpl-new", 9)),
        ({"id": "x"}, ("x", 9)),
    ],
)
def test_head_keeps_what_the_server_gave(answer: dict[str, object], head: tuple[str, int]) -> None:
    told = head_of(answer, "k", OUTGOING)
    assert told == {"id": head[0], "object": "k", "created": head[1], "model": "m"}


def test_calls_without_an_id_get_one() -> None:
    pieces = (ToolPiece(0, name="f"), ToolPiece(0, "x"), ToolPiece(1, id="a", name="g"))
    assert [piece.id for piece in identified(pieces, OUTGOING)] == ["call_new", None, "a"]


def test_counter_counts_reasoning_once() -> None:
    counter = UsageCompleter()
    counter.take(Delta("abc", extras={"reasoning": "a" * 36, "reasoning_content": "a" * 36}))
    assert counter.usage(OUTGOING) == Usage(7, 10, "estimate")


def test_old_form_of_calls_has_only_the_first() -> None:
    state = AnswerState()
    chunks = ChunkRewriter(replace(OUTGOING, legacy=True), state)
    calls = [
        {"index": at, "id": "c", "function": {"name": name, "arguments": "{}"}}
        for at, name in enumerate("fg")
    ]
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
    out = chunks.take(chunk, state.take(chunk))
    assert out is not None
    delta = out["choices"][0]["delta"]
    assert delta == {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}
    finish, raw = chunks.finish(Finish("tool_calls"))
    assert raw is None
    assert finish["choices"][0]["finish_reason"] == "function_call"
    assert written({"a": 1}) == b'data: {"a":1}'
