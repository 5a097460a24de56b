"""However an answer is sliced, it is cut at the same place, and little is held back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.abilities.stop import StopSequences
from gateway.formats.events import Delta, Event, Finish

TEXTS = st.text("ab\n好", max_size=40)
STOPS = st.lists(st.text("ab\n好", min_size=1, max_size=5), min_size=1, max_size=4).map(tuple)


def sliced(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]


def given_out(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def run(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, bool]:
    """What comes out, and whether it was cut; checks what is held back on the way."""
    stop = StopSequences(stops)
    out, taken = "", ""
    longest = max(map(len, stops))
    for piece in pieces:
        events = stop.feed(Delta(piece))
        out += given_out(events)
        taken += piece
        if stop.done:
            assert events[-1] == Finish("stop")
            return out, True
        assert taken.startswith(out)
        assert len(taken) - len(out) <= longest - 1
    return out + given_out(stop.flush()), False


def expected(stops: tuple[str, ...], text: str) -> tuple[str, bool]:
    """The same by looking at every prefix: the first that ends in a stop text."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(STOPS, TEXTS, st.lists(st.integers(0, 40), max_size=20))
def test_any_slicing_gives_the_same(stops: tuple[str, ...], text: str, cuts: list[int]) -> None:
    assert run(stops, sliced(text, cuts)) == expected(stops, text)


@given(STOPS, TEXTS)
def test_one_character_at_a_time_gives_the_same(stops: tuple[str, ...], text: str) -> None:
    assert run(stops, list(text)) == expected(stops, text)


@given(STOPS, TEXTS, st.lists(st.integers(0, 40), max_size=20))
def test_no_stop_text_is_ever_given_out(stops: tuple[str, ...], text: str, cuts: list[int]) -> None:
    out, _ = run(stops, sliced(text, cuts))
    assert not [stop for stop in stops if stop in out]
