"""The chunks of a stream."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from gateway.formats.events import Delta, ToolPiece, Usage
from gateway.formats.openai import ChunkWriter, Message

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "clock", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}

message_of = TypeAdapter(Message).validate_python


CALL = (ToolPiece(0, '{"a"', id="call_1", name="f"), ToolPiece(0, ":1}"))
USAGE = Usage(3, 4, "backend")


def writer(*, include_usage: bool = False, legacy: bool = False) -> ChunkWriter:
    return ChunkWriter(
        answer_id="chatcmpl-1", created=5, model="m", include_usage=include_usage, legacy=legacy
    )


def chunks(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in raw.split(b"\n\n")[:-1]]


def deltas(raw: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(raw)]


def test_a_stream_opens_each_choice_with_its_role_once() -> None:
    stream = writer()
    assert deltas(stream.delta(Delta("a"))) == [{"role": "assistant", "content": ""}, {"content": "a"}]
    assert deltas(stream.delta(Delta("b"))) == [{"content": "b"}]
    other = chunks(stream.delta(Delta("c", choice=1)))
    assert [one["choices"][0]["index"] for one in other] == [1, 1]
    assert other[0]["choices"][0]["delta"]["role"] == "assistant"


def test_every_chunk_bears_the_same_head() -> None:
    stream = writer()
    raw = stream.delta(Delta("a")) + stream.finish("stop")
    assert {(one["id"], one["object"], one["created"], one["model"]) for one in chunks(raw)} == {
        ("chatcmpl-1", "chat.completion.chunk", 5, "m")
    }
    assert all("usage" not in one for one in chunks(raw))


def test_a_stream_ends_with_its_reason() -> None:
    stream = writer()
    stream.delta(Delta("a"))
    (last,) = chunks(stream.finish("length"))
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_an_empty_answer_is_still_opened() -> None:
    assert deltas(writer().finish("stop")) == [{"role": "assistant", "content": ""}, {}]


def test_a_piece_without_anything_writes_nothing_more_than_its_opening() -> None:
    stream = writer()
    assert len(chunks(stream.delta(Delta()))) == 1
    assert stream.delta(Delta()) == b""


def test_a_streamed_call_names_itself_once() -> None:
    stream = writer()
    opening, named = deltas(stream.delta(Delta(tools=CALL[:1])))
    assert opening == {"role": "assistant", "content": None}
    assert named["tool_calls"] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    ]
    (rest,) = deltas(stream.delta(Delta(tools=CALL[1:])))
    assert rest["tool_calls"] == [{"index": 0, "function": {"arguments": ":1}"}}]
    (last,) = chunks(stream.finish("tool_calls"))
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_an_old_client_gets_its_function_call_streamed() -> None:
    stream = writer(legacy=True)
    _, named = deltas(stream.delta(Delta(tools=CALL[:1])))
    assert named == {"function_call": {"name": "f", "arguments": '{"a"'}}
    assert deltas(stream.delta(Delta(tools=CALL[1:]))) == [{"function_call": {"arguments": ":1}"}}]
    assert chunks(stream.finish("tool_calls"))[0]["choices"][0]["finish_reason"] == "function_call"


def test_with_usage_asked_for_every_chunk_has_the_member_and_the_last_fills_it() -> None:
    stream = writer(include_usage=True)
    assert [one["usage"] for one in chunks(stream.delta(Delta("a")))] == [None, None]
    (last,) = chunks(stream.usage(USAGE))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7


def test_extras_of_a_piece_pass_into_its_chunk() -> None:
    assert deltas(writer().delta(Delta(extras={"reasoning": "x"})))[1] == {"reasoning": "x"}
