"""ChatGLM2-6B behind its own `api.py` (v2). Source: THUDM/ChatGLM2-6B `api.py`, `modeling_chatglm.py`."""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Profile
from gateway.dialects.counting import count_rounds
from gateway.dialects.folding import Folded
from gateway.dialects.native import NativeDialect, never_greedy
from gateway.wire.openai import ChatRequest


class ChatGLM2(NativeDialect):
    """v2: every question is a numbered round, the first one too."""

    name = "chatglm2"
    context = 8192
    probe = "/openapi.json"
    doubt = "role_history"

    def count_prompt(self, folded: Folded) -> int:
        return count_rounds(folded, self.cjk)

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return never_greedy(request, profile)
