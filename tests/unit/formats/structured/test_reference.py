"""`$ref` within a schema."""

from __future__ import annotations

import pytest

from gateway.formats.structured.reference import at_reference, resolved

ROOT = {"$defs": {"a/b": {"type": "null"}, "c": [{"x": 1}]}, "type": "object"}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", ROOT),
        ("#/", ROOT),
        ("#/$defs/a~1b", {"type": "null"}),
        ("#/$defs/c/0", {"x": 1}),
        ("#/$defs/c/5", None),
        ("#/$defs/none", None),
        ("#/type/x", None),
    ],
)
def test_reference_leads_to_its_place(reference: str, found: object) -> None:
    assert at_reference(ROOT, reference) == found


def test_chain_of_references_is_followed_to_its_end_and_an_endless_one_stops() -> None:
    root = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "null"}, "c": {"$ref": "#/$defs/c"}}}
    assert resolved({"$ref": "#/$defs/a"}, root) == {"type": "null"}
    assert resolved({"$ref": "#/$defs/c"}, root) == {"$ref": "#/$defs/c"}
    assert resolved(True, root) is True
