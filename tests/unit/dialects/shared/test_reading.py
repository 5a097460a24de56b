"""Bytes become events, however they are sliced; a body of another kind is recognised."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.dialects.base import DOUBTFUL, LATE, LATE_USAGE, Outgoing
from gateway.dialects.shared.reading import EventSplitter, TypedReader
from gateway.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Repair, Usage

OUTGOING = Outgoing(path="/", body=b"", streams=True, prompt=7)
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = (
    b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":2}}'
)


def read(*pieces: bytes, clean: bool = True) -> list[Event]:
    reader = TypedReader(OUTGOING)
    events = [out for piece in pieces for out in reader.feed(piece)]
    return events + reader.end(clean=clean)


def test_typed_events_of_a_stream() -> None:
    assert read(CHUNK + STOP + DONE) == [Delta("a"), Finish("stop")]
    assert read(CHUNK, STOP) == [Delta("a"), Repair("missing_done"), Finish("stop")]


def test_each_slicing_gives_the_same_events() -> None:
    stream = b": x\n\n" + CHUNK + STOP + DONE
    for body in (stream, stream.replace(b"\n", b"\r\n"), stream.replace(b"\n", b"\r")):
        assert read(*[body[at : at + 1] for at in range(len(body))]) == [Delta("a"), Finish("stop")]


def test_json_where_a_stream_was_asked_for_is_read() -> None:
    assert read(WHOLE[:20], WHOLE[20:]) == [
        Repair("other_kind"), Delta("a"), Finish("stop"), Usage(1, 2, "backend"),
    ]  # fmt: skip
    with pytest.raises(UpstreamTruncated):
        read(WHOLE[:40], clean=False)
    with pytest.raises(UpstreamGarbled):
        read(WHOLE[:40])
    with pytest.raises(UpstreamError):
        read(b'{"error":{"message":"secret"}}')


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]", b"data: [DONE]\r\n"])
def test_end_mark_may_lack_its_own_end(end: bytes) -> None:
    assert Finish("stop") in read(CHUNK, end)


def test_part_of_an_event_at_the_end_is_no_event() -> None:
    with pytest.raises(UpstreamTruncated):
        read(CHUNK, STOP[:30])


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"message":"x"}\n\n',
        b'{"error":{"message":"x"}}\n\n',
        b'data: {"error":"x"}\n\n',
    ],
)
def test_errors_in_every_form_are_errors(event: bytes) -> None:
    with pytest.raises(UpstreamError):
        read(CHUNK, event)


def event_of(size: int) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * (size - 51)}}]}).encode() + b"\n\n"


def test_an_event_up_to_the_limit_is_read_and_a_longer_one_is_refused() -> None:
    longest = event_of(sse.MAX_EVENT)
    assert len(longest) - 2 <= sse.MAX_EVENT
    for pieces in ([longest], [longest[at : at + 4096] for at in range(0, len(longest), 4096)]):
        assert read(*pieces, STOP, DONE)[-1] == Finish("stop")
    with pytest.raises(UpstreamGarbled):
        read(event_of(sse.MAX_EVENT + 100))


def test_splitter_looks_at_each_byte_once() -> None:
    splitter = EventSplitter()
    event = b"data: " + b"x" * 500_000
    assert [found for at in range(len(event)) for found in splitter.feed(event[at : at + 1])] == []
    assert splitter.held
    (found,) = splitter.feed(b"\n\n")
    assert found.data == event[6:]
    assert not splitter.held


@pytest.mark.parametrize(
    ("body", "stream"), [(CHUNK, True), (b"\n: x", True), (b"event: x\n", True), (WHOLE, False), (b"", False)]
)
def test_a_stream_is_known_by_its_first_bytes(body: bytes, stream: bool) -> None:
    assert sse.is_stream(body) is stream


def test_end_may_take_longer_where_usage_is_wanted_or_the_finish_is_in_doubt() -> None:
    reader = TypedReader(OUTGOING)
    reader.feed(CHUNK + STOP)
    assert reader.finished
    assert reader.late == LATE
    wanting = TypedReader(replace(OUTGOING, usage_wanted=True))
    wanting.feed(CHUNK + STOP)
    assert wanting.late == LATE_USAGE
    doubtful = TypedReader(OUTGOING)
    doubtful.feed(CHUNK.replace(b"}]}", b',"finish_reason":"stop"}]}'))
    assert doubtful.late == DOUBTFUL
