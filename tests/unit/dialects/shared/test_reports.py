from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.shared.reports import NOTHING, WORDS, FailureReport, read_body, read_text, read_value


@pytest.mark.parametrize(
    ("value", "report"),
    [
        ({}, NOTHING),
        ([], NOTHING),
        (None, NOTHING),
        (7, NOTHING),
        ({"error": {}}, NOTHING),
        ({"error": {"message": "a", "code": 400}}, FailureReport("a", status=400)),
        ({"error": {"message": "a", "code": "400"}}, FailureReport("a", status=400)),
        ({"error": {"message": "a", "code": True}}, FailureReport("a")),
        ({"message": "a", "code": 40303}, FailureReport("a", number=40303)),
        ({"code": "1261", "msg": "a"}, FailureReport("a", number=1261)),
        ({"detail": "a"}, FailureReport("a")),
        ({"detail": {"message": "a"}, "status": 404}, FailureReport("a", status=404)),
        ([{"error": {"message": "a"}}], FailureReport("a")),
        ({"errors": ["a", "b"]}, FailureReport("a")),
        ({"message": ["a", "b"], "statusCode": 400}, FailureReport("a")),
        ({"error": {"param": "n", "message": "a"}}, FailureReport("a", param="n")),
        (
            {"error": {"type": "BadRequestError"}},
            FailureReport(status=400, names=frozenset({"badrequesterror"})),
        ),
        ({"n_ctx": 8, "n_prompt_tokens": 9}, FailureReport(context=8, tokens=9)),
        ({"n_ctx": -8, "n_prompt_tokens": "9"}, NOTHING),
    ],
)
def test_each_form_is_read(value: Any, report: FailureReport) -> None:
    assert read_value(value) == report
    assert read_body(json.dumps(value).encode()) == report


def test_json_inside_a_text_is_read_however_it_is_wrapped() -> None:
    inner = json.dumps({"error": {"message": "a", "code": 400}})
    for text in (
        inner,
        f"Backend said: {inner}",
        json.dumps({"detail": inner}),
        json.dumps(json.dumps(inner)),
    ):
        assert read_text(text) == FailureReport("a", status=400)


def test_a_text_that_is_none_of_this_is_bare() -> None:
    assert read_text("oops") == FailureReport("oops", bare=True)
    assert read_body(b"oops \xff") == FailureReport("oops \ufffd", bare=True)
    assert read_text("Error code: 404 - {'error': 'x'}").status == 404


def test_markup_says_nothing() -> None:
    assert read_body(b" <!DOCTYPE html><html>500 Error code: 400</html>") == NOTHING


def test_nesting_without_end_is_no_trouble() -> None:
    value: Any = "a"
    for _ in range(50):
        value = {"error": value}
    assert read_value(value) == NOTHING
    assert isinstance(read_body(b'{"error":' * 50_000), FailureReport)


def test_of_a_long_text_both_ends_are_kept() -> None:
    words = read_value({"message": "a" * WORDS + "b" * WORDS}).words
    assert len(words) <= WORDS + 3
    assert (words[0], words[-1]) == ("a", "b")
