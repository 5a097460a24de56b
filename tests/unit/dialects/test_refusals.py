from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.refusals import LONGEST, refusal, seconds
from gateway.errors import (
    TABLE,
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRejected,
)

SECRET = "my bank card"


def refused(status: int, answer: Any) -> GatewayError:
    return refusal(status, json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, UpstreamError),
        (307, UpstreamError),
        (401, UpstreamError),
        (402, UpstreamError),
        (403, UpstreamError),
        (404, UpstreamNotFound),
        (405, UpstreamNotFound),
        (413, UpstreamError),
        (429, UpstreamBusy),
        (500, UpstreamError),
        (502, UpstreamError),
        (503, UpstreamBusy),
        (504, UpstreamError),
        (204, UpstreamError),
        (400, UpstreamRejected),
        (422, UpstreamRejected),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", SECRET.encode(), b"\xff", b"[]", b"null", json.dumps({"x": SECRET}).encode()]
)
def test_the_status_decides_where_the_body_says_nothing_we_read(
    status: int, kind: type[GatewayError], body: bytes
) -> None:
    error = refusal(status, body)
    assert type(error) is kind
    assert SECRET not in error.message
    assert error.param is None


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "answer",
    [
        {"detail": SECRET},
        {"detail": [{"msg": SECRET, "loc": ["body", SECRET]}]},
        {"error": {"message": SECRET, "param": SECRET}},
        {"object": "error", "message": SECRET, "code": 40303},
    ],
)
def test_only_a_refusal_of_the_request_is_read_at_all(status: int, answer: dict[str, Any]) -> None:
    error = refused(status, answer)
    assert not isinstance(error, UpstreamRejected | ContextExceeded)
    assert SECRET not in error.message
    assert error.param is None


def problem(msg: Any, *loc: str | int, **more: Any) -> dict[str, Any]:
    return {"detail": [{"loc": list(loc), "msg": msg, **more}]}


@pytest.mark.parametrize(
    ("answer", "param", "message"),
    [
        pytest.param(
            problem("str type expected", "body", "messages", 0, "content", type="type_error.str"),
            "messages[0].content",
            "The backend refused messages[0].content: str type expected",
            id="v2o_parts",
        ),
        pytest.param(
            problem(
                "Input should be a valid string",
                "body",
                "messages",
                0,
                "content",
                type="string_type",
                input=[{"type": "text", "text": SECRET}],
            ),
            "messages[0].content",
            "The backend refused messages[0].content: Input should be a valid string",
            id="glm4_parts-never-the-input",
        ),
        pytest.param(
            problem(
                "unexpected value; permitted: 'user', 'assistant', 'system'",
                "body",
                "messages",
                1,
                "role",
                type="value_error.const",
                ctx={"given": SECRET, "permitted": ["user"]},
            ),
            "messages[1].role",
            "The backend refused messages[1].role: "
            "unexpected value; permitted: 'user', 'assistant', 'system'",
            id="v2o_toolrole-never-what-was-given",
        ),
        pytest.param(
            problem(
                "Input should be 'system', 'user' or 'assistant'",
                "body",
                "messages",
                1,
                "role",
                type="literal_error",
                input=SECRET,
            ),
            "messages[1].role",
            "The backend refused messages[1].role: Input should be 'system', 'user' or 'assistant'",
            id="cppo_tool",
        ),
        pytest.param(
            problem(f"Value error, no such thing as '{SECRET}'", "body", "x", type="value_error"),
            "x",
            "The backend refused x: Value error, no such thing as …",
            id="a-validator-of-its-own",
        ),
        pytest.param(
            problem(f"Input tag '{SECRET}' found using 'type'", "body", "x", type="union_tag_invalid"),
            "x",
            "The backend refused x: Input tag …",
            id="a-tag-of-the-clients",
        ),
        pytest.param(
            problem("JSON decode error", "body", 12, type="json_invalid"),
            None,
            "The backend refused the request: JSON decode error",
            id="a-character-is-no-field",
        ),
        pytest.param(problem(None, "body", "x"), "x", "The backend refused x.", id="no-words"),
        pytest.param(
            {"detail": [{"msg": "bad"}]}, None, "The backend refused the request: bad", id="no-place"
        ),
        pytest.param(
            problem("bad", "query", "x"), "query.x", "The backend refused query.x: bad", id="not-in-the-body"
        ),
        pytest.param(
            {"detail": "Invalid request"},
            None,
            "The backend refused the request: Invalid request",
            id="v3_lastasst",
        ),
        pytest.param(
            {"detail": "empty messages"},
            None,
            "The backend refused the request: empty messages",
            id="cppo_empty",
        ),
        pytest.param(
            {"detail": f"Unknown role:\n “{SECRET}”"},
            None,
            "The backend refused the request: Unknown role: …",
            id="quotes-are-taken-out",
        ),
        pytest.param(
            {"error": {"message": f"Invalid value: '{SECRET}'.", "param": "stop", "code": None}},
            "stop",
            "The backend refused stop: Invalid value: ….",
            id="openai",
        ),
        pytest.param(
            {"error": {"message": None, "param": 7}},
            None,
            "The backend refused the request.",
            id="openai-empty",
        ),
        pytest.param(
            {"object": "error", "message": f"[{{'input': '{SECRET}'}}]", "code": 40001},
            None,
            "The backend refused the request.",
            id="fastchat-validation-holds-the-whole-input",
        ),
        pytest.param(
            {
                "object": "error",
                "message": f"{SECRET} is greater than the maximum of 2 - 'temperature'",
                "code": 40302,
            },
            "temperature",
            "The backend refused temperature: The value is out of range.",
            id="fastchat-range",
        ),
        pytest.param(
            {"object": "error", "message": None, "code": 40302},
            None,
            "The backend refused the request: The value is out of range.",
            id="fastchat-range-without-a-name",
        ),
    ],
)
def test_a_refused_request_is_told_in_the_validators_words(
    answer: dict[str, Any], param: str | None, message: str
) -> None:
    error = refused(422, answer)
    assert type(error) is UpstreamRejected
    assert (error.param, error.message) == (param, message)
    assert SECRET not in error.message


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"object": "error", "message": SECRET, "code": 40303}, id="fastchat"),
        pytest.param({"error": {"message": SECRET, "code": "context_length_exceeded"}}, id="openai"),
        pytest.param(
            {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}},
            id="vllm",
        ),
    ],
)
def test_a_prompt_too_long_for_the_backend_is_told_as_such(answer: dict[str, Any]) -> None:
    error = refused(400, answer)
    assert type(error) is ContextExceeded
    assert (error.param, error.code) == ("messages", "context_length_exceeded")


