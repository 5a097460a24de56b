"""How many tokens a text has, where nobody counts them for us.

Ratios are the published ones: ChatGLM2/3 write 1.589 Chinese characters a token, ChatGLM-6B about
1.76; English about 3.9. The estimate is exact arithmetic in hundredths, so that tests can compute it.
"""

from __future__ import annotations

import re

V1_CJK = 57
"""Hundredths of a token a Chinese character costs on ChatGLM-6B."""
CJK = 63
"""The same on every later model."""

_CJK = re.compile("[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+")
_ASCII = bytes(range(128))
_PIECE = 65_536
"""Characters looked at in one go: a single search through megabytes would hold up all other threads."""


def estimate(text: str, cjk: int = CJK) -> int:
    """Estimated tokens of `text`: ceil(Chinese * cjk/100 + ASCII / 3.9 + everything else)."""
    tally = Tally()
    tally.add(text)
    return tally.tokens(cjk)


class Tally:
    """The characters of a text that comes in pieces, counted by kind, so that the text need not be kept."""

    __slots__ = ("_ascii", "_chinese", "_rest")

    def __init__(self) -> None:
        self._chinese = self._ascii = self._rest = 0

    def add(self, text: str) -> None:
        """Count the next piece."""
        if text.isascii():
            self._ascii += len(text)
            return
        pieces = (
            [text] if len(text) <= _PIECE else [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
        )
        chinese = sum([len(run) for piece in pieces for run in _CJK.findall(piece)])
        # In UTF-8 just the ASCII characters are bytes below 128.
        raw = text.encode(errors="surrogatepass")
        ascii_ = len(raw) - len(raw.translate(None, _ASCII))
        self._chinese += chinese
        self._ascii += ascii_
        self._rest += len(text) - chinese - ascii_

    def tokens(self, cjk: int) -> int:
        """What `estimate` says of the text so far."""
        # Over the common denominator 3900: cjk/100 = 39 cjk / 3900; 1/3.9 = 1000 / 3900.
        return -(-(self._chinese * cjk * 39 + self._ascii * 1000 + self._rest * 3900) // 3900)
