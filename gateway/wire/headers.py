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