def test_a_content_filter_keeps_its_word_and_no_other_word_is_kept() -> None:
    for code, kept in (("content_filter", "content_filter"), (SECRET, None), (7, None)):
        error = refusal(400, json.dumps({"error": {"message": "no", "code": code}}).encode())
        assert (type(error), error.code) == (UpstreamRejected, kept)
    assert SECRET not in error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (40101, UpstreamError),
        (40301, UpstreamError),
        (42901, UpstreamBusy),
        (50001, UpstreamError),
        (50002, UpstreamError),
        (40001, UpstreamRejected),
        (40400, UpstreamRejected),
        ("x", UpstreamRejected),
        (None, UpstreamRejected),
    ],
)
def test_fastchats_code_tells_the_true_status(code: Any, kind: type[GatewayError]) -> None:
    error = refused(400, {"object": "error", "message": SECRET, "code": code})
    assert type(error) is kind
    assert SECRET not in error.message


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("2", 2.0),
        (" 2 ", 2.0),
        ("2.5", 2.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("61", 60.0),
        ("1000000000", 60.0),
        ("1e9", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2026 07:28:00", None),
        ("Wed, 99 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_between_0_and_60(header: str | None, wait: float | None) -> None:
    assert seconds(header) == wait
    assert refusal(503, b"", header).retry_after == wait
    assert refusal(429, b"", header).retry_after == wait


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        ("Wed, 21 Oct 2026 07:27:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:29:00 GMT", 0.0),
        ("Tue, 20 Oct 2026 07:28:00 GMT", 60.0),
        ("yesterday", 60.0),
        (None, 60.0),
    ],
)
def test_a_moment_in_retry_after_is_told_by_the_servers_own_clock(date: str | None, wait: float) -> None:
    header = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert seconds(header, date) == wait
    assert refusal(503, b"", header, date).retry_after == wait


def test_long_words_are_cut() -> None:
    error = refused(400, {"detail": "word " * 500})
    assert len(error.message) <= LONGEST + len("The backend refused the request: ")
    assert error.message.endswith("…")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["detail", "error", "object", "code", "message", "param", "msg", "loc", "type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(100, 599), JSON, st.none() | st.text(max_size=12))
def test_every_answer_becomes_an_error_of_the_table(status: int, answer: Any, header: str | None) -> None:
    error = refusal(status, json.dumps(answer).encode(), header)
    assert type(error) in TABLE
    assert error.row.status in (400, 502, 503)
    assert len(error.message) < 900


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_no_header_breaks_it(header: str, date: str | None) -> None:
    wait = seconds(header, date)
    assert wait is None or 0 <= wait <= 60


@given(st.binary(max_size=60))
def test_no_bytes_break_it(body: bytes) -> None:
    assert type(refusal(422, body)) in TABLE


@given(st.text(alphabet="ab'\" \n`“”", max_size=40))
def test_no_quoted_text_comes_through(inside: str) -> None:
    error = refused(400, {"detail": f"Wrong value: '{SECRET}{inside}{SECRET}' here"})
    assert SECRET not in error.message
