"""The keys by which balancers recognise related requests: the session, and hashes of prompt prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

LONGEST = 32
"""Maximum number of prefix hashes per request."""


def session(name: str | None, opening: Iterable[bytes]) -> str:
    """Return the session key of a request.

    This is the name that the client sent. Without a name it is a hash of the first turns, which do not
    change while a chat grows.
    """
    if name:
        return name
    digest = blake2b(digest_size=16)
    for part in opening:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def chain(parts: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the hashes of a chat's prefixes, shortest first; one hash per message, at most `LONGEST`.

    Each hash covers a message and all messages before it. Two chats share a hash only if they start with
    the same messages.
    """
    found: list[bytes] = []
    before = b""
    for part in parts:
        if len(found) == LONGEST:
            break
        before = blake2b(before + part, digest_size=16).digest()
        found.append(before)
    return tuple(found)
