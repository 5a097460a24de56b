"""Decides if a request belongs to a share of the traffic, by a hash or a random number. Pure."""

from __future__ import annotations

from hashlib import blake2b

_BITS = 53
"""The number of bits that a float represents exactly. With more bits a value could be rounded up to 1."""


def chosen(share: float, point: float) -> bool:
    """Return True if a request at `point` (from 0, below 1) belongs to the given share of requests.

    If the share grows, the requests that belonged to it before still belong to it.
    """
    return point < share


def point(*names: str) -> float:
    """Return a number from 0 to below 1 for these names.

    Equal names give the same number in every process. The numbers of different names are evenly
    distributed.
    """
    digest = blake2b(digest_size=8)
    for name in names:
        raw = name.encode(errors="surrogatepass")
        digest.update(len(raw).to_bytes(8))
        digest.update(raw)
    return float((int.from_bytes(digest.digest()) >> (64 - _BITS)) / (1 << _BITS))
