"""A large body is read like a small one, in short steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.formats import jsontext, large, openai
from gateway.formats.native import read_request

TEXT = 600_000


def of_text(raw: bytes) -> bytes:
    return b'{"model":"m","messages":[{"role":"user","content":"' + raw + b'"}]}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"x" * TEXT, id="plain"),
        pytest.param("你".encode() * (TEXT // 3), id="utf-8"),
        pytest.param("😀".encode() * (TEXT // 4), id="utf-8-of-four-bytes"),
        pytest.param(rb"\u4f60" * (TEXT // 6), id="escapes"),
        pytest.param(rb"\ud83d\ude00" * (TEXT // 12), id="escaped-pairs"),
        pytest.param(rb"x\ud83d\ude00" * (TEXT // 13), id="escaped-pairs-and-letters"),
        pytest.param(rb"\ud83d" * (TEXT // 6), id="first-halves-of-pairs"),
        pytest.param(rb"\ude00" * (TEXT // 6), id="second-halves-of-pairs"),
        pytest.param(rb"\n" * (TEXT // 2), id="line-ends"),
        pytest.param(rb"\\" * (TEXT // 2), id="backslashes"),
        pytest.param(b"x" + rb"\\" * (TEXT // 2), id="backslashes-at-odd-places"),
        pytest.param(rb"\"" * (TEXT // 2), id="quotes"),
        pytest.param(b",[{:" * (TEXT // 4), id="what-looks-like-structure"),
        pytest.param(rb"\u0000" * (TEXT // 6), id="nuls"),
    ],
)
def test_a_large_text_is_read_as_a_small_one_and_written_again(text: bytes) -> None:
    raw = of_text(text)
    value = large.read(raw).value
    assert value == jsontext.read(raw)
    assert jsontext.write(value, large=True) == jsontext.write(value)
    assert openai.read_chat(raw).messages[0].content == value["messages"][0]["content"]


def test_a_request_that_says_what_its_bytes_say_keeps_them() -> None:
    plain, half = of_text(b"x" * TEXT), of_text(b"x" * TEXT + rb"\ud800")
    assert openai.read_chat(plain).raw == plain
    assert (openai.read_chat(half).raw, openai.read_chat(half).large) == (b"", True)
    assert openai.read_chat(plain).of("other").large
    assert openai.read_chat(plain).single().large


def test_a_large_native_request_is_read_alike() -> None:
    asked = read_request(json.dumps({"prompt": "x" * TEXT, "history": [["a", "b"]]}).encode())
    assert (len(asked.prompt), asked.history, asked.large) == (TEXT, (("a", "b"),), True)


LONG_TEXT = b'"' + b"x" * TEXT + b'"'


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b'{"a":"' + b"x" * TEXT, "not valid JSON", id="open-text"),
        pytest.param(b'{"a":' + LONG_TEXT, "not valid JSON", id="open-object"),
        pytest.param(b'{"a":"' + b"x" * TEXT + b'\n"}', f"(byte {TEXT + 6})", id="line-end-in-a-text"),
        pytest.param(b'{"a":"' + b"x" * TEXT + b'\\x"}', f"(byte {TEXT + 6})", id="no-escape"),
        pytest.param(b'{"a":"' + b"x" * TEXT + b'\xff"}', f"(byte {TEXT + 6})", id="no-utf-8"),
        pytest.param(b'{"a":"' + b"\xff" * TEXT + b'"}', "not UTF-8", id="nothing-of-utf-8"),
        pytest.param(b'{"a":' + b"9" * TEXT + b"}", "Numbers must be finite", id="digits"),
        pytest.param(b'{"a":' + LONG_TEXT + b',"b":1e999}', "Numbers must be finite", id="infinity"),
        pytest.param(b'{"a":' + LONG_TEXT + b',"a":1}', 'The key "a" stands twice', id="key-twice"),
        pytest.param(b"{%b:1,%b:2}" % (LONG_TEXT, LONG_TEXT), "stands twice", id="long-key-twice"),
        pytest.param(b'{"a":' + LONG_TEXT + b',"b":' + b"[" * 70 + b"]" * 70 + b"}", "deeper", id="deep"),
        pytest.param(b"[" + b'"",' * (TEXT // 3), "more than 20000 values", id="many-texts"),
        pytest.param(b"[" + b"1," * (TEXT // 2) + b"1]", "more than 20000 values", id="many-numbers"),
        pytest.param(b" " * TEXT, "empty", id="blanks"),
        pytest.param(b"\xef\xbb\xbf{}" + b" " * TEXT, "byte order mark", id="byte-order-mark"),
        pytest.param(b'"' * TEXT, "The body", id="quotes"),
    ],
)
def test_what_is_wrong_with_a_large_body_is_said(raw: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        large.read(raw)
    assert message in caught.value.message


def test_blanks_and_numbers_at_the_ends_of_pieces_stay_what_they_are() -> None:
    blanks = b" " * (large.PIECE - 9)
    raw = b'{"a":' + blanks + b"123456,\n\n" + blanks + b'"b":[12345678]' + b"\t" * TEXT + b"}"
    assert large.read(raw).value == {"a": 123456, "b": [12345678]}


TEXTS = st.text(st.sampled_from('ab"\\\n\x00/,[{你😀\ud83d\ude00'), max_size=60)
VALUES = st.recursive(TEXTS | st.integers(), lambda some: st.lists(some) | st.dictionaries(TEXTS, some))


@given(value=VALUES, ascii_only=st.booleans())
def test_whatever_is_read_in_pieces_is_read_alike(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "PIECE", 40)
        patch.setattr(large, "LONG", 12)
        try:
            expected = jsontext.read(raw)
        except BadRequest:
            with pytest.raises(BadRequest):
                large.read(raw)
        else:
            assert large.read(raw).value == expected
            assert b"".join(raw[at:end] for at, end, _ in large.pieces(raw)) == raw
