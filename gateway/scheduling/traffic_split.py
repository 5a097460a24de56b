"""Split: whether a request belongs to a share of them. Pure: its point comes by hash or by a given chance."""

from __future__ import annotations

from hashlib import blake2b

_BITS = 53
"""As many as a float holds exactly: more could be rounded up to 1."""


def chosen(share: float, point: float) -> bool:
    """Whether a request at `point`, from 0 up to 1, is among the `share` of them.

    A larger share takes in whoever was in a smaller one.
    """
    return point < share


def point(*names: str) -> float:
    """A point from 0 up to 1: for equal names the same in every process, for others spread evenly."""
    digest = blake2b(digest_size=8)
    for name in names:
        raw = name.encode(errors="surrogatepass")
        digest.update(len(raw).to_bytes(8))
        digest.update(raw)
    return float((int.from_bytes(digest.digest()) >> (64 - _BITS)) / (1 << _BITS))
