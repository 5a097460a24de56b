"""The estimate grows with the text, and a text cut in two costs the same but for rounding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import token_counts

TEXTS = st.text(st.sampled_from("ab 你好，é😀я\n\U00020000"), max_size=60)
RATIOS = st.sampled_from([token_counts.V1_CJK, token_counts.CJK])


@given(TEXTS, TEXTS, RATIOS)
def test_a_longer_text_never_costs_less(first: str, second: str, ratio: int) -> None:
    both = token_counts.estimate(first + second, ratio)
    assert max(token_counts.estimate(first, ratio), token_counts.estimate(second, ratio)) <= both


@given(TEXTS, TEXTS, RATIOS)
def test_two_texts_cost_their_sum_but_for_rounding(first: str, second: str, ratio: int) -> None:
    parts = token_counts.estimate(first, ratio) + token_counts.estimate(second, ratio)
    assert parts - 1 <= token_counts.estimate(first + second, ratio) <= parts


@given(st.text(st.characters(exclude_categories=["Cs"])), RATIOS)
def test_a_text_costs_something_and_no_more_than_its_characters(text: str, ratio: int) -> None:
    assert bool(text) <= token_counts.estimate(text, ratio) <= len(text)
