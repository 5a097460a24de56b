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
_ASCII = re.compile("[\x00-\x7f]+")


def estimate(text: str, cjk: int = CJK) -> int:
    """Estimated tokens of `text`: ceil(Chinese * cjk/100 + ASCII / 3.9 + everything else)."""
    if not text:
        return 0
    if text.isascii():
        return -(-len(text) * 10 // 39)
    chinese = sum(map(len, _CJK.findall(text)))
    ascii_ = sum(map(len, _ASCII.findall(text)))
    rest = len(text) - chinese - ascii_
    # Over the common denominator 3900: cjk/100 = 39 cjk / 3900; 1/3.9 = 1000 / 3900.
    return -(-(chinese * cjk * 39 + ascii_ * 1000 + rest * 3900) // 3900)
