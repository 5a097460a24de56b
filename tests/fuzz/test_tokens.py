"""The estimate grows with the text, and a text cut in two costs the same but for rounding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import tokens

TEXTS = st.text(st.sampled_from("ab 你好，é😀я\n\U00020000"), max_size=60)
RATIOS = st.sampled_from([tokens.V1_CJK, tokens.CJK])


@given(TEXTS, TEXTS, RATIOS)
def test_a_longer_text_never_costs_less(first: str, second: str, ratio: int) -> None:
    both = tokens.estimate(first + second, ratio)
    assert max(tokens.estimate(first, ratio), tokens.estimate(second, ratio)) <= both


@given(TEXTS, TEXTS, RATIOS)
def test_two_texts_cost_their_sum_but_for_rounding(first: str, second: str, ratio: int) -> None:
    parts = tokens.estimate(first, ratio) + tokens.estimate(second, ratio)
    assert parts - 1 <= tokens.estimate(first + second, ratio) <= parts


@given(st.text(st.characters(exclude_categories=["Cs"])), RATIOS)
def test_a_text_costs_something_and_no_more_than_its_characters(text: str, ratio: int) -> None:
    assert bool(text) <= tokens.estimate(text, ratio) <= len(text)
