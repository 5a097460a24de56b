"""Mistakes that people make in TOML: the place, and the line as it was meant."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.syntax import SyntaxMistake, mistake


def found(text: str) -> SyntaxMistake:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    return mistake(text, caught.value)


@pytest.mark.parametrize(
    ("line", "better"),
    [
        pytest.param('name = "gpu-0', 'name = "gpu-0"', id="no-closing-quote"),
        pytest.param('name = gpu-0"', 'name = "gpu-0"', id="no-opening-quote"),
        pytest.param("name = gpu-0", 'name = "gpu-0"', id="no-quotes"),
        pytest.param("name = gpu-0  # one", 'name = "gpu-0"  # one', id="no-quotes-but-a-remark"),
        pytest.param("name = 'gpu-0", "name = 'gpu-0'", id="no-closing-single-quote"),
        pytest.param("url = http://127.0.0.1:8001", 'url = "http://127.0.0.1:8001"', id="bare-url"),
        pytest.param("name = “gpu-0”", 'name = "gpu-0"', id="chinese-quotes"),
        pytest.param("name = ‘gpu-0’", "name = 'gpu-0'", id="chinese-single-quotes"),
        pytest.param("name = 「gpu-0」", 'name = "gpu-0"', id="corner-quotes"),
        pytest.param('name = "gpu-0”', 'name = "gpu-0"', id="one-chinese-quote"),
        pytest.param("name ＝ “gpu-0”", 'name = "gpu-0"', id="full-width-equals"),
        pytest.param("name： “gpu-0”", 'name = "gpu-0"', id="full-width-colon"),
        pytest.param('ｎａｍｅ = "a"', 'name = "a"', id="full-width-letters"),
        pytest.param("slots = １", "slots = 1", id="full-width-digit"),
        pytest.param("name\u3000=\u3000“gpu-0”", 'name = "gpu-0"', id="full-width-blanks"),
        pytest.param("models = [“a”，“b”]", 'models = ["a","b"]', id="full-width-comma"),
        pytest.param("models ＝ ［“a”、“b”］", 'models = ["a","b"]', id="full-width-brackets"),
        pytest.param('models = ["a" "b"]', 'models = ["a", "b"]', id="no-comma"),
        pytest.param('models = ["a", "b"', 'models = ["a", "b"]', id="no-closing-bracket"),
        pytest.param("models = [a, b]", 'models = ["a", "b"]', id="items-without-quotes"),
        pytest.param('models = ["a", "b]', 'models = ["a", "b"]', id="item-without-a-quote"),
        pytest.param("probes = True", "probes = true", id="true"),
        pytest.param("probes = no", "probes = false", id="no"),
        pytest.param('name: "gpu-0"', 'name = "gpu-0"', id="colon"),
        pytest.param("name: gpu-0", 'name = "gpu-0"', id="yaml"),
        pytest.param('name "gpu-0"', 'name = "gpu-0"', id="no-equals"),
        pytest.param('name = "gpu-0",', 'name = "gpu-0"', id="json-comma"),
        pytest.param('name = "gpu-0";', 'name = "gpu-0"', id="semicolon"),
        pytest.param('name = "gpu-0"；', 'name = "gpu-0"', id="full-width-semicolon"),
        pytest.param("[[backends]", "[[backends]]", id="header-without-a-bracket"),
        pytest.param("[server", "[server]", id="table-without-a-bracket"),
        pytest.param("［server］", "[server]", id="full-width-table"),
        pytest.param("【server】", "[server]", id="lenticular-table"),
        pytest.param("slots = 2；", "slots = 2", id="full-width-semicolon-behind-a-number"),
        pytest.param("slots = 2，", "slots = 2", id="full-width-comma-behind-a-number"),
        pytest.param("slots = 1,000", "slots = 1000", id="thousands"),
        pytest.param("slots = 二", "slots = 2", id="chinese-numeral"),
        pytest.param("slots = two", "slots = 2", id="number-as-a-word"),
        pytest.param("slots = １２", "slots = 12", id="full-width-digits"),
        pytest.param("http://127.0.0.1:8001", 'url = "http://127.0.0.1:8001"', id="url-alone"),
        pytest.param("// remark", "# remark", id="remark-of-c"),
        pytest.param("; remark", "# remark", id="remark-of-ini"),
        pytest.param("-- remark", "# remark", id="remark-of-sql"),
        pytest.param("x = {a = 1,}", "x = {a = 1}", id="comma-at-the-end-of-a-table"),
        pytest.param("slots = 08", "slots = 8", id="leading-zero"),
        pytest.param('ca_file = "C:\\users\\x"', "ca_file = 'C:\\users\\x'", id="backslashes"),
    ],
)
@pytest.mark.parametrize("rest", ["", '\n[log]\nlevel = "info"\n', "\n"])
def test_line_is_suggested_as_it_was_meant(line: str, better: str, rest: str) -> None:
    one = found(f"# remark\n{line}{rest}")
    assert one.line == 2, one
    assert one.message.endswith(f"; write: {better}"), one


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[server]\n[server]\n", 2, "this table is written twice"),
        ("a = 1\na = 2\n", 2, "this key is written twice"),
        ("a = 1\na = 2", 2, "this key is written twice"),
        ("@@@@\n", 1, "Invalid statement"),
        ('{"backends": []}\n', 1, "this is JSON"),
        ("backends:\n  - name: a\n", 1, "this is YAML"),
        ("a = 1\nserver:\n  listen: b\n", 2, "this is YAML"),
        ("a = 1\n<<<<<<< HEAD\n", 2, "a conflict of a merge"),
        ("a = null\n", 1, "there is no value"),
        ("a = None # x\n", 1, "there is no value"),
        ("a =\nb = 1\n", 1, "there is no value"),
        ("keepalive = 75s\n", 1, "a number has no unit"),
        ("a = 1\nmax_body = 32 MiB # x\n", 2, "a number has no unit"),
        ("a = 1\nslots = 2 3\n", 2, "there are two values"),
        ("slots = 2-3\n", 1, "there are two values"),
        ("= 3\n", 1, "the key is missing"),
        ("probes\n", 1, "there is a key without a value; write: probes = ..."),
        ("sk-1234\n", 1, "there is a key without a value; write: KEY = ..."),
        ('"m2"\n', 1, "a text stands alone"),
        ('名称 = "m"\n', 1, "keys have English names"),
        ('a = "\x01"\n', 1, "Illegal character"),
    ],
)
def test_other_mistakes_keep_their_place(text: str, line: int, words: str) -> None:
    one = found(text)
    assert (one.line, one.message.startswith(words)) == (line, True), one


def test_column_is_where_the_parser_stopped() -> None:
    assert (found("name = “a”").column, found("name = “a”").line) == (8, 1)


@pytest.mark.parametrize("line", ["api_key = “hunter2”", 'key = "hunter2', "url = “http://me:hunter2@h”"])
def test_line_that_may_hold_a_secret_is_not_repeated(line: str) -> None:
    assert "hunter2" not in found(line).message


@given(st.text(alphabet="ab=\"'[]{}#,. \n“”，＝:;\\1", max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        one = mistake(text, error)
        assert 1 <= one.line <= text.count("\n") + 1
        assert one.message
