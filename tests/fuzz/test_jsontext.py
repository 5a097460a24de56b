"""The strict reader meets any bytes with a value or a refusal, and what is written is read again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialects.shared import v3_tools
from gateway.errors import BadRequest
from gateway.formats import jsontext
from gateway.formats.openai import MEMBERS, FunctionCall, read_chat, request

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
JSON_LIKE = st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            '"a"',
            '"',
            "\\ud800",
            "1e999",
            "NaN",
            "-",
            "0",
            "9" * 50,
            "true",
            " ",
            "\x00",
        ]
    ),
    max_size=30,
).map("".join)


def sound(value: Any) -> bool:
    """Whether a value holds nothing that JSON or UTF-8 cannot."""
    if isinstance(value, dict):
        return all(sound(key) and sound(member) for key, member in value.items())
    if isinstance(value, list):
        return all(map(sound, value))
    if isinstance(value, str):
        return value == value.encode("utf-8", "replace").decode()
    return not isinstance(value, float) or math.isfinite(value)


def outcome(read: Callable[[bytes], Any], raw: bytes) -> Any:
    """What was read, or the refusal; any other failure is a bug."""
    try:
        return read(raw)
    except BadRequest as refusal:
        return refusal


@given(st.binary(max_size=200) | JSON_LIKE.map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 70)
@example(b'{"a":1,"a":NaN}')
@example(b"1" * 10_000)
def test_any_bytes_are_a_sound_value_or_refused(raw: bytes) -> None:
    found = outcome(jsontext.read, raw)
    if isinstance(found, BadRequest):
        assert found.message.encode()
    else:
        assert sound(found)


@given(st.binary(max_size=200) | JSON_LIKE.map(str.encode) | VALUES.map(jsontext.write))
def test_any_bytes_are_a_chat_or_refused(raw: bytes) -> None:
    found = outcome(read_chat, raw)
    assert found.message if isinstance(found, BadRequest) else found.messages


@given(st.dictionaries(st.sampled_from(sorted(MEMBERS.__annotations__)), VALUES, max_size=5))
def test_any_member_of_any_type_is_taken_or_refused_by_name(body: dict[str, Any]) -> None:
    whole = {"messages": [{"role": "user", "content": "q"}], **body}
    found = outcome(read_chat, jsontext.write(whole))
    if isinstance(found, BadRequest):
        assert found.param is not None
        assert found.param.split("[")[0].split(".")[0] in whole
    else:
        assert None not in found.body.values()


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert jsontext.read(jsontext.write(value)) == value


@given(st.text(max_size=20))
def test_every_text_can_be_written(text: str) -> None:
    assert jsontext.read(jsontext.write(text)) == jsontext.well_formed(text)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES, max_size=4))
def test_a_call_written_for_the_model_is_read_back(arguments: dict[str, Any]) -> None:
    text = v3_tools.written_call(FunctionCall(name="f", arguments=json.dumps(arguments)))
    piece = v3_tools.read_call(text, {"f"})
    assert v3_tools.CALLS_JOINT not in text
    keywords = any(not v3_tools.is_parameter(name) for name in arguments)
    assert (piece is None) is keywords
    assert piece is None or json.loads(piece.arguments) == arguments


@given(st.text(max_size=60))
def test_any_text_of_a_model_is_a_call_or_not(text: str) -> None:
    values = v3_tools.keyword_values(text)
    assert values is None or text.strip().startswith("tool_call")


PLAUSIBLE = {
    "model": TEXTS,
    "stream": st.booleans(),
    "max_tokens": st.integers(0, 10) | st.just(2**31) | st.just(1.0),
    "max_completion_tokens": st.integers(0, 10),
    "temperature": st.sampled_from([0, 1, 0.5, 2, 2.5, -1, "1", True]),
    "top_p": st.sampled_from([0, 1, 0.5, 1.5]),
    "n": st.integers(0, 3) | st.just(10**40),
    "stop": TEXTS | st.lists(TEXTS, max_size=3) | st.just([1]),
    "user": TEXTS | st.none(),
    "frequency_penalty": st.floats(-3, 3),
    "presence_penalty": st.none() | st.floats(-3, 3),
    "seed": st.integers(),
}
PLAUSIBLE_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "robot"]),
            "content": TEXTS | st.none(),
        },
        optional={"name": TEXTS},
    ),
    max_size=4,
)


def members_of(found: Any) -> Any:
    """What can be compared of a chat, or of its refusal."""
    if isinstance(found, BadRequest):
        return found.message, found.param
    _ = found.unread  # which is looked for when somebody asks, but known of a usual chat at once
    members = {name: (type(value), value) for name, value in vars(found).items() if name != "messages"}
    return members, [vars(message) for message in found.messages]


@given(
    st.fixed_dictionaries({"messages": PLAUSIBLE_MESSAGES}, optional=dict(PLAUSIBLE)),
)
@example({"messages": [{"role": "user", "content": "q"}], "temperature": 1})
def test_a_usual_chat_is_read_as_all_others_are(body: dict[str, Any]) -> None:
    raw = jsontext.write(body)
    quickly = outcome(read_chat, raw)
    with mock.patch.object(request, "_usual", return_value=None):
        slowly = outcome(read_chat, raw)
    assert members_of(quickly) == members_of(slowly)
