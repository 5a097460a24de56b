from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.shared.budget_cutter import MOST_MARKS, BudgetCutter, continues
from gateway.formats import token_counts

TEXTS = st.text(alphabet="ab ,。你好é\u0301\u200d😀👍🏽", max_size=60)


def cut(text: str, budget: int, *places: int) -> str:
    cutter = BudgetCutter(budget, token_counts.CJK)
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return "".join(cutter.take(text[start:end]) for start, end in pairwise(edges))


def test_without_a_budget_nothing_is_cut() -> None:
    cutter = BudgetCutter(None, token_counts.CJK)
    assert cutter.take("a" * 5000) == "a" * 5000
    assert not cutter.full
    assert cutter.counted == token_counts.estimate("a" * 5000)


def test_a_text_of_just_the_budget_is_not_cut() -> None:
    cutter = BudgetCutter(5, token_counts.CJK)
    assert cutter.take("a" * 19) == "a" * 19
    assert (cutter.full, cutter.counted) == (False, 5)


def test_what_is_over_the_budget_is_cut_and_nothing_more_is_taken() -> None:
    cutter = BudgetCutter(5, token_counts.CJK)
    assert cutter.take("a" * 20) == "a" * 19
    assert (cutter.full, cutter.counted) == (True, 5)
    assert cutter.take("b") == ""


def test_pieces_are_counted_as_one_text_and_not_each_rounded_up() -> None:
    cutter = BudgetCutter(5, token_counts.CJK)
    assert [cutter.take("a") for _ in range(20)] == ["a"] * 19 + [""]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("ee\u0301\u0302x", "ee\u0301\u0302", id="marks-stay-with-their-letter"),
        pytest.param("👍🏽x", "👍🏽", id="a-tone-stays-with-its-hand"),
        pytest.param("👩\u200d🚀x", "👩\u200d🚀", id="a-joined-emoji-stays-whole"),
        pytest.param("กำx", "ก", id="a-vowel-that-stands-by-itself-does-not"),
        pytest.param("a" + "\u0301" * 40, "a" + "\u0301" * MOST_MARKS, id="marks-without-end-are-cut"),
    ],
)
def test_characters_as_people_see_them_stay_whole(text: str, kept: str) -> None:
    assert cut(text, 1) == kept


@given(TEXTS, st.integers(1, 12), st.lists(st.integers(0, 60), max_size=6))
def test_the_cut_does_not_depend_on_how_the_text_arrives(text: str, budget: int, places: list[int]) -> None:
    assert cut(text, budget, *places) == cut(text, budget)


@given(TEXTS, st.integers(1, 12))
def test_what_is_kept_is_the_longest_beginning_within_the_budget(text: str, budget: int) -> None:
    kept = cut(text, budget)
    assert text.startswith(kept)
    bare = kept
    while token_counts.estimate(bare) > budget:
        assert continues(bare[-2], bare[-1]), "only the rest of a character may stand past the budget"
        bare = bare[:-1]
    assert kept == text or token_counts.estimate(text[: len(kept) + 1]) > budget
