"""Bytes go on as they came, unless something in them must be mended; a cut never looks like an end."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import DIALECTS
from gateway.dialects.base import ByteDecoder, Profile
from gateway.dialects.passing import PassingDecoder
from gateway.errors import GatewayError, UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.wire.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.wire.openai import ChatRequest, read_chat

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
COUNTED = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
TEXT = '你好，"finish_reason":"stop" 𠮷\n[DONE] error"'


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**HEAD, "choices": [choice], **more})


def event(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


ROLE = chunk({"role": "assistant", "content": ""})
WORDS = [chunk({"content": piece}) for piece in (TEXT, "b", "c")]
STOP = chunk({}, "stop")
USAGE = event({**HEAD, "choices": [], "usage": COUNTED})
DONE = event("[DONE]")
WHOLE = b"".join([ROLE, *WORDS, STOP, USAGE, DONE])
COUNTING = [one.replace(b"]}\n\n", b'],"usage":null}\n\n') for one in (ROLE, *WORDS, STOP)]
"""The same chunks of a server that follows the rule for streams with usage."""
WITH_USAGE = b"".join([*COUNTING, USAGE, DONE])


def request(**more: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], "stream": True, **more}
    return read_chat(json.dumps(body).encode())


def decoder(*, usage_wanted: bool = False) -> ByteDecoder:
    options = {"stream_options": {"include_usage": True}} if usage_wanted else {}
    openai = DIALECTS["openai"]
    made = openai.decoder(openai.ask(request(**options), Profile(model="m"), stream=True))
    assert isinstance(made, PassingDecoder)
    return made


def read(pieces: list[bytes], *, usage_wanted: bool = False, clean: bool = True) -> list[Event]:
    reader = decoder(usage_wanted=usage_wanted)
    events = [out for piece in pieces for out in reader.feed(piece)]
    return events + reader.end(clean=clean)


def passed(events: list[Event]) -> bytes:
    return b"".join(one.data for one in events if isinstance(one, Passed))


def others(events: list[Event]) -> list[Event]:
    return [one for one in events if not isinstance(one, Passed)]


def test_bytes_go_on_without_the_usage_that_nobody_asked_for_and_without_done() -> None:
    events = read([WHOLE])
    assert passed(events) == b"".join([ROLE, *WORDS, STOP])
    assert others(events) == [Usage(5, 3, "backend")]
    assert [one.finish for one in events if isinstance(one, Passed)][-1] == "stop"


def test_the_usage_chunk_goes_on_where_it_was_asked_for() -> None:
    events = read([WITH_USAGE], usage_wanted=True)
    assert passed(events) == WITH_USAGE.removesuffix(DONE)


@pytest.mark.parametrize(("stream", "wanted"), [(WHOLE, True), (WITH_USAGE, False)])
def test_chunks_whose_usage_is_not_as_asked_for_are_read(stream: bytes, wanted: bool) -> None:
    events = read([stream], usage_wanted=wanted)
    assert passed(events) == b""
    assert Usage(5, 3, "backend") in events


def test_each_read_goes_on_at_once() -> None:
    reader = decoder()
    assert reader.feed(ROLE) == []
    assert reader.feed(WORDS[0]) == [Passed(ROLE + WORDS[0])]
    assert reader.feed(WORDS[1] + WORDS[2]) == [Passed(WORDS[1] + WORDS[2])]
    assert reader.feed(STOP) == [Passed(STOP, "stop")]
    assert reader.feed(USAGE + DONE) == []
    assert reader.done


@given(st.lists(st.integers(0, len(WITH_USAGE)), max_size=12))
def test_any_slicing_gives_the_same_bytes(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WITH_USAGE)]
    pieces = [WITH_USAGE[start:end] for start, end in pairwise(places)]
    events = read(pieces, usage_wanted=True)
    assert passed(events) == WITH_USAGE.removesuffix(DONE)
    assert others(events) == [Usage(5, 3, "backend")]


def test_single_bytes_give_the_same_bytes() -> None:
    events = read([WHOLE[place : place + 1] for place in range(len(WHOLE))])
    assert passed(events) == b"".join([ROLE, *WORDS, STOP])


def test_a_cut_anywhere_before_the_finish_is_told() -> None:
    complete = len(WHOLE) - len(USAGE) - len(DONE)
    for place in range(complete):
        with pytest.raises(UpstreamTruncated):
            read([WHOLE[:place]], clean=False)


def test_a_finish_without_done_is_a_good_end_and_mended() -> None:
    events = read([b"".join([ROLE, *WORDS, STOP])])
    assert others(events) == [Repair("missing_done"), Usage(_estimated(), 3, "estimate")]


def test_a_server_without_usage_gets_an_estimate_told_under_its_own_id() -> None:
    events = read([b"".join([*COUNTING, DONE])], usage_wanted=True)
    told = json.loads(passed(events).split(b"data: ")[-1])
    assert told["id"] == "chatcmpl-1"
    assert told["choices"] == []
    assert told["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(WHOLE.replace(b'"id":"chatcmpl-1"', b'"id":""'), id="no-id"),
        pytest.param(WHOLE.replace(b'"model":"m"', b'"model":"other"'), id="another-model"),
        pytest.param(WHOLE.replace(b'"role":"assistant",', b""), id="no-role"),
        pytest.param(WHOLE.replace(b"\n\n", b"\r\n\r\n"), id="crlf"),
        pytest.param(b"".join([ROLE, ROLE, *WORDS, STOP, USAGE, DONE]), id="the-role-twice"),
    ],
)
def test_a_stream_that_needs_mending_is_read_event_by_event(stream: bytes) -> None:
    for pieces in ([stream], [stream[place : place + 1] for place in range(len(stream))]):
        events = read(pieces)
        assert passed(events) == b""
        text = "".join(one.text for one in events if isinstance(one, Delta))
        assert text == TEXT + "bc"
        assert Finish("stop") in events
        assert Usage(5, 3, "backend") in events


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"error": {"message": "secret", "code": 1}}, id="openai"),
        pytest.param({"text": "secret", "error_code": 50001}, id="fastchat"),
    ],
)
def test_an_error_event_is_told_without_its_text(broken: dict[str, Any]) -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    with pytest.raises(UpstreamError) as caught:
        reader.feed(event(broken))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b'data: "finish_reason":"\n\n', b"data: [1,2]\n\n"])
def test_garbage_is_an_error(garbage: bytes) -> None:
    with pytest.raises(GatewayError):
        read([ROLE + garbage])


def test_comments_are_left_out_where_events_are_read() -> None:
    events = read([ROLE + WORDS[0], b": ping\n\n" + STOP + USAGE + DONE])
    assert passed(events) == ROLE + WORDS[0] + STOP


def test_an_event_without_end_is_bounded() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    reader.feed(b"data: " + b"x" * 1_000_000)
    with pytest.raises(UpstreamGarbled):
        reader.feed(b"x" * 100_000)


@pytest.mark.parametrize(
    ("more", "profile"),
    [
        pytest.param({"n": 2}, Profile(model="m"), id="several-choices"),
        pytest.param({"model": "alias"}, Profile(model="m"), id="an-alias"),
        pytest.param({}, Profile(model="served"), id="another-name-at-the-server"),
    ],
)
def test_what_cannot_pass_unread_is_read(more: dict[str, Any], profile: Profile) -> None:
    openai = DIALECTS["openai"]
    outgoing = openai.ask(request(**more), profile, stream=True)
    assert not isinstance(openai.decoder(outgoing), ByteDecoder)


ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 7,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": COUNTED,
    "x_vendor": {"kept": True},
}


def whole(answer: dict[str, Any]) -> tuple[bytes, list[Event]]:
    openai = DIALECTS["openai"]
    body = json.dumps(answer).encode()
    return body, openai.answer(openai.ask(request(), Profile(model="m"), stream=False), body)


def test_a_whole_answer_goes_on_as_it_came() -> None:
    body, events = whole(ANSWER)
    assert events == [Passed(body, "stop"), Usage(5, 3, "backend")]


def test_a_refusal_that_is_left_out_is_put_in() -> None:
    choice = {**ANSWER["choices"][0], "message": {"role": "assistant", "content": '"role":"assistant"'}}
    body = json.dumps({**ANSWER, "choices": [choice]}, separators=(",", ":")).encode()
    openai = DIALECTS["openai"]
    events = openai.answer(openai.ask(request(), Profile(model="m"), stream=False), body)
    (told,) = [one for one in events if isinstance(one, Passed)]
    choice["message"]["refusal"] = None
    assert json.loads(told.data) == {**ANSWER, "choices": [choice]}
    assert others(events) == [Usage(5, 3, "backend")]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"id": ""}, id="no-id"),
        pytest.param({"model": "other"}, id="another-model"),
        pytest.param({"usage": None}, id="no-usage"),
        pytest.param(
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}}]}, id="bare"
        ),
    ],
)
def test_a_whole_answer_that_lacks_something_is_written_anew(change: dict[str, Any]) -> None:
    _, events = whole({**ANSWER, **change})
    assert passed(events) == b""
    assert Delta(TEXT) in events


def _estimated() -> int:
    openai = DIALECTS["openai"]
    return openai.ask(request(), Profile(model="m"), stream=True).prompt_tokens


def test_where_a_stream_cannot_move_its_first_event_goes_on_at_once() -> None:
    reader = decoder()
    reader.holds = False
    assert reader.feed(ROLE) == [Passed(ROLE, content=False)]
    assert reader.feed(WORDS[0]) == [Passed(WORDS[0])]
    assert reader.feed(STOP + USAGE + DONE) == [Passed(STOP, "stop")]
    assert reader.end(clean=True) == [Usage(5, 3, "backend")]


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b'data: {"half": \n\n', id="half-an-object"),
        pytest.param(b"data: [1]\n\n", id="a-list"),
        pytest.param(b"data: {not json}\n\ngarbage\n\n", id="among-others"),
    ],
)
def test_what_does_not_look_like_events_is_read_and_refused(junk: bytes) -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    with pytest.raises(UpstreamGarbled):
        reader.feed(junk)


def test_what_has_no_data_is_dropped() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    assert reader.feed(b"garbage\n\n") == []
    assert not reader.done


def test_a_comment_is_dropped() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    assert reader.feed(b": ping\n\n") == []


def test_only_single_events_of_text_pass_and_count_and_only_once_there_is_content() -> None:
    reader = decoder()
    assert not reader.passes(ROLE)
    reader.feed(ROLE + WORDS[0])
    assert [reader.passes(one) for one in (WORDS[1], WORDS[1] + WORDS[2], WORDS[2][:-1], STOP, USAGE)] == [
        True, False, False, False, False
    ]  # fmt: skip
    reader.feed(STOP)
    assert reader.end(clean=True)[-1] == Usage(_estimated(), 2, "estimate")


def test_nothing_passes_behind_half_an_event_in_a_stream_that_is_mended_or_after_the_end() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0] + WORDS[1][:-1])
    assert not reader.passes(WORDS[2])
    mended = decoder()
    mended.feed(ROLE.replace(b'"model":"m"', b'"model":"x"') + WORDS[0])
    assert not mended.passes(WORDS[1])
    ended = decoder()
    ended.feed(WHOLE)
    assert not ended.passes(WORDS[1])


EMPTY: list[dict[str, Any]] = [
    {},
    {"role": "assistant"},
    {"role": "assistant", "content": ""},
    {"content": None},
    {"reasoning_content": "", "content": ""},
    {"tool_calls": []},
]
FULL: list[dict[str, Any]] = [
    {"content": "a"},
    {"content": '"'},
    {"content": "\\"},
    {"content": "", "reasoning_content": "a"},
    {"reasoning": "a"},
    {"audio": {"data": "a"}},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
]


@pytest.mark.parametrize("spaced", [False, True], ids=["dense", "spaced"])
@pytest.mark.parametrize(
    ("delta", "says"), [*((one, False) for one in EMPTY), *((one, True) for one in FULL)], ids=str
)
def test_a_chunk_that_passes_tells_whether_it_holds_content(
    delta: dict[str, Any], says: bool, spaced: bool
) -> None:
    one = chunk(delta)
    if spaced:
        one = f"data: {json.dumps(json.loads(one[6:]))}\n\n".encode()
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    assert reader.passes(one)
    assert reader.says(one) is says
    assert reader.feed(one) == [Passed(one, None, says)]
    assert reader.feed(one + one) == [Passed(one + one, None, says)]
    assert reader.feed(one + WORDS[0]) == [Passed(one + WORDS[0])]
    assert reader.feed(one + STOP) == [Passed(one + STOP, "stop")]


def test_what_passes_though_it_is_no_json_is_no_content() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    for bad in (
        b"data: {oops}\n\n",
        b'data: {"choices":"oops"}\n\n',
        b'data: {"choices":[{"delta":[]}]}\n\n',
    ):
        assert reader.passes(bad)
        assert not reader.says(bad)
