"""Complete answers in pieces: no text is lost, and no character is split."""

from __future__ import annotations

import pytest

from gateway.abilities.pieces import MOST, SIZE, AnswerSplitter, split
from gateway.formats.events import Delta, Finish, ToolPiece, Usage

FLAGS = "\U0001f1e8\U0001f1f3\U0001f1fa\U0001f1f8\U0001f1eb\U0001f1f7"  # three flags, six letters
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("abc", ["abc"], id="short"),
        pytest.param("abcd", ["abcd"], id="exact"),
        pytest.param("abcdefghij", ["abcd", "efgh", "ij"], id="plain"),
        pytest.param("abcde\u0301f", ["abcd", "e\u0301f"], id="mark-inside"),
        pytest.param("abce\u0301\u0302\u0303f", ["abce\u0301\u0302\u0303", "f"], id="run-of-marks"),
        pytest.param("abc" + FAMILY + "d", ["abc" + FAMILY, "d"], id="joined-emoji"),
        pytest.param("abc\u2764\ufe0fd", ["abc\u2764\ufe0f", "d"], id="variation-selector"),
        pytest.param("abc1\ufe0f\u20e3d", ["abc1\ufe0f\u20e3", "d"], id="keycap"),
        pytest.param("abc\U0001f44d\U0001f3fdd", ["abc\U0001f44d\U0001f3fd", "d"], id="skin-tone"),
        pytest.param("abcक्षि", ["abcक्षि"[:4] + "्", "षि"], id="devanagari-marks"),
        pytest.param("abc" + FLAGS, ["abc" + FLAGS[:2], FLAGS[2:6]], id="flags"),
        pytest.param("a" + FLAGS, ["a" + FLAGS[:4], FLAGS[4:]], id="flags-at-another-place"),
        pytest.param("今天天气很好", ["今天天气", "很好"], id="chinese"),
    ],
)
def test_where_a_text_is_cut(text: str, pieces: list[str]) -> None:
    assert split(text, 4) == pieces


def test_a_flag_of_tags_stays_whole() -> None:
    england = "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbeng") + "\U000e007f"
    assert split("abc" + england + "d", 4) == ["abc" + england, "d"]


@pytest.mark.parametrize("text", ["x" * 1000, "\u0301" * 100, FLAGS * 30, FAMILY * 30, "今天\n" * 50])
def test_nothing_is_lost_and_pieces_are_not_smaller_than_asked(text: str) -> None:
    pieces = split(text, 5)
    assert "".join(pieces) == text
    assert all(len(piece) >= 5 for piece in pieces[:-1])


def test_a_long_delta_becomes_many() -> None:
    text = "abcdefgh" * 10
    events = AnswerSplitter().feed(Delta(text, choice=2, extras={"x": 1}, logprobs=[1]))
    assert len(events) == 80 // SIZE
    assert "".join(event.text for event in events if isinstance(event, Delta)) == text
    assert events[0] == Delta(text[:SIZE], choice=2, extras={"x": 1}, logprobs=[1])
    assert events[1] == Delta(text[SIZE : 2 * SIZE], choice=2)


@pytest.mark.parametrize(
    "event",
    [
        Delta("x" * SIZE),
        Delta("x" * 100, tools=(ToolPiece(0),)),
        Finish("stop"),
        Usage(1, 2, "backend"),
        Delta(),
    ],
)
def test_everything_else_passes_as_it_is(event: Delta | Finish | Usage) -> None:
    assert AnswerSplitter().feed(event) == [event]


def test_pieces_of_a_long_answer_are_longer_instead_of_more() -> None:
    text = "一二三四五六七八九十" * 20_000
    texts = [event.text for event in AnswerSplitter().feed(Delta(text)) if isinstance(event, Delta)]
    assert "".join(texts) == text
    assert len(texts) <= MOST
