from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.formats import jsontext


def refusal(raw: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        jsontext.read(raw)
    return caught.value


def nested(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param(b"{}", {}, id="empty-object"),
        pytest.param(b' \n\t{"a": [1, 2.5, true, null]}\r\n', {"a": [1, 2.5, True, None]}, id="white-space"),
        pytest.param('{"a":"你好😀"}'.encode(), {"a": "你好😀"}, id="utf-8"),
        pytest.param(rb'{"a":"\ud83d\ude00"}', {"a": "😀"}, id="escaped-pair"),
        pytest.param(b'"\\u0000"', "\x00", id="escaped-nul"),
        pytest.param(b"-0.0", -0.0, id="minus-zero"),
        pytest.param(b"1e3", 1000.0, id="exponent"),
        pytest.param(b"9" * 40, int("9" * 40), id="long-integer"),
        pytest.param(b'{"a":{"x":1},"b":{"x":1}}', {"a": {"x": 1}, "b": {"x": 1}}, id="key-once-an-object"),
    ],
)
def test_well_formed_json_is_read(raw: bytes, value: Any) -> None:
    assert jsontext.read(raw) == value


@pytest.mark.parametrize(
    ("raw", "words", "param"),
    [
        pytest.param(b"", "empty", None, id="nothing"),
        pytest.param(b" \n", "empty", None, id="white-space-alone"),
        pytest.param(b"{", "not valid JSON", None, id="cut"),
        pytest.param(b"{'a':1}", "not valid JSON", None, id="single-quotes"),
        pytest.param(b'{"a":1,}', "not valid JSON", None, id="trailing-comma"),
        pytest.param(b'{"a":1} {}', "not valid JSON", None, id="two-values"),
        pytest.param(b'{"a":"x\ny"}', "not valid JSON", None, id="raw-control-character"),
        pytest.param(b"\xef\xbb\xbf{}", "byte order mark", None, id="byte-order-mark"),
        pytest.param("{}".encode("utf-16"), "not UTF-8", None, id="utf-16"),
        pytest.param('{"a":"你好"}'.encode("gbk"), "not UTF-8", None, id="gbk"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', "not UTF-8", None, id="surrogate-in-utf-8"),
        pytest.param(b'{"a":NaN}', "finite", "a", id="nan"),
        pytest.param(b'{"a":[1,-Infinity]}', "finite", "a[1]", id="infinity"),
        pytest.param(b'{"a":{"b":1e999}}', "finite", "a.b", id="overflow"),
        pytest.param(b'{"a":' + b"9" * 41 + b"}", "ordinary size", "a", id="integer-of-41-digits"),
        pytest.param(b'{"a":1,"b":2,"a":3}', 'key "a" stands twice', "a", id="key-twice"),
        pytest.param(b'{"m":[{"x":1,"x":1}]}', 'key "x" stands twice', "m[0].x", id="key-twice-below"),
        pytest.param(b'{"a":1,"\\u0061":2}', 'key "a" stands twice', "a", id="key-twice-escaped"),
        pytest.param(nested(65), "deeper than 64", None, id="just-too-deep"),
        pytest.param(nested(5_000), "deeper than 64", None, id="far-too-deep"),
        pytest.param(nested(100_000), "more than 20000 values", None, id="deep-and-many"),
        pytest.param(b"[" + b"[]," * 100_000 + b"[]]", "more than 20000 values", None, id="many-lists"),
        pytest.param(b"[" + b"[]," * 13_000 + b"[]]", "more than 20000 values", None, id="short-lists"),
        pytest.param(b"[" + b"1," * 100_000 + b"1]", "more than 20000 values", None, id="many-numbers"),
        pytest.param(b"[" + b'"",' * 100_000 + b'""]', "more than 20000 values", None, id="many-texts"),
    ],
)
def test_what_is_not_strict_json_is_refused_in_words(raw: bytes, words: str, param: str | None) -> None:
    error = refusal(raw)
    assert words in error.message
    if "deeper" not in words:
        assert error.param == param


def test_nesting_is_taken_down_to_its_limit() -> None:
    assert jsontext.read(nested(64)) == json.loads(nested(64))
    wide = b"[" + b",".join([b"{}"] * 100) + b"]"
    assert len(jsontext.read(wide)) == 100


def test_a_syntax_error_tells_its_place() -> None:
    assert "line 2, column 1" in refusal(b'{"a":1,\n]').message


def test_a_bad_byte_tells_its_place() -> None:
    assert "byte 6" in refusal(b'{"a":"\xff"}').message


def test_a_doubled_key_among_very_many_is_found_in_no_time() -> None:
    keys = ",".join(f'"key{number}":1' for number in range(19_000))
    assert refusal(f'{{{keys},"key18999":2}}'.encode()).param == "key18999"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[{,", id="brackets"),
        pytest.param('",', id="quotes"),
        pytest.param('\\",', id="backslashes-before-quotes"),
        pytest.param("\\,", id="backslashes"),
        pytest.param("你,", id="chinese"),
    ],
)
def test_what_stands_in_texts_is_not_counted_as_values(text: str) -> None:
    value = {"x": [text * 100_000, text * 7, "\\" * 200_000, text * 100_001]}
    assert jsontext.read(json.dumps(value).encode()) == value


def test_values_between_long_texts_are_counted() -> None:
    text = json.dumps("[" * 70_000 + '\\"')
    few = f"[{text},{'1,' * 15_000}{text}]".encode()
    assert len(jsontext.read(few)) == 15_002
    many = f"[{text},{'1,' * 15_000}{text},{'1,' * 15_000}{text}]".encode()
    assert "more than 20000 values" in refusal(many).message


@pytest.mark.parametrize("raw", [b"[]", b'"a"', b"1", b"null"])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="must be a JSON object"):
        jsontext.read_object(raw)


