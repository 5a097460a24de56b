"""Bytes are passed on unchanged unless a rule requires a change; a truncated stream never looks complete."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import DIALECTS
from gateway.dialects.base import ByteDecoder, Profile
from gateway.dialects.shared.passing import PassingDecoder
from gateway.errors import GatewayError, UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.formats import token_counts
from gateway.formats.events import Event, Passed, Repair, Usage
from gateway.formats.openai import ChatRequest, read_chat

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
SAID = TEXT + "bc"
GOOD = b"".join([ROLE, *WORDS, STOP])
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


def objects(data: bytes) -> list[Any]:
    return [json.loads(frame.removeprefix(b"data:")) for frame in data.split(b"\n\n") if frame]


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
def test_usage_member_is_put_into_each_chunk_or_taken_out_as_the_client_asked(
    stream: bytes, wanted: bool
) -> None:
    events = read([stream], usage_wanted=wanted)
    expected = WITH_USAGE.removesuffix(DONE) if wanted else b"".join([ROLE, *WORDS, STOP])
    assert objects(passed(events)) == objects(expected)
    assert Usage(5, 3, "backend") in events


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("usage_wanted", [False, True])
def test_what_is_no_number_of_json_becomes_null(number: str, usage_wanted: bool) -> None:
    pieces = [
        one.replace(b'"logprobs":null', b'"timings":%b,"logprobs":null' % number.encode())
        for one in (*WORDS, STOP)
    ]
    late = USAGE.replace(b'"prompt_tokens":5', b'"prompt_tokens":5,"cost":%b' % number.encode())
    found = objects(passed(read([ROLE, *pieces, late, DONE], usage_wanted=usage_wanted)))
    said = [one["choices"][0] for one in found if one["choices"]]
    assert "".join(one["delta"].get("content") or "" for one in said) == SAID
    assert [one["timings"] for one in said[1:]] == [None] * len(pieces)
    assert not usage_wanted or found[-1]["usage"] == {**COUNTED, "cost": None}


def test_each_read_goes_on_at_once() -> None:
    reader = decoder()
    assert reader.feed(ROLE) == []
    assert reader.feed(WORDS[0]) == [Passed(ROLE + WORDS[0])]
    assert reader.feed(WORDS[1] + WORDS[2]) == [Passed(WORDS[1] + WORDS[2])]
    assert reader.feed(STOP) == []  # sent at the end, because content may still follow
    assert reader.finished
    assert reader.feed(USAGE + DONE) == []
    assert reader.done
    assert reader.end(clean=True) == [Passed(STOP, "stop"), Usage(5, 3, "backend")]


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
    complete = len(WHOLE) - len(USAGE) - len(DONE) - len(b"\n\n")
    for place in range(complete):
        with pytest.raises(UpstreamTruncated):
            read([WHOLE[:place]], clean=False)


def test_a_finish_without_done_is_a_good_end_and_mended() -> None:
    events = read([b"".join([ROLE, *WORDS, STOP])])
    assert others(events) == [
        Repair("missing_done"),
        Usage(_estimated(), token_counts.estimate(SAID), "estimate"),
    ]


def test_a_server_without_usage_gets_an_estimate_told_under_its_own_id() -> None:
    events = read([b"".join([*COUNTING, DONE])], usage_wanted=True)
    told = json.loads(passed(events).split(b"data: ")[-1])
    assert told["id"] == "chatcmpl-1"
    assert told["choices"] == []
    assert told["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(
            WHOLE.replace(b'"id":"chatcmpl-1"', b'"id":""'),
            GOOD.replace(b"chatcmpl-1", b"chatcmpl-0"),
            id="no-id",
        ),
        pytest.param(WHOLE.replace(b'"model":"m"', b'"model":"other"'), GOOD, id="another-model"),
        pytest.param(WHOLE.replace(b'"role":"assistant",', b""), GOOD, id="no-role"),
        pytest.param(WHOLE.replace(b',"logprobs":null', b""), GOOD, id="no-logprobs"),
        pytest.param(WHOLE.replace(b"\n\n", b"\r\n\r\n"), GOOD, id="crlf"),
        pytest.param(WHOLE.replace(b"data: ", b"data:"), GOOD, id="no-blank"),
        pytest.param(WHOLE.replace(b"data: ", b"event: message\nid: 1\ndata: "), GOOD, id="other-lines"),
        pytest.param(b"\xef\xbb\xbf: ping\n\n" + WHOLE, GOOD, id="mark-and-comment"),
        pytest.param(b"".join([ROLE, ROLE, *WORDS, STOP, USAGE, DONE]), GOOD, id="the-role-twice"),
    ],
)
def test_what_is_missing_or_wrong_is_put_right_in_every_slicing(stream: bytes, expected: bytes) -> None:
    for pieces in ([stream], [stream[place : place + 1] for place in range(len(stream))]):
        events = read(pieces)
        assert objects(passed(events)) == objects(expected)
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
    assert Repair("no_finish") not in events
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
def test_bytes_pass_under_the_name_that_the_client_asked_for(more: dict[str, Any], profile: Profile) -> None:
    openai = DIALECTS["openai"]
    chat = request(**more)
    reader = openai.decoder(openai.ask(chat, profile, stream=True))
    assert isinstance(reader, PassingDecoder)
    events = [*reader.feed(WHOLE), *reader.end(clean=True)]
    assert objects(passed(events)) == objects(
        GOOD.replace(b'"model":"m"', f'"model":"{chat.model}"'.encode())
    )


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
    body = json.dumps(answer).encode()
    return body, answered(body)


def answered(body: bytes) -> list[Event]:
    openai = DIALECTS["openai"]
    return openai.answer(openai.ask(request(stream=False), Profile(model="m"), stream=False), body)


def test_a_whole_answer_goes_on_as_it_came() -> None:
    body, events = whole(ANSWER)
    assert events == [Passed(body, "stop"), Usage(5, 3, "backend")]


def test_a_refusal_that_is_left_out_is_put_in() -> None:
    choice = {**ANSWER["choices"][0], "message": {"role": "assistant", "content": '"role":"assistant"'}}
    body = json.dumps({**ANSWER, "choices": [choice]}, separators=(",", ":")).encode()
    events = answered(body)
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
def test_what_a_whole_answer_lacks_is_added(change: dict[str, Any]) -> None:
    _, events = whole({**ANSWER, **change})
    told = json.loads(passed(events))
    assert told["id"]
    assert told["model"] == "m"
    assert told["choices"][0]["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["total_tokens"] > 0
    assert told["x_vendor"] == {"kept": True}


def _estimated() -> int:
    openai = DIALECTS["openai"]
    return openai.ask(request(), Profile(model="m"), stream=True).prompt_tokens


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


def test_only_chunks_of_text_pass_unparsed_and_only_once_there_is_content() -> None:
    reader = decoder()
    assert reader.passed(ROLE) is None
    reader.feed(ROLE + WORDS[0])
    assert reader.passed(WORDS[1]) == WORDS[1]
    assert reader.passed(WORDS[1] + WORDS[2]) == WORDS[1] + WORDS[2]
    others = (
        WORDS[2][:-1],
        STOP,
        USAGE,
        DONE,
        chunk({"content": ""}),
        chunk({"content": 7}),
        b"",
        b"data: {}\n\n",
    )
    assert [reader.passed(one) for one in others] == [None] * len(others)
    reader.feed(STOP)
    assert reader.passed(WORDS[1]) is None
    assert reader.end(clean=True)[-1] == Usage(_estimated(), token_counts.estimate(TEXT + "bbc"), "estimate")


def test_changed_chunks_pass_unparsed_too() -> None:
    reader = decoder(usage_wanted=True)
    reader.feed(ROLE + WORDS[0])
    assert reader.passed(WORDS[1]) == COUNTING[2]


def test_reasoning_goes_on_under_both_names() -> None:
    reader = decoder()
    reader.feed(ROLE + chunk({"reasoning_content": "a"}))
    told = reader.passed(chunk({"reasoning_content": "b"}))
    assert told is not None
    assert objects(told)[0]["choices"][0]["delta"] == {"reasoning_content": "b", "reasoning": "b"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\\ud83d", id="half-a-character"),
        pytest.param(b"\xff", id="no-utf-8"),
        pytest.param(b"a\x01", id="a-control"),
        pytest.param(b'"}', id="a-quote"),
        pytest.param(b"\\x", id="no-escape"),
    ],
)
def test_a_text_in_doubt_does_not_pass_unparsed(text: bytes) -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[1])
    assert reader.passed(WORDS[1].replace(b'"b"', b'"' + text + b'"')) is None


@pytest.mark.parametrize("text", [b"\\u4f60", b"\\ud83d\\ude00", b'\\"\\n', "你".encode()])
def test_escapes_pass_unparsed(text: bytes) -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[1])
    piece = WORDS[1].replace(b'"b"', b'"' + text + b'"')
    assert reader.passed(piece) == piece


def test_half_characters_of_two_chunks_are_joined() -> None:
    halves = [chunk({"content": "x"}).replace(b"x", half) for half in (b"a\\ud83d", b"\\ude00b")]
    events = read([ROLE + WORDS[1], halves[0], halves[1], STOP, DONE])
    told = [choice["delta"].get("content") for one in objects(passed(events)) for choice in one["choices"]]
    assert "".join(text or "" for text in told) == "ba😀b"


def test_nothing_passes_unparsed_behind_half_an_event_or_after_the_end() -> None:
    reader = decoder()
    reader.feed(ROLE + WORDS[0] + WORDS[1][:-1])
    assert reader.passed(WORDS[2]) is None
    ended = decoder()
    ended.feed(WHOLE)
    assert ended.passed(WORDS[1]) is None


def test_a_stream_that_holds_is_read_in_linear_time() -> None:
    empty = chunk({"content": ""})
    events = read([ROLE, *[empty] * 20_000, WORDS[1], STOP, DONE])
    assert len(objects(passed(events))) == 3


def test_members_of_a_usage_chunk_that_nobody_asked_for_go_on_with_the_finish() -> None:
    usage = event({**HEAD, "choices": [], "usage": COUNTED, "timings": {"predicted_ms": 1.5}})
    told = objects(passed(read([ROLE, *WORDS, STOP, usage, DONE])))
    assert told[-1]["timings"] == {"predicted_ms": 1.5}
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    wanted = objects(passed(read([ROLE, *WORDS, STOP, usage, DONE], usage_wanted=True)))
    assert wanted[-1]["timings"] == {"predicted_ms": 1.5}
    assert "timings" not in wanted[-2]


def test_shapes_are_not_looked_for_in_a_stream_where_none_ever_fits() -> None:
    pieces = [chunk({"content": "a"}, obfuscation="x" * number) for number in range(30)]
    events = read([ROLE, *pieces, STOP, DONE])
    assert [one.get("obfuscation") for one in objects(passed(events))][1:-1] == ["x" * n for n in range(30)]


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
]


@pytest.mark.parametrize("spaced", [False, True], ids=["dense", "spaced"])
@pytest.mark.parametrize(
    ("delta", "says"), [*((one, False) for one in EMPTY), *((one, True) for one in FULL)], ids=str
)
def test_what_passes_tells_whether_it_holds_content(delta: dict[str, Any], says: bool, spaced: bool) -> None:
    one = chunk(delta)
    if spaced:
        one = f"data: {json.dumps(json.loads(one[6:]))}\n\n".encode()
    reader = decoder()
    reader.feed(ROLE + WORDS[0])
    assert says or reader.passed(one) is None
    assert [event.content for event in reader.feed(one) if isinstance(event, Passed)] == [True] * says
    assert [event.content for event in reader.feed(one + WORDS[0]) if isinstance(event, Passed)] == [True]


def test_role_of_a_first_chunk_with_text_is_not_said_again() -> None:
    first, *rest = [chunk({"content": text}) for text in "abc"]
    told = objects(passed(read([first, *rest, STOP, DONE])))
    assert [one["choices"][0]["delta"].get("role") for one in told] == ["assistant", None, None, None]


def test_first_event_goes_on_at_once_where_a_stream_cannot_move() -> None:
    reader = decoder()
    reader.holds = False
    assert reader.feed(ROLE) == [Passed(ROLE, None, False)]
    assert reader.feed(WORDS[0]) == [Passed(WORDS[0])]
    assert reader.feed(STOP + USAGE + DONE) == []
    assert reader.end(clean=True) == [Passed(STOP, "stop"), Usage(5, 3, "backend")]
