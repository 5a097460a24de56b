"""Headers as lines and as pairs."""

from __future__ import annotations

from gateway.wire.headers import pairs


def test_a_line_parts_at_its_first_colon() -> None:
    assert pairs([b"content-type: a/b", b"x-time: 10: 20"]) == [
        (b"content-type", b"a/b"),
        (b"x-time", b"10: 20"),
    ]


def test_a_value_may_be_empty() -> None:
    assert pairs([b"x-a: "]) == [(b"x-a", b"")]
