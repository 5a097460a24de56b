"""Generates ids for requests, responses and tool calls."""

from __future__ import annotations

import secrets

_WORD = (1 << 64) - 1


class IdGenerator:
    """Generates unique ids of 24 hexadecimal digits. They are not secret.

    The first 8 digits are random for each process. The other 16 are a counter with a random start and a
    random odd step: it visits every 64-bit number once, and does not show how many requests there were.
    """

    __slots__ = ("_last", "_process", "_step")

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._last = secrets.randbits(64)
        self._step = secrets.randbits(64) | 1

    def __call__(self, prefix: str) -> str:
        """Return `prefix` followed by a new id."""
        self._last = (self._last + self._step) & _WORD
        return prefix + self._process + self._last.to_bytes(8).hex()
