from __future__ import annotations

import pytest

from gateway.dialects.shared.leading_whitespace import LeadingWhitespace, without_lead


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("\n Hello", "Hello"),
        ("\nHello", "Hello"),
        ("\n\n Hello", "\n Hello"),
        ("\n  Hello", " Hello"),
        (" Hello", " Hello"),
        (" \n Hello", " \n Hello"),
        ("Hello\n ", "Hello\n "),
        ("\n ", ""),
        ("\n", ""),
        ("", ""),
    ],
)
def test_lead_is_removed_once_however_it_is_cut(text: str, rest: str) -> None:
    assert without_lead(text) == rest
    lead = LeadingWhitespace()
    assert "".join(map(lead.strip, text)) == rest


def test_lead_of_another_model_is_removed_alone() -> None:
    assert LeadingWhitespace("\n").strip("\n 你好") == " 你好"
