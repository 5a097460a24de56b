from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.shared.refusals import LONGEST, refusal, report_of, reported, told_in
from gateway.errors import (
    TABLE,
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamTooLarge,
)

SECRET = "my bank card"


def refused(status: int, answer: Any) -> GatewayError:
    return refusal(status, json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, UpstreamMisconfigured),
        (307, UpstreamMisconfigured),
        (401, UpstreamMisconfigured),
        (402, UpstreamMisconfigured),
        (403, UpstreamMisconfigured),
        (404, UpstreamNotFound),
        (405, UpstreamNotFound),
        (406, UpstreamNotFound),
        (409, UpstreamMisconfigured),
        (410, UpstreamNotFound),
        (415, UpstreamNotFound),
        (431, UpstreamNotFound),
        (408, UpstreamBusy),
        (413, UpstreamTooLarge),
        (418, UpstreamMisconfigured),
        (429, UpstreamBusy),
        (500, UpstreamError),
        (502, UpstreamError),
        (501, UpstreamRejected),
        (503, UpstreamBusy),
        (529, UpstreamBusy),
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


@pytest.mark.parametrize("status", [204, 301, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "answer",
    [
        {"detail": SECRET},
        {"detail": f"Wrong: '{SECRET}'"},
        {"error": {"message": SECRET, "param": SECRET}},
        {"object": "error", "message": SECRET, "code": 50001},
    ],
)
def test_words_go_on_only_where_the_request_is_at_fault(status: int, answer: dict[str, Any]) -> None:
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
        (40101, UpstreamMisconfigured),
        (40301, UpstreamNotFound),
        (40302, UpstreamRejected),
        (40303, ContextExceeded),
        (42901, UpstreamBusy),
        (42903, UpstreamBusy),
        (50001, UpstreamError),
        (50002, UpstreamError),
        (40001, UpstreamRejected),
        (50005, UpstreamError),
    ],
)
def test_fastchats_code_tells_the_true_status(code: Any, kind: type[GatewayError]) -> None:
    for status in (400, 500):
        error = refused(status, {"object": "error", "message": SECRET, "code": code})
        assert type(error) is kind
        assert SECRET not in error.message
    assert type(reported({"text": SECRET, "error_code": code})) is kind  # the form that its streams use


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1000, UpstreamMisconfigured),
        (1113, UpstreamMisconfigured),
        (1211, UpstreamNotFound),
        (1210, UpstreamRejected),
        (1214, UpstreamRejected),
        (1234, UpstreamError),
        (1261, ContextExceeded),
        (1301, UpstreamRejected),
        (1302, UpstreamBusy),
        (1305, UpstreamBusy),
    ],
)
def test_bigmodels_code_tells_whose_fault_it_is(code: int, kind: type[GatewayError]) -> None:
    for stated in (code, str(code)):
        for answer in (
            {"error": {"code": stated, "message": "x"}},
            {"code": stated, "msg": "x", "success": False},
        ):
            for status in (400, 429, 500):
                assert type(refused(status, answer)) is kind
            assert type(reported(answer)) is kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, UpstreamRejected),
        ({"error": {"object": "error", "message": "x", "code": 400}}, UpstreamRejected),
        ({"error": {"message": "x", "type": "InternalServerError", "code": 500}}, UpstreamError),
        ({"error": {"message": "x", "code": 503, "type": "unavailable_error"}}, UpstreamBusy),
        ({"error": {"message": "x", "code": "404"}}, UpstreamNotFound),
        ({"error": {"message": "x", "type": "invalid_request_error", "code": "model_not_found"}},
         UpstreamNotFound),
        ({"error": {"message": "x", "type": "invalid_request_error"}}, UpstreamRejected),
        ({"error": {"message": "x", "type": "rate_limit_error"}}, UpstreamBusy),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, UpstreamBusy),
        ({"error": "x", "error_type": "validation"}, UpstreamRejected),
        ({"error": "x", "error_type": "generation"}, UpstreamError),
        ({"error_type": "internal", "error_message": "x"}, UpstreamError),
        ({"detail": [{"loc": ["body", "n"], "msg": "x", "type": "y"}]}, UpstreamRejected),
        ({"detail": {"error": {"code": 400, "message": "x"}}}, UpstreamRejected),
        ({"message": "x", "code": 400}, UpstreamRejected),
        ({"code": "500", "msg": "x", "success": False}, UpstreamError),
        ({"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}, UpstreamRejected),
        ({"error": {"code": 400, "type": "exceed_context_size_error", "message": "x", "n_ctx": 8}},
         ContextExceeded),
        ({"error": {"code": 400, "message": "x", "n_prompt_tokens": 13392, "n_ctx": 8192}}, ContextExceeded),
        ({"error": {"message": "x"}, "choices": [{"finish_reason": "error"}]}, UpstreamError),
        ({"error": True, "message": "x"}, UpstreamError),
        ({"detail": "x"}, UpstreamError),
        ([{"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}], UpstreamRejected),
        ([{"error": {"code": 500, "message": "x", "status": "INTERNAL"}}], UpstreamError),
        ({"error": {"message": "x", "type": None, "param": None, "code": "invalid_value"}}, UpstreamRejected),
        ({"error": {"message": "x", "code": "unsupported_parameter"}}, UpstreamRejected),
        ({"error": {"message": "Missing 'role' in message: {}", "code": 500}}, UpstreamRejected),
        ({"error": {"message": "Expected 'messages' to be an array", "code": 500}}, UpstreamRejected),
        ({"error": {"message": "Missing tool function: {}", "code": 500}}, UpstreamRejected),
        ({"error": {"message": "Cannot use custom grammar constraints with tools.", "code": 500}},
         UpstreamRejected),
        ({"error": {"message": "top_logprobs requires logprobs to be set to true", "code": 500}},
         UpstreamRejected),
        ({"error": {"message": "Invalid url value", "code": 500}}, UpstreamRejected),
    ],
)  # fmt: skip
def test_a_report_in_a_200_is_read_like_one_with_a_status(answer: Any, kind: type[GatewayError]) -> None:
    assert type(reported(answer)) is kind
    assert type(report_of(json.dumps(answer))) is kind
    assert type(refused(500, answer)) is kind


@pytest.mark.parametrize(
    "value",
    [
        None, [], "error", 7, {},
        {"choices": []},
        {"choices": [], "error": None, "error_code": 0, "code": 500, "message": "x", "detail": "x"},
        {"error": {}, "a": 1},
        {"response": "x", "history": [], "status": 200, "time": ""},
        {"response": "x", "detail": "x"},
        {"usage": {"prompt_tokens": 1}},
        {"code": 200, "message": "ok"},
        {"code": 0, "msg": "success"},
        {"success": True},
    ],
)  # fmt: skip
def test_what_is_no_report_is_none(value: Any) -> None:
    assert reported(value) is None


@pytest.mark.parametrize(
    ("param", "kind"),
    [
        ("temperature", UpstreamRejected),
        ("messages[0].role", UpstreamRejected),
        (SECRET, UpstreamError),
        ("", UpstreamError),
    ],
)
def test_a_report_in_a_200_that_names_a_field_speaks_of_the_request(
    param: str, kind: type[GatewayError]
) -> None:
    answer = {"error": {"message": "x", "type": None, "param": param, "code": None}}
    assert type(reported(answer)) is kind
    assert type(report_of(json.dumps(answer))) is kind


def test_counts_that_llama_cpp_gives_go_on() -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 13392, "n_ctx": 8192}
    assert refused(400, {"error": error}).message == ContextExceeded.told(8192, 13392).message


def test_of_a_template_only_the_cause_goes_on() -> None:
    source = "While executing CallExpression in source:\n{{ raise_exception(x) }}\nError: Jinja Exception: "
    error = refused(
        500, {"error": {"code": 500, "message": source + "Roles must alternate at row 3, column 4"}}
    )
    assert error.message == "The backend refused the request: Roles must alternate"


def test_a_complaint_that_is_written_as_python_names_its_field() -> None:
    said = f"[{{'type': 'x', 'loc': ('body', 'messages', 0, 'role'), 'msg': 'No', 'input': {SECRET!r}}}]"
    for answer in (
        {"error": {"message": said, "code": 400}},
        {"object": "error", "message": said, "code": 40001},
    ):
        error = refused(400, answer)
        assert (error.param, error.message) == (
            "messages[0].role",
            "The backend refused messages[0].role: No",
        )


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_filter_in_words_or_by_name_is_told_as_one(status: int) -> None:
    for answer in (
        {"error": {"message": "x", "code": "content_filter"}},
        {"error": {"message": "x", "type": "content_policy_violation"}},
        {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}},
        {"error": {"message": "Input data may contain inappropriate content."}},
    ):
        error = refused(status, answer)
        assert (type(error), error.code) == (UpstreamRejected, "content_filter")
        assert "content_policy_violation" in error.message


@pytest.mark.parametrize(
    "begin",
    [
        "<html><head><title>",
        "<!DOCTYPE html>",
        "\r\n<!-- a proxy --><html>",
        "\ufeff<HTML>",
        "<?xml version='1.0'?>",
        "<center><h1>",
        "<p>",
        "<h2>",
        "</div>",
        "<pre>",
    ],
)
def test_html_says_nothing(begin: str) -> None:
    page = f"{begin}model not found: image_url: prompt is too long".encode()
    assert type(refusal(502, page)) is UpstreamError
    assert type(refusal(504, page)) is UpstreamError
    assert type(refusal(404, page)) is UpstreamNotFound
    assert refusal(400, page).message == "The backend refused the request."


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (1002, "rate limit exceeded(RPM)", UpstreamBusy),
        (1039, "token limit exceeded", UpstreamBusy),
        (1004, "login fail: Please carry the API secret key", UpstreamMisconfigured),
        (1008, "insufficient balance", UpstreamMisconfigured),
        (1026, "input new_sensitive", UpstreamRejected),
        (2013, "invalid params, context window exceeds limit", ContextExceeded),
        (2013, "invalid params, temperature must be above 0", UpstreamRejected),
        (2013, "invalid params, unknown model 'x'", UpstreamNotFound),
        (1000, "unknown error", UpstreamError),
        (1013, "internal error", UpstreamError),
    ],
)
def test_minimaxs_numbers_are_its_own(code: int, words: str, kind: type[GatewayError]) -> None:
    base = {"status_code": code, "status_msg": words}
    for answer in (
        {"base_resp": base},
        {"id": "x", "choices": None, "base_resp": base},
        {"choices": [], "base_resp": base},
    ):
        assert type(reported(answer)) is kind
        assert type(refused(500, answer)) is kind


