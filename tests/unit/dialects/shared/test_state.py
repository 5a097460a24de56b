"""The meaning of chunks: finish reasons, calls and usage are decided in one place."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.shared.state import MOST_CHOICES, AnswerState, require_messages
from gateway.errors import (
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamTruncated,
)
from gateway.formats.events import Delta, Finish, Repair, ToolPiece, Usage

CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":1}'}}


def chunk(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def failed(code: int, message: str) -> dict[str, Any]:
    """Return a chunk whose choice reports an error, in the form of OpenRouter."""
    failing = {"index": 0, "finish_reason": "error", "error": {"code": code, "message": message}}
    return {"choices": [{**failing, "delta": {"content": ""}}]}


def told(*chunks: dict[str, Any], done: bool = True, clean: bool = True) -> list[Any]:
    state = AnswerState()
    deltas = [one.delta for item in chunks for one in state.take(item) if not one.delta.empty]
    finishes = state.finishes(done=done, clean=clean)
    return [*deltas, *state.rest(), *finishes]


@pytest.mark.parametrize(
    ("chunks", "done", "finish"),
    [
        pytest.param([chunk({"content": "a"}, "length")], False, "length", id="given"),
        pytest.param(
            [chunk({"content": "a"}, "stop"), chunk({"content": "a"}, "stop")], True, "stop", id="always"
        ),
        pytest.param(
            [chunk({}, "stop"), chunk({"content": "a"}, "length")], True, "length", id="a-better-one-later"
        ),
        pytest.param(
            [chunk({"content": "a"}, "length"), chunk({}, "stop")], True, "length", id="a-worse-one-later"
        ),
        pytest.param(
            [chunk({"content": "a"}, ""), chunk({}, "eos")], True, "stop", id="empty-then-another-word"
        ),
        pytest.param([chunk({"tool_calls": [CALL]}, "stop")], True, "tool_calls", id="stop-with-calls"),
        pytest.param([chunk({"tool_calls": [CALL]}, "length")], True, "length", id="calls-cut"),
        pytest.param([chunk({"content": "a"}, "tool_calls")], True, "stop", id="no-calls"),
    ],
)
def test_finish_is_told_once_and_fits_what_was_said(
    chunks: list[dict[str, Any]], done: bool, finish: Any
) -> None:
    assert [event for event in told(*chunks, done=done) if isinstance(event, Finish)] == [Finish(finish)]


def test_done_without_a_finish_is_a_stop_that_is_counted() -> None:
    assert told(chunk({"content": "a"})) == [Delta("a"), Repair("no_finish"), Finish("stop")]
    assert told(chunk({"tool_calls": [CALL]}))[-1] == Finish("tool_calls")


@pytest.mark.parametrize(
    ("chunks", "clean"),
    [
        pytest.param([chunk({"content": "a"})], True, id="no-finish"),
        pytest.param([chunk({}, "stop"), chunk({"content": "a"})], True, id="text-after-the-finish"),
        pytest.param(
            [chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "stop")], False, id="stop-says-nothing"
        ),
        pytest.param([], True, id="nothing"),
    ],
)
def test_an_end_that_proves_nothing_is_a_cut(chunks: list[dict[str, Any]], clean: bool) -> None:
    with pytest.raises(UpstreamTruncated):
        told(*chunks, done=False, clean=clean)


def test_nothing_but_done_is_no_answer() -> None:
    with pytest.raises(UpstreamEmpty):
        told()


def test_word_of_failure_is_an_error_and_an_unknown_one_is_noted() -> None:
    with pytest.raises(UpstreamError):
        told(chunk({"content": "a"}, "network_error"))
    with pytest.raises(UpstreamRejected, match="roles must alternate"):
        told(failed(400, "roles must alternate"))
    with pytest.raises(UpstreamBusy):
        told(failed(429, "too many"))
    repair = told(chunk({"content": "a"}, "zebra"))[1]
    assert repair.what == "unknown_finish"
    assert "zebra" in repair.note


@pytest.mark.parametrize(
    "last",
    [
        pytest.param({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, id="no-choices"),
        pytest.param({"choices": None, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, id="null"),
        pytest.param({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, id="empty"),
        pytest.param(
            chunk({}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 2}), id="with-the-finish"
        ),
    ],
)
def test_last_usage_that_can_be_true_counts(last: dict[str, Any]) -> None:
    state = AnswerState()
    for item in (chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1}), last):
        state.take(item)
    state.take({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 10**400}})
    assert state.usage == Usage(1, 2, "backend")


@pytest.mark.parametrize("bad", [{}, {"choices": {}}, {"choices": ["a"]}, {"choices": [{"delta": "oops"}]}])
def test_chunks_of_a_wrong_form_are_garbled(bad: dict[str, Any]) -> None:
    with pytest.raises(UpstreamGarbled):
        AnswerState().take(bad)


def test_number_of_choices_is_bounded() -> None:
    with pytest.raises(UpstreamGarbled):
        AnswerState().take({"choices": [{"index": at, "delta": {}} for at in range(MOST_CHOICES + 1)]})


def test_half_characters_and_reasoning() -> None:
    assert told(chunk({"content": "a\ud83d"}), chunk({"content": "\ude00"}, "stop")) == [
        Delta("a"), Delta("😀"), Finish("stop"),
    ]  # fmt: skip
    assert told(chunk({"content": "a\ud83d"}, "stop"))[:2] == [Delta("a"), Delta("\ufffd")]
    assert told(chunk({"reasoning": "a"}, "stop"))[0].extras == {"reasoning": "a", "reasoning_content": "a"}


def test_a_message_or_a_text_stands_for_a_delta() -> None:
    assert told({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]})[0] == Delta("a")
    assert told({"choices": [{"text": "a", "finish_reason": "stop"}]})[0] == Delta("a")


def test_calls_without_arguments_have_an_empty_object() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f"}}
    assert told(chunk({"tool_calls": [call]}, "stop"))[1] == Delta(tools=(ToolPiece(0, "{}"),))


@pytest.mark.parametrize("answer", [{"choices": []}, {"choices": [{"index": 0}]}])
def test_whole_answer_needs_a_choice_with_a_message(answer: dict[str, Any]) -> None:
    with pytest.raises(UpstreamGarbled):
        require_messages(AnswerState().take(answer))
