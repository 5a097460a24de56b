from __future__ import annotations

from typing import Any

import pytest

from gateway.formats import token_counts


@pytest.mark.parametrize(
    ("text", "v1", "later"),
    [
        pytest.param("", 0, 0, id="nothing"),
        pytest.param("a", 1, 1, id="one-letter"),
        pytest.param("abc", 1, 1, id="three-letters"),
        pytest.param("abcd", 2, 2, id="four-letters"),
        pytest.param("a" * 39, 10, 10, id="39-letters"),
        pytest.param("a" * 40, 11, 11, id="40-letters"),
        pytest.param("好", 1, 1, id="one-chinese"),
        pytest.param("好" * 100, 57, 63, id="hundred-chinese"),
        pytest.param("好" * 101, 58, 64, id="hundred-and-one-chinese"),
        pytest.param("好" * 50 + "a" * 39, 39, 42, id="mixed"),
        pytest.param("é", 1, 1, id="one-of-the-rest"),
        pytest.param("é😀я", 3, 3, id="three-of-the-rest"),
        pytest.param("\x00\x7f\n ", 2, 2, id="ascii-controls"),
    ],
)
def test_the_estimate_is_the_published_arithmetic(text: str, v1: int, later: int) -> None:
    assert token_counts.estimate(text, token_counts.V1_CJK) == v1
    assert token_counts.estimate(text) == later


@pytest.mark.parametrize(
    "edges",
    ["\u3000\u303f", "\u3400\u4dbf", "\u4e00\u9fff", "\uf900\ufaff", "\uff00\uffef", "\U00020000\U0003ffff"],
)
def test_the_ranges_of_chinese_hold_their_ends(edges: str) -> None:
    assert token_counts.estimate(edges * 50) == 63


@pytest.mark.parametrize("outside", list("\u2fff\u3040\u33ff\ua000\uf8ff\ufb00\ufeff\ufff0"))
def test_what_lies_beside_the_ranges_is_the_rest(outside: str) -> None:
    assert token_counts.estimate(outside * 100) == 100


@pytest.mark.parametrize("text", ["好", "a", "é", "好 a", "好é好"])
def test_a_text_of_megabytes_is_counted_as_its_parts_are(text: str) -> None:
    many = 300_000
    hundredths = sum(63 * 39 if char == "好" else 1000 if char.isascii() else 3900 for char in text)
    assert token_counts.estimate(text * many) == -(-hundredths * many // 3900)


@pytest.mark.parametrize("count", [0, 1, 131_072, token_counts.MOST])
def test_counts_that_a_model_can_reach_are_plausible(count: int) -> None:
    assert token_counts.plausible(count)


@pytest.mark.parametrize(
    "count",
    [-1, token_counts.MOST + 1, 10**400, True, False, 1.0, float("nan"), float("inf"), "1", None, [], {}],
)
def test_counts_that_no_model_can_reach_are_not_plausible(count: object) -> None:
    assert not token_counts.plausible(count)


@pytest.mark.parametrize("count", [0, 1, token_counts.MOST, -1, token_counts.MOST + 1, True, 1.0, "1", None])
def test_both_counts_are_plausible_if_each_is(count: Any) -> None:
    assert token_counts.both_plausible(count, 1) is token_counts.plausible(count)
    assert token_counts.both_plausible(1, count) is token_counts.plausible(count)
