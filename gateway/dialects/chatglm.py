"""ChatGLM-6B behind its own `api.py` (v1). Source: THUDM/ChatGLM-6B `api.py`, `modeling_chatglm.py`."""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Profile
from gateway.dialects.folding import Folded
from gateway.dialects.native import PREFIX, ROUND, NativeDialect, never_greedy
from gateway.wire import tokens
from gateway.wire.openai import ChatRequest


class ChatGLM(NativeDialect):
    """v1: a first question goes to the model bare, later ones as numbered rounds."""

    name = "chatglm"
    context = 2048
    cjk = tokens.V1_CJK
    probe = "/openapi.json"

    def count_prompt(self, folded: Folded) -> int:
        count = PREFIX + tokens.estimate(folded.prompt.text, self.cjk)
        if not folded.pairs:
            return count
        halves = [half for pair in folded.history for half in pair]
        return (
            count + ROUND * (len(folded.pairs) + 1) + sum(tokens.estimate(half, self.cjk) for half in halves)
        )

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return never_greedy(request, profile)
