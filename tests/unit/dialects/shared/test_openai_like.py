from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Profile
from gateway.dialects.shared import openai_like
from gateway.errors import (
    ContextExceeded,
    UnsupportedParameter,
    UpstreamEmpty,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTruncated,
)
from gateway.formats import sse
from gateway.formats.events import Delta, Finish, Repair, ToolPiece, Usage
from gateway.formats.openai import ChatRequest, read_chat


def request(**members: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "hi"}], **members}).encode())


def chunk(delta: dict[str, Any], finish: str | None = None, **members: Any) -> sse.SseEvent:
    return sse.SseEvent(
        json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **members})
    )


DONE = sse.SseEvent("[DONE]")


@pytest.mark.parametrize(
    ("members", "most", "expected"),
    [
        pytest.param({}, None, {}, id="nothing-asked"),
        pytest.param({"temperature": 0}, None, {"temperature": 0}, id="zero-is-greedy"),
        pytest.param({"temperature": 0}, 1.0, {"temperature": 0}, id="zero-is-below-every-limit"),
        pytest.param({"temperature": 1.5}, 1.0, {"temperature": 1.0}, id="lowered"),
        pytest.param({"top_p": 0}, None, {"top_p": 0.01}, id="top_p-is-never-0"),
        pytest.param({"top_p": 1}, None, {"top_p": 1}, id="top_p-1"),
    ],
)
def test_sampling_is_passed_within_what_these_servers_take(
    members: dict[str, Any], most: float | None, expected: dict[str, float]
) -> None:
    profile = Profile(model="m", max_temperature=most)
    assert openai_like.sampling(request(**members), profile) == expected


def test_offered_tools_get_their_defaults_and_lose_what_nobody_knows() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True, "description": None}}
    assert openai_like.offered_tools(request(tools=[tool]), parameters={}) == [
        {"type": "function", "function": {"parameters": {}, "name": "f"}}
    ]


def test_own_parameters_win_over_the_defaults() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    offered = openai_like.offered_tools(request(tools=[tool]), parameters={})
    assert offered[0]["function"]["parameters"] == {"type": "object"}
    assert openai_like.tool_names(offered) == {"f"}


def test_a_tool_that_is_no_function_is_refused_by_its_place() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]
    with pytest.raises(UnsupportedParameter) as caught:
        openai_like.offered_tools(request(tools=tools))
    assert caught.value.param == "tools[1].type"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        pytest.param(b"", UpstreamGarbled, id="nothing"),
        pytest.param(b"\xff\xfe", UpstreamGarbled, id="no-utf-8"),
        pytest.param("[" * 100_000, UpstreamGarbled, id="nested-without-end"),
        pytest.param("[]", UpstreamGarbled, id="a-list"),
        pytest.param("null", UpstreamGarbled, id="null"),
        pytest.param('"text"', UpstreamGarbled, id="a-text"),
        pytest.param('{"error":{"message":"secret"}}', UpstreamError, id="openai"),
        pytest.param('{"error":"secret"}', UpstreamError, id="error-as-text"),
        pytest.param('{"object":"error","message":"secret","code":50001}', UpstreamError, id="fastchat"),
        pytest.param('{"object":"error","message":"secret","code":40303}', ContextExceeded, id="overflow"),
        pytest.param('{"text":"secret","error_code":1}', UpstreamError, id="fastchat-in-a-stream"),
    ],
)
def test_what_is_no_answer_is_an_error_that_repeats_nothing_of_it(
    raw: bytes | str, error: type[UpstreamError]
) -> None:
    with pytest.raises(error) as caught:
        openai_like.read_object(raw)
    assert type(caught.value) is error
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "raw", ['{"error":null,"error_code":0,"a":1}', json.dumps('{"error":null,"error_code":0,"a":1}')]
)
def test_an_object_is_read_even_when_it_was_encoded_twice(raw: str) -> None:
    assert openai_like.read_object(raw)["a"] == 1


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": None},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": "1.5", "completion_tokens": "1"},
        {"prompt_tokens": "9" * 5000, "completion_tokens": "1"},
        {"prompt_tokens": 5, "total_tokens": 4},
        {"prompt_tokens": 5, "completion_tokens": -3, "total_tokens": 8},
        {"total_tokens": 8},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -43},
        {"prompt_tokens": 10**400, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 10**5000},
        {"prompt_tokens": 100_000_001, "completion_tokens": 1},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": [1], "completion_tokens": "1"},
    ],
)
def test_usage_that_cannot_be_true_is_none(usage: Any) -> None:
    assert openai_like.usage_of({"usage": usage}) is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5.0, "completion_tokens": 3},
        {"prompt_tokens": "5", "completion_tokens": "3"},
        {"input_tokens": 5, "output_tokens": 3},
        {"prompt_tokens": 5, "total_tokens": 8},
        {"prompt_tokens": None, "completion_tokens": 3, "total_tokens": "8"},
    ],
)
def test_usage_in_other_words_or_types_is_counted(usage: Any) -> None:
    counted = openai_like.usage_of({"usage": usage})
    assert counted is not None
    assert (counted.prompt, counted.completion) == (5, 3)


