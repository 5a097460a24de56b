from __future__ import annotations

import pytest

from gateway.dialects.shared.glm4_calls import GLM4CallReader, as_text, is_chunk, offered
from gateway.formats.events import ToolPiece

NAMES = frozenset({"f"})


def test_pieces_of_one_call_are_joined_and_those_of_several_are_kept_apart() -> None:
    calls = GLM4CallReader()
    assert not calls
    calls.add([ToolPiece(0, "{", "a", "f"), ToolPiece(1, "", "b", "g")])
    calls.add([ToolPiece(0, "}"), ToolPiece(1, "[]")])
    assert calls
    assert calls.pieces == (ToolPiece(0, "{}", "a", "f"), ToolPiece(1, "[]", "b", "g"))


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("f", '{"a": 1}', '{"a": 1}'),
        ("f", '"{\\"a\\": 1}"', '{"a": 1}'),
        ("f", '"text"', None),
        ("f", "1", None),
        ("f", "null", None),
        ("f", "", None),
        ("g", "{}", None),
        (None, "{}", None),
    ],
)
def test_call_is_believed_where_its_name_was_offered_and_its_arguments_are_an_object(
    name: str | None, arguments: str, expected: str | None
) -> None:
    found = offered((ToolPiece(0, arguments, "c", name),), NAMES)
    assert [call.arguments for call in found] == ([] if expected is None else [expected])


def test_one_bad_call_makes_all_of_them_text() -> None:
    calls = (ToolPiece(0, "{}", name="f"), ToolPiece(1, "{}", name="g"))
    assert offered(calls, NAMES) == ()
    assert as_text(calls) == "f\n{}\ng\n{}"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (ToolPiece(0, "is a function", name="f"), "f\nis a function"),
        (ToolPiece(0, '"{bad json"', name="f"), "f\n{bad json"),
        (ToolPiece(0, '{"prompt": "a cat"}', name="cogview"), "cogview\na cat"),
        (ToolPiece(0, '{"prompt": "a cat"}', name="f"), 'f\n{"prompt": "a cat"}'),
        (ToolPiece(0, "{}"), "\n{}"),
    ],
)
def test_text_is_the_answer_that_the_call_was_made_of(call: ToolPiece, text: str) -> None:
    assert as_text((call,)) == text


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ('{"model":"m","object":"chat.completion.chunk","choices":[]}', True),
        ('{"model":"m","object":"car"}', False),
        ('{"model":"m","obj', False),
        ("hello", False),
    ],
)
def test_chunk_in_a_text_is_recognised(text: str, is_one: bool) -> None:
    assert is_chunk(text) is is_one
