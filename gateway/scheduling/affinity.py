"""What a request tells the balancers of affinity: its session, and what it begins with."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

LONGEST = 32
"""Most beginnings of one request that are looked at."""


def session(name: str | None, opening: Iterable[bytes]) -> str:
    """The name the client gave, else a hash of the first turns, which stay as they are while a chat grows."""
    if name:
        return name
    digest = blake2b(digest_size=16)
    for part in opening:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def chain(parts: Iterable[bytes]) -> tuple[bytes, ...]:
    """The hashes of a chat's beginnings, the shortest first: of each message with all before it.

    Two chats share a hash only if they begin alike. `LONGEST` at most.
    """
    found: list[bytes] = []
    before = b""
    for part in parts:
        if len(found) == LONGEST:
            break
        before = blake2b(before + part, digest_size=16).digest()
        found.append(before)
    return tuple(found)
