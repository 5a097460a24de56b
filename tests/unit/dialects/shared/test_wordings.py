"""Known wordings of known servers, and the fault that each of them means."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.shared import wordings
from gateway.dialects.shared.refusals import refusal, report_of, reported
from gateway.errors import (
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRejected,
)

KNOWN = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
OVERFLOWS: list[tuple[str, int | None, int | None]] = KNOWN["context"]
"""Words, the length of the context, and the tokens of the request, as far as they are said."""
REQUESTS: list[str] = KNOWN["request"]
UNCONFIGURED: list[str] = KNOWN["configuration"]
SERVERS: list[str] = KNOWN["server"]
BUSY: list[str] = KNOWN["busy"]


def openai(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "", "param": None, "code": None}}


def flat(words: str) -> dict[str, Any]:
    return {"object": "error", "message": words, "type": "", "param": None, "code": ""}


FORMS: list[Any] = [
    pytest.param(openai, id="openai"),
    pytest.param(flat, id="flat"),
    pytest.param(lambda words: {"error": words, "error_type": "generation"}, id="error-type"),
    pytest.param(lambda words: {"detail": words}, id="detail"),
    pytest.param(lambda words: {"detail": openai(words)}, id="detail-of-an-error"),
    pytest.param(lambda words: {"error_message": words}, id="error-message"),
    pytest.param(lambda words: [openai(words)], id="list"),
    pytest.param(lambda words: json.dumps(openai(words)), id="nested-text"),
    pytest.param(lambda words: openai("Error: " + json.dumps(openai(words))), id="nested-behind-words"),
    pytest.param(lambda words: {"message": {"message": words}}, id="message-of-a-message"),
]


def in_stream(value: Any) -> GatewayError:
    if not isinstance(value, dict):
        return report_of(json.dumps(value))
    return reported(value) or report_of(json.dumps(value))


@pytest.mark.parametrize("status", [400, 413, 422, 500, 200])
@pytest.mark.parametrize("form", FORMS)
def test_every_known_overflow_in_every_form_is_one_error(form: Any, status: int) -> None:
    for words, context, tokens in OVERFLOWS:
        value = form(words)
        error = in_stream(value) if status == 200 else refusal(status, json.dumps(value).encode())
        assert type(error) is ContextExceeded, words
        assert error.message == ContextExceeded.told(context, tokens).message, words
        assert (error.param, error.code) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("words", [words for words, *_ in OVERFLOWS])
def test_an_overflow_in_plain_text_is_one_too(words: str) -> None:
    for status in (400, 500):
        assert type(refusal(status, words.encode())) is ContextExceeded
    assert type(report_of(words)) is ContextExceeded


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("words", REQUESTS)
def test_a_500_that_speaks_of_the_request_is_the_clients(words: str, form: Any) -> None:
    value = form(words)
    for error in (refusal(500, json.dumps(value).encode()), in_stream(value), refusal(500, words.encode())):
        assert type(error) is UpstreamRejected
        assert error.row.status == 400
        assert not error.row.blames
        assert not error.row.retryable
        assert "my bank card" not in error.message


@pytest.mark.parametrize("words", UNCONFIGURED)
@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_what_speaks_of_the_gateways_settings_is_not_the_clients(words: str, status: int) -> None:
    error = refusal(status, json.dumps(openai(words)).encode())
    assert isinstance(error, UpstreamMisconfigured)
    assert (error.row.blames, error.row.retryable) == (False, True)


@pytest.mark.parametrize("words", SERVERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_fault_of_the_server_stays_one(words: str, form: Any) -> None:
    for body in (json.dumps(form(words)).encode(), words.encode()):
        error = refusal(500, body)
        assert type(error) is UpstreamError
        assert error.row.blames


@pytest.mark.parametrize("words", BUSY)
def test_a_server_that_has_too_much_to_do_is_busy(words: str) -> None:
    for error in (refusal(500, json.dumps(openai(words)).encode()), in_stream(openai(words))):
        assert type(error) is UpstreamBusy


@pytest.mark.parametrize(
    "words",
    [
        "Request too large on tokens per minute (TPM): Limit 6000, Requested 7000; maximum input length is",
        "Too many tokens, please wait before trying again.",
        "Rate limit reached on tokens per minute: Limit 30000, Used 28000. Please try again in 4s.",
    ],
)
def test_a_rate_is_no_overflow(words: str) -> None:
    assert type(refusal(429, json.dumps(openai(words)).encode())) is UpstreamBusy


@pytest.mark.parametrize(
    "words",
    [
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576.",
        "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens",
        "image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes",
        "n must be 1",
    ],
)
def test_another_limit_is_no_overflow(words: str) -> None:
    assert type(refusal(400, json.dumps(openai(words)).encode())) is UpstreamRejected


EVERY = [
    *(wordings.OVERFLOW, wordings.NO_OVERFLOW, wordings.FILTERED, wordings.UNCONFIGURED, wordings.REQUEST),
    *(wordings.BUSY, *wordings.CONTEXT_COUNTS, *wordings.TOKEN_COUNTS),
]


@pytest.mark.parametrize(
    "piece",
    ["'", "a ", "role ", "model `", "n (", "1,", "exceeds the model maximum ", "only user ", "temperature ="],
)
def test_no_text_makes_a_search_long(piece: str) -> None:
    text = (piece * 2_000)[:2_000]
    began = time.process_time()
    for pattern in EVERY:
        pattern.search(text)
    assert time.process_time() - began < 1  # takes milliseconds, unless a pattern is worse than linear
