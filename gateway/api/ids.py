"""Makes ids for requests, answers and calls."""

from __future__ import annotations

import secrets

_WORD = (1 << 64) - 1


class IdGenerator:
    """Ids of 24 hexadecimal digits that no other process makes, and this one makes once.

    They are unique, not secret. A counter that starts anywhere and goes in steps of any odd size meets
    each number once, and tells nobody how many requests there were.
    """

    __slots__ = ("_last", "_process", "_step")

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._last = secrets.randbits(64)
        self._step = secrets.randbits(64) | 1

    def __call__(self, prefix: str) -> str:
        """A new id behind this prefix."""
        self._last = (self._last + self._step) & _WORD
        return prefix + self._process + self._last.to_bytes(8).hex()