def test_a_good_answer_of_minimax_is_no_report() -> None:
    assert reported({"choices": [{}], "base_resp": {"status_code": 0, "status_msg": ""}}) is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error_code": 336007, "error_msg": "the max input characters is 11200"}, ContextExceeded),
        ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, UpstreamBusy),
        ({"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, UpstreamMisconfigured),
        ({"Error": {"Code": "x", "Message": "prompt is too long"}}, ContextExceeded),
        ({"errorCode": "400", "errorMessage": "prompt is too long"}, ContextExceeded),
        ({"status": "error", "message": "prompt is too long"}, ContextExceeded),
        ({"ok": False, "message": "rate limited"}, UpstreamBusy),
        ([{"error": {"code": 400, "message": "prompt is too long"}}], ContextExceeded),
        ({"error": {"message": '{"error": {"message": "prompt is too long"}}'}}, ContextExceeded),
        ({"error": {"message": '"{\\"message\\": \\"prompt is too long\\"}"'}}, ContextExceeded),
    ],
)
def test_further_forms_are_read(answer: Any, kind: type[GatewayError]) -> None:
    assert type(reported(answer)) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("prompt is too long", ContextExceeded),
        ("rate limit reached", UpstreamBusy),
        ("Internal Server Error", None),
        ('{"choices":[{"message":{"content":"the prompt is too long', None),
        ("<p>prompt is too long", None),
    ],
)
def test_a_text_in_the_place_of_json_is_an_error_only_where_its_words_are_known(
    text: str, kind: type[GatewayError] | None
) -> None:
    error = told_in(text)
    assert (None if error is None else type(error)) is kind


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
    fields = {} if header is None else {"retry-after": header}
    assert refusal(503, b"", fields.get).retry_after == wait
    assert refusal(429, b"", fields.get).retry_after == wait


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