def test_a_body_that_is_an_object_is_read() -> None:
    assert jsontext.read_object(b'{"a":1}') == {"a": 1}


def test_backends_are_read_leniently() -> None:
    assert jsontext.read_lenient(b'{"a":1,"a":2}') == {"a": 2}
    assert math.isnan(jsontext.read_lenient("NaN"))
    assert jsontext.read_lenient(b"[1" + b"0" * 5000 + b",7]") == [math.inf, 7]


@pytest.mark.parametrize(
    ("raw", "standard"),
    [
        (b'{"a":1}', True),
        (b'{"a":"NaN, -Infinity"}', True),
        (b'{"a":NaN}', False),
        (b'{"a":"NaN","b":[-Infinity]}', False),
        (b"[Infinity]", False),
    ],
)
def test_what_is_no_number_of_json_is_known(raw: bytes, standard: bool) -> None:
    assert jsontext.is_standard(raw) == standard


@pytest.mark.parametrize("raw", [b"", b"<html>", b"{", nested(100_000), b"\xff", "\x00"])
def test_what_a_backend_should_not_send_is_a_value_error(raw: bytes | str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever its words, they reach nobody
        jsontext.read_lenient(raw)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        pytest.param({"a": [1, None, True]}, b'{"a":[1,null,true]}', id="compact"),
        pytest.param("你好", '"你好"'.encode(), id="utf-8"),
        pytest.param("a\nb\u2028", '"a\\nb\u2028"'.encode(), id="one-line"),
        pytest.param("a\ud800b", '"a\ufffdb"'.encode(), id="lone-surrogate"),
        pytest.param({"\udfff": 1}, '{"\ufffd":1}'.encode(), id="lone-surrogate-in-a-key"),
    ],
)
def test_values_are_written_as_compact_utf_8(value: Any, raw: bytes) -> None:
    assert jsontext.write(value) == raw


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_of_json_is_written_as_null(value: float) -> None:
    assert jsontext.write({"a": [value, 1.5]}) == b'{"a":[null,1.5]}'


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param((), None, id="the-body"),
        pytest.param(("messages", 0, "content", 1, "type"), "messages[0].content[1].type", id="deep"),
        pytest.param((0, "a"), "[0].a", id="list-first"),
        pytest.param(("x" * 100,), "x" * 64, id="long-key"),
        pytest.param(("a\ud800",), "a\ufffd", id="odd-key"),
    ],
)
def test_places_are_named_as_sdk_users_read_them(path: tuple[str | int, ...], name: str | None) -> None:
    assert jsontext.name_of(path) == name


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (rb'{"a":"x\ud800"}', {"a": "x\ufffd"}),
        (rb'{"a":["\udc00\ud800"]}', {"a": ["\ufffd\ufffd"]}),
        (rb'{"\udfff":1}', {"\ufffd": 1}),
        (rb'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}),
        (rb'{"a":"\\ud800"}', {"a": r"\ud800"}),
    ],
)
def test_half_of_a_surrogate_pair_becomes_the_replacement_character(raw: bytes, value: Any) -> None:
    assert jsontext.read(raw) == value


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [-Infinity]}', "{bad", "", "[" * 100_000])
def test_what_a_model_wrote_is_refused_where_it_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"not JSON|Expecting|nested"):
        jsontext.read_finite(text)


def test_what_a_model_wrote_may_hold_half_a_character() -> None:
    assert jsontext.read_finite('{"a": "\\ud800"}') == {"a": "\ud800"}
