"""ChatGLM2-6B behind its own `api.py` (v2). Source: THUDM/ChatGLM2-6B `api.py`, `modeling_chatglm.py`."""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Profile
from gateway.dialects.shared.counting import count_rounds
from gateway.dialects.shared.folding import FoldedConversation
from gateway.dialects.shared.prompt_history import NativeDialect, never_greedy
from gateway.formats.openai import ChatRequest


class ChatGLM2Dialect(NativeDialect):
    """ChatGLM2-6B. The server sends every question to the model as a numbered round, including the first."""

    name = "chatglm2"
    context = 8192
    probe = "/openapi.json"
    doubt = "role_history"

    def count_prompt(self, folded: FoldedConversation) -> int:
        return count_rounds(folded, self.cjk)

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return never_greedy(request, profile)
