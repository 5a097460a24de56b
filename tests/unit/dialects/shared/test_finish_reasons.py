"""Finish reasons of many servers are mapped to OpenAI's; reasons that report a failure raise an error."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.shared.finish_reasons import LONGEST_WORD, reason_of, unknown_word
from gateway.dialects.shared.refusals import refusal
from gateway.errors import UpstreamError
from gateway.formats.events import FinishReason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        (" end_turn ", "stop"),
        ("eos", "stop"),
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
        ({"type": "stop", "matched": 2}, "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("max_length", "length"),
        ({"type": "length"}, "length"),
        ("tool_calls", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("SAFETY", "content_filter"),
        ("a word of tomorrow", "stop"),
        ("", None),
        ("null", None),
        (None, None),
        (7, None),
        ([], None),
    ],
)
def test_finish_reasons_are_those_of_openai(value: Any, reason: FinishReason | None) -> None:
    assert reason_of(value) == reason


@pytest.mark.parametrize("word", ["network_error", "abort", "error", "ERROR", "cancelled", "timeout"])
def test_words_of_failure_are_errors(word: str) -> None:
    with pytest.raises(UpstreamError):
        reason_of(word)


def test_only_unknown_words_are_told_and_shortened() -> None:
    assert unknown_word("stop") == unknown_word("eos") == unknown_word("") == unknown_word(None) == ""
    assert unknown_word("Zebra") == "zebra"
    assert len(unknown_word("z" * 1000)) == LONGEST_WORD


@pytest.mark.parametrize(
    ("status", "body", "refuses"),
    [
        (400, b'{"error": {"message": "Cannot use tools with stream"}}', True),
        (500, b'{"error": {"code": 500, "message": "Cannot use tools with stream"}}', True),
        (
            400,
            b'{"object": "error", "message": "Function calls are not supported in stream mode", "code": 1}',
            True,
        ),
        (422, b'{"detail": "Streaming is not supported when tools are given"}', True),
        (503, b"Cannot use tools with stream", False),
        (400, b'{"detail": "the tools have no name"}', False),
        (400, b'{"detail": "a stream of tools"}', False),
    ],
)
def test_refusal_of_streams_with_tools_is_known_by_its_words(status: int, body: bytes, refuses: bool) -> None:
    assert refusal(status, body).no_tool_streams is refuses
