"""How many tokens a text has, where nobody counts them for us.

Ratios are the published ones: ChatGLM2/3 write 1.589 Chinese characters a token, ChatGLM-6B about
1.76; English about 3.9. The estimate is exact arithmetic in hundredths, so that tests can compute it.
"""

from __future__ import annotations

import re
from typing import Any, TypeGuard

MOST = 100_000_000
"""The largest number of tokens that is believed: far more than any model reads or writes in one answer."""
V1_CJK = 57
"""Hundredths of a token a Chinese character costs on ChatGLM-6B."""
CJK = 63
"""The same on every later model."""

_CJK = re.compile("[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+")
_PIECE = 65_536
"""Characters looked at in one go: a single search through megabytes would hold up all other threads."""


def plausible(count: Any) -> TypeGuard[int]:
    """Whether a backend's count of tokens may be true: an integer, no boolean, of 0 to `MOST`."""
    return type(count) is int and 0 <= count <= MOST


def both_plausible(prompt: Any, completion: Any) -> bool:
    """Whether both counts of a usage may be true; see `plausible`. One call for what each request needs."""
    return type(prompt) is int is type(completion) and 0 <= prompt <= MOST and 0 <= completion <= MOST


def estimate(text: str, cjk: int = CJK) -> int:
    """Estimated tokens of `text`: ceil(Chinese * cjk/100 + ASCII / 3.9 + everything else)."""
    chinese, ascii_, rest = _kinds(text)
    return _tokens(chinese, ascii_, rest, cjk)


def _kinds(text: str) -> tuple[int, int, int]:
    """How many characters are Chinese, ASCII, and neither."""
    if text.isascii():
        return 0, len(text), 0
    if len(text) > _PIECE:
        pieces = [_kinds(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)]
        chinese, ascii_, rest = map(sum, zip(*pieces, strict=True))
        return chinese, ascii_, rest
    others = "".join(_CJK.split(text))
    ascii_ = len(others) if others.isascii() else len(others.encode("ascii", "ignore"))
    return len(text) - len(others), ascii_, len(others) - ascii_


def _tokens(chinese: int, ascii_: int, rest: int, cjk: int) -> int:
    # Over the common denominator 3900: cjk/100 = 39 cjk / 3900; 1/3.9 = 1000 / 3900.
    return -(-(chinese * cjk * 39 + ascii_ * 1000 + rest * 3900) // 3900)


class TokenTally:
    """The characters of a text that comes in pieces, counted by kind, so that the text need not be kept."""

    __slots__ = ("_ascii", "_chinese", "_rest")

    def __init__(self) -> None:
        self._chinese = self._ascii = self._rest = 0

    def add(self, text: str) -> None:
        """Count the next piece."""
        chinese, ascii_, rest = _kinds(text)
        self._chinese += chinese
        self._ascii += ascii_
        self._rest += rest

    def tokens(self, cjk: int) -> int:
        """What `estimate` says of the text so far."""
        return _tokens(self._chinese, self._ascii, self._rest, cjk)
