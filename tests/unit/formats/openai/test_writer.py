"""Answers to chat requests are written from events, whole and streamed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from gateway.errors import UpstreamTruncated
from gateway.formats import jsontext, openai, sse
from gateway.formats.events import Delta, Event, Finish, ToolPiece, Usage
from gateway.formats.openai.writer import ChatWriter

USAGE = Usage(3, 2, "backend")


def writer(**body: Any) -> ChatWriter:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    numbers = itertools.count(1)
    return ChatWriter(
        openai.read_chat(json.dumps(asked).encode()),
        model=lambda: "m",
        write_model=jsontext.write,
        new_id=lambda prefix: f"{prefix}{next(numbers)}",
        now=lambda: 7.9,
    )


def chunks(raw: bytes) -> list[Any]:
    data = [line.removeprefix("data: ") for line in raw.decode().split("\n") if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def test_a_whole_answer_is_stamped_and_named() -> None:
    body = json.loads(writer().whole([Delta("hello"), Finish("stop"), USAGE]))
    assert (body["id"], body["created"], body["model"]) == ("chatcmpl-1", 7, "m")
    assert body["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([Delta("a"), USAGE], id="no-finish"),
        pytest.param([Delta("a"), Finish("stop")], id="no-usage"),
        pytest.param([Delta("a"), Finish("stop"), Delta("b", choice=1), USAGE], id="one-of-two-choices"),
        pytest.param([], id="nothing"),
    ],
)
def test_an_incomplete_whole_answer_is_truncated(events: list[Event]) -> None:
    with pytest.raises(UpstreamTruncated):
        writer().whole(events)


def test_a_tool_call_without_an_id_gets_one_whole_and_streamed() -> None:
    call = Delta(tools=(ToolPiece(0, "{}", name="f"),))
    body = json.loads(writer().whole([call, Finish("tool_calls"), USAGE]))
    assert body["choices"][0]["message"]["tool_calls"][0]["id"] == "call_1"
    (_, named) = chunks(writer(stream=True).event(call))
    assert named["choices"][0]["delta"]["tool_calls"][0]["id"].startswith("call_")


def test_chunks_sent_while_waiting_have_the_head_of_all_others() -> None:
    stream = writer(stream=True)
    (first,) = chunks(stream.waiting(None, "chunks"))
    later = chunks(stream.event(Delta("a")))
    assert {(one["id"], one["created"], one["model"]) for one in [first, *later]} == {("chatcmpl-1", 7, "m")}


def test_waiting_is_told_by_comments_or_events() -> None:
    assert writer(stream=True).waiting((2, 1.5), "comments").startswith(b": queued position=2")
    assert writer(stream=True).waiting((2, 1.5), "events").startswith(b"event: queue")


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("passed", [True, False])
def test_usage_is_written_at_the_end_where_it_was_asked_for_and_has_not_passed(
    asked: bool, passed: bool
) -> None:
    stream = writer(stream=True, stream_options={"include_usage": asked})
    stream.event(Delta("a"))
    stream.event(Finish("stop"))
    stream.event(USAGE)
    stream.passed = passed
    *usages, done = chunks(stream.end())
    assert done == "[DONE]"
    assert [one["usage"]["total_tokens"] for one in usages] == ([5] if asked and not passed else [])


def test_a_stream_without_finish_or_usage_is_truncated() -> None:
    stream = writer(stream=True)
    stream.event(Delta("a"))
    stream.event(USAGE)
    with pytest.raises(UpstreamTruncated):
        stream.end()


def test_an_error_is_one_event_without_an_end_mark() -> None:
    raw = writer(stream=True).error(UpstreamTruncated("The backend's answer broke off."))
    (envelope,) = chunks(raw)
    assert envelope["error"]["message"] == "The backend's answer broke off."
    assert not sse.says_done(raw)
