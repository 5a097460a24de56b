"""ChatGLM-6B behind its own `api.py` (v1). Source: THUDM/ChatGLM-6B `api.py`, `modeling_chatglm.py`."""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Profile
from gateway.dialects.shared.counting import count_bare
from gateway.dialects.shared.folding import FoldedConversation
from gateway.dialects.shared.prompt_history import NativeDialect, never_greedy
from gateway.formats import token_counts
from gateway.formats.openai import ChatRequest


class ChatGLMDialect(NativeDialect):
    """ChatGLM-6B.

    The server sends a first question to the model without a label, later questions as numbered rounds.
    """

    name = "chatglm"
    context = 2048
    cjk = token_counts.V1_CJK
    probe = "/openapi.json"
    doubt = "role_history"

    def count_prompt(self, folded: FoldedConversation) -> int:
        return count_bare(folded, self.cjk)

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return never_greedy(request, profile)
