"""Headers as lines and as pairs."""

from __future__ import annotations

from gateway.formats.headers import members, pairs


def test_a_line_parts_at_its_first_colon() -> None:
    assert pairs([b"content-type: a/b", b"x-time: 10: 20"]) == [
        (b"content-type", b"a/b"),
        (b"x-time", b"10: 20"),
    ]


def test_a_value_may_be_empty() -> None:
    assert pairs([b"x-a: "]) == [(b"x-a", b"")]


def test_members_of_a_list_are_in_lower_case_without_blanks_and_empty_ones() -> None:
    assert members(b" A ,, b\t,") == [b"a", b"b"]
    assert members(b"") == members(b" , ") == []
