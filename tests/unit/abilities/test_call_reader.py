"""Text that is passed on while an answer arrives, and text that is held back as a possible call."""

from __future__ import annotations

import pytest

from gateway.abilities.call_reader import MAX_HELD, CallReader

OFFERED = ("calc",)


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        (["a", "b"], ["a", "b"]),
        (["see [1] here"], ["see [1] here"]),
        (["see [", "1", "]", " here"], ["see ", "", "[1]", " here"]),
        (["x <tool", "box>"], ["x ", "<toolbox>"]),
        (["Act", "ing is fun"], ["", "Acting is fun"]),
        (["calc", "ulate"], ["", "calculate"]),
        (["calc", " is"], ["", "calc is"]),
        (["a calc("], ["a calc("]),
        (["```py", "\nprint()"], ["", "```py\nprint()"]),
        (['text {"name": "calc"}'], ["text "]),
        (["calc(a=1)"], [""]),
        (["\ncalc\n{}"], ["\n"]),
    ],
)
def test_text_passes_as_soon_as_it_cannot_be_a_call(pieces: list[str], passed: list[str]) -> None:
    reader = CallReader(OFFERED)
    assert [reader.feed(piece) for piece in pieces] == passed
    assert reader.text == "".join(passed)
    assert reader.fed == "".join(pieces)


def test_held_text_is_read_at_the_end() -> None:
    reader = CallReader(OFFERED)
    assert reader.feed('好。{"name": "calc", "arg') == "好。"
    assert reader.feed('uments": {"a": 1}} and more') == ""
    reading = reader.end()
    assert [(call.name, call.arguments) for call in reading.calls] == [("calc", {"a": 1})]


def test_text_that_is_held_for_too_long_passes() -> None:
    reader = CallReader(OFFERED)
    assert reader.feed("{") == ""
    assert len(reader.feed("x" * MAX_HELD)) == MAX_HELD + 1
    assert reader.feed("y") == "y"


def test_everything_can_be_held() -> None:
    reader = CallReader(OFFERED)
    reader.hold("plain ")
    reader.hold("text")
    assert (reader.text, reader.fed, reader.end().text) == ("", "plain text", "plain text")
