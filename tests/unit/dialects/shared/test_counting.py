from __future__ import annotations

import json

import pytest

from gateway.dialects.shared.counting import count_bare, count_messages, count_rounds
from gateway.dialects.shared.folding import fold
from gateway.formats import token_counts
from gateway.formats.openai import read_chat


def turns(*texts: str) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    return json.dumps({"messages": messages}).encode()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(("hi",), 2 + 1, id="a-first-question-stands-bare"),
        pytest.param(("你好世界",), 2 + 3, id="4-times-0.57"),
        pytest.param(("a", "b", "c"), 2 + 1 + 14 + 14 + 1 + 1, id="one-pair"),
        pytest.param(("a", "", "c"), 2 + 1 + 14 + 14 + 1, id="an-empty-half-has-no-tokens"),
        pytest.param(("a", "b", "c", "d", "e"), 2 + 1 + 28 + 14 + 4, id="two-pairs"),
    ],
)
def test_the_first_generation_counts_rounds_only_with_a_history(
    texts: tuple[str, ...], expected: int
) -> None:
    assert count_bare(fold(read_chat(turns(*texts))), token_counts.V1_CJK) == expected


def test_later_generations_count_a_role_for_each_message() -> None:
    assert count_messages([]) == 3
    assert count_messages(["hi", "", "你好世界"]) == 3 + (3 + 1) + 3 + (3 + 3)


def test_tools_count_as_json_text() -> None:
    text = '[{"name":"天气"}]'
    assert count_messages(["hi"], [{"name": "天气"}]) == 7 + token_counts.estimate(text)
    assert count_messages(["hi"], []) == 7


def test_rounds_are_counted_with_their_labels() -> None:
    assert count_rounds(fold(read_chat(turns("a"))), 63) == 2 + 14 + 1
    assert count_rounds(fold(read_chat(turns("a", "b", "c"))), 63) == 2 + 14 + 14 + 3