def test_details_of_a_usage_keep_only_members_that_are_counts() -> None:
    details: dict[str, Any] = {
        "cached_tokens": 3,
        "audio_tokens": None,
        "a": 10**400,
        "b": True,
        "c": float("nan"),
        "d": {},
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, "prompt_tokens_details": details}
    read = openai_like.usage_of({"usage": usage})
    assert read is not None
    assert read.details == {"prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None}}


@pytest.mark.parametrize("index", [10**400, -1, True, 1.0, "1", None])
def test_an_index_that_is_no_plausible_count_is_the_place_in_the_list(index: Any) -> None:
    assert openai_like.index_of({"index": index}, 2) == 2


@pytest.mark.parametrize(
    ("text", "good"), [("{}", True), ("[]", False), ("", False), ("{", False), ("1", False)]
)
def test_arguments_are_json_of_an_object(text: str, good: bool) -> None:
    assert openai_like.parses_to_object(text) is good


def test_a_stream_is_done_at_its_done_and_not_before() -> None:
    decoder = openai_like.ChunkDecoder()
    events = [chunk({"role": "assistant"}), chunk({"content": "a"}, "stop"), DONE, chunk({"content": "b"})]
    seen = [(decoder.feed(event), decoder.begun, decoder.done) for event in events]
    assert seen == [
        ([], True, False),
        ([Delta("a"), Finish("stop")], True, False),
        ([], True, True),
        ([], True, True),
    ]
    assert decoder.end(clean=False) == []


def test_a_stream_has_begun_with_its_first_chunk() -> None:
    assert not openai_like.ChunkDecoder().begun


class Believing(openai_like.ChunkDecoder):
    counts = True


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        pytest.param(Believing(), [Usage(1, 2, "backend")], id="believed"),
        pytest.param(openai_like.ChunkDecoder(), [], id="not-believed"),
    ],
)
def test_usage_is_believed_only_where_the_dialect_says_so(
    decoder: openai_like.ChunkDecoder, expected: list[Usage]
) -> None:
    decoder.feed(chunk({"content": "a"}, "stop"))
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    assert decoder.feed(sse.SseEvent(json.dumps(usage))) == []
    assert decoder.feed(DONE) == expected


def test_usage_may_come_in_a_chunk_without_choices() -> None:
    decoder = Believing()
    decoder.feed(chunk({"content": "a"}, "stop"))
    decoder.feed(sse.SseEvent('{"usage":{"prompt_tokens":1,"completion_tokens":2}}'))
    assert decoder.end(clean=True) == [Repair("missing_done"), Usage(1, 2, "backend")]


def test_a_delta_that_is_no_object_is_garbled() -> None:
    with pytest.raises(UpstreamGarbled):
        openai_like.ChunkDecoder().feed(sse.SseEvent('{"choices":[{"delta":"text"}]}'))


def test_an_end_before_the_reason_is_a_cut_and_one_after_it_is_mended() -> None:
    decoder = openai_like.ChunkDecoder()
    with pytest.raises(UpstreamTruncated):
        decoder.end(clean=True)
    decoder.feed(chunk({"content": "a"}))
    with pytest.raises(UpstreamTruncated):
        decoder.end(clean=True)
    decoder.feed(chunk({}, "length"))
    assert decoder.end(clean=False) == [Repair("missing_done")]


def test_nothing_but_done_is_no_answer() -> None:
    with pytest.raises(UpstreamEmpty):
        openai_like.ChunkDecoder().feed(DONE)


def test_calls_present_make_stop_tool_calls_and_tool_calls_without_any_is_stop() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    decoder = openai_like.ChunkDecoder()
    assert decoder.feed(chunk({"tool_calls": [call]}, "stop")) == [
        Delta(tools=(ToolPiece(0, "", "c", "f"),)),
        Delta(tools=(ToolPiece(0, "{}"),)),
        Finish("tool_calls"),
    ]
    assert openai_like.ChunkDecoder().feed(chunk({"content": "a"}, "tool_calls"))[-1] == Finish("stop")


def test_content_in_parts_is_joined() -> None:
    assert openai_like.text_of({"content": [{"type": "text", "text": "a"}, "b"]}) == "ab"
    with pytest.raises(UpstreamGarbled):
        openai_like.text_of({"content": [{"type": "image_url"}]})
