"""Headers of an answer, in the two forms that they have here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Pairs: TypeAlias = list[tuple[bytes, bytes]]
"""As ASGI has them."""
Lines: TypeAlias = list[bytes]
"""As they stand on the wire, `name: value` each: most are never anything else."""


def pairs(lines: Iterable[bytes]) -> Pairs:
    """Headers that were lines as pairs."""
    parted = [line.partition(b": ") for line in lines]
    return [(name, value) for name, _, value in parted]


CONTINUE = b"100-continue"
"""The only expectation there is."""


def members(value: bytes) -> list[bytes]:
    """The members of a list of tokens, in lower case; empty ones are none."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]