@given(JSON)
def test_a_report_in_a_200_becomes_an_error_of_the_table(value: Any) -> None:
    error = reported(value)
    assert error is None or type(error) in TABLE
    assert type(report_of(json.dumps(value))) in TABLE


@given(st.integers(100, 599), JSON, st.none() | st.text(max_size=12))
def test_every_answer_becomes_an_error_of_the_table(status: int, answer: Any, header: str | None) -> None:
    error = refusal(status, json.dumps(answer).encode(), lambda name: header)
    assert type(error) in TABLE
    assert error.row.status in (400, 413, 502, 503)
    assert len(error.message) < 900


@given(st.binary(max_size=60))
def test_no_bytes_break_it(body: bytes) -> None:
    assert type(refusal(422, body)) in TABLE


@given(st.text(alphabet="ab'\" \n`“”", max_size=40))
def test_no_quoted_text_comes_through(inside: str) -> None:
    error = refused(400, {"detail": f"Wrong value: '{SECRET}{inside}{SECRET}' here"})
    assert SECRET not in error.message


@pytest.mark.parametrize(
    ("status", "answer", "asked"),
    [
        (404, {"detail": "Not Found"}, "is the dialect or the url right?"),
        (
            404,
            {"error": {"message": "The model `x` does not exist.", "code": 404}},
            "is served_name or models right?",
        ),
        (400, {"detail": "Model not found in the model list, uid: x"}, "is served_name or models right?"),
        (415, {}, "is the dialect or the url right?"),
        (409, {}, "is the dialect or the url right?"),
        (403, {}, "is the backend's api_key right, and its account in order?"),
        (401, {}, "is the backend's api_key right, and its account in order?"),
    ],
)
def test_a_refusal_of_the_gateway_asks_the_operator_what_is_wrong(
    status: int, answer: dict[str, Any], asked: str
) -> None:
    error = refused(status, answer)
    assert isinstance(error, UpstreamMisconfigured)
    assert error.hint == f"answered {status}: {asked}"


@pytest.mark.parametrize("name", ["code", "status", "status_code", "http_code"])
@pytest.mark.parametrize(
    ("code", "kind"), [(400, UpstreamRejected), ("400", UpstreamRejected), (429, UpstreamBusy)]
)
def test_a_failure_in_a_200_is_known_by_its_code_wherever_it_stands(
    name: str, code: int | str, kind: type[GatewayError]
) -> None:
    assert type(reported({name: code, "message": "no"})) is kind
    assert reported({name: 200, "message": "fine"}) is None
    assert type(reported({"error": {name: code, "message": "no"}})) is kind
