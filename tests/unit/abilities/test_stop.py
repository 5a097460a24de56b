"""Stop sequences: the text is cut at the first complete one, and held back no longer than needed."""

from __future__ import annotations

import time

import pytest

from gateway.abilities.stop import StopSequences
from gateway.formats.events import Delta, Event, Finish, ToolPiece, Usage


def run(stop: StopSequences, *texts: str) -> list[Event]:
    return [event for text in texts for event in stop.feed(Delta(text))]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize(
    ("stops", "texts", "kept", "cut"),
    [
        pytest.param(("END",), ["one END two"], "one ", True, id="inside"),
        pytest.param(("END",), ["END two"], "", True, id="at-the-start"),
        pytest.param(("END",), ["one END"], "one ", True, id="at-the-end"),
        pytest.param(("END",), ["one E", "N", "D two"], "one ", True, id="in-pieces"),
        pytest.param(("END",), ["one EN", "d two"], "one ENd two", False, id="almost"),
        pytest.param(("END",), ["one EN"], "one EN", False, id="almost-at-the-end"),
        pytest.param(("aab",), ["aaa", "ab"], "aa", True, id="overlapping-itself"),
        pytest.param(("\n\n",), ["a\n", "\nb"], "a", True, id="newlines"),
        pytest.param(("x", "END"), ["one END x"], "one ", True, id="first-of-several"),
        pytest.param(("bc", "abcd"), ["abcd"], "a", True, id="complete-first"),
        pytest.param(("b", "ab"), ["ab"], "", True, id="longest-of-those-that-end-together"),
        pytest.param(("你好",), ["说你", "好吗"], "说", True, id="chinese"),
        pytest.param(("🙂",), ["a🙂b"], "a", True, id="emoji"),
        pytest.param(("x",), [""], "", False, id="nothing"),
    ],
)
def test_where_an_answer_is_cut(stops: tuple[str, ...], texts: list[str], kept: str, cut: bool) -> None:
    stop = StopSequences(stops)
    events = run(stop, *texts)
    events += [] if stop.done else stop.flush()
    assert text(events) == kept
    assert stop.done is cut
    assert (events[-1:] == [Finish("stop")]) is cut


def test_only_what_may_become_a_stop_text_is_held_back() -> None:
    stop = StopSequences(("END", "STOP"))
    assert run(stop, "one") == [Delta("one")]
    assert run(stop, " S") == [Delta(" ")]
    assert run(stop, "TO") == []
    assert run(stop, "NE") == [Delta("STON")]
    assert run(stop, "x") == [Delta("Ex")]


def test_after_the_cut_nothing_passes() -> None:
    stop = StopSequences(("END",))
    run(stop, "one END")
    assert stop.feed(Delta("two")) == []
    assert stop.feed(Finish("length")) == []
    assert stop.feed(Usage(1, 100, "backend")) == []
    assert stop.flush() == []


@pytest.mark.parametrize("event", [Finish("length"), Usage(1, 2, "backend"), Delta(tools=(ToolPiece(0),))])
def test_what_was_held_back_comes_before_what_ends_the_text(event: Event) -> None:
    stop = StopSequences(("END",))
    run(stop, "one EN")
    assert stop.feed(event) == [Delta("EN"), event]
    assert stop.flush() == []


def test_a_piece_of_text_and_tools_loses_neither() -> None:
    piece = Delta("E", tools=(ToolPiece(0, name="f"),), extras={"reasoning": "x"})
    assert StopSequences(("END",)).feed(piece) == [piece]


def test_extras_survive_though_the_text_is_held_back() -> None:
    stop = StopSequences(("END",))
    assert stop.feed(Delta("E", extras={"reasoning": "x"})) == [Delta("", extras={"reasoning": "x"})]
    assert stop.flush() == [Delta("E")]


def test_long_stop_texts_are_found_however_the_text_is_sliced() -> None:
    stops = ("a" * 1000 + "b", "a" * 999 + "c")
    text = "a" * 5000 + "c" + "a" * 10
    for size in (1, 7, 1500, 4000, 6000):
        stop = StopSequences(stops)
        events = [
            event for at in range(0, len(text), size) for event in stop.feed(Delta(text[at : at + size]))
        ]
        assert "".join(event.text for event in events if isinstance(event, Delta)) == "a" * 4001
        assert stop.done


def test_a_search_costs_a_step_for_each_character() -> None:
    stop = StopSequences(("a" * 1023 + "b",) * 4)
    began = time.process_time()
    for _ in range(20_000):
        stop.feed(Delta("a"))
    assert time.process_time() - began < 5  # takes 0.1 s; quadratic time would be minutes
