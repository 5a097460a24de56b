"""chatglm.cpp behind its own `langchain_api.py`: ChatGLM-6B's `POST /`, validated by pydantic.

Unlike `api.py`, this server decodes greedily at temperature 0, refuses nulls, and answers 500 to a
`max_length` above its own limit. Source: li-plus/chatglm.cpp `chatglm_cpp/langchain_api.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.shared.counting import count_rounds
from gateway.dialects.shared.folding import FoldedConversation
from gateway.dialects.shared.openai_like import sampling
from gateway.dialects.shared.prompt_history import NativeDialect
from gateway.formats.openai import ChatRequest


class ChatGLMCppNativeDialect(NativeDialect):
    """A model of any generation.

    Every turn is counted as a labelled round, which never counts too few tokens.
    """

    name = "chatglm-cpp-native"
    context = 4096
    probe = "/"

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        outgoing = super().ask(request, profile, stream=stream)
        cut = outgoing.prompt_tokens > profile.prompt_window
        return replace(outgoing, notes=("prompt_window",)) if cut else outgoing

    def window(self, profile: Profile) -> int | None:
        return profile.prompt_window

    def count_prompt(self, folded: FoldedConversation) -> int:
        return count_rounds(folded, self.cjk)

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return sampling(request, profile)
