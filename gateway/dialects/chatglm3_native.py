"""ChatGLM3 or GLM-4 behind ChatGLM-6B's `api.py`: `POST /`, with a history of roles.

Many tutorials load a newer model with ChatGLM-6B's `api.py`, which passes `history` to `model.chat()`
unchanged. From ChatGLM3 on, the history is a list of `{"role", "content"}` objects. With pairs, as the
dialect `chatglm` sends them, the server answers 500 from the second turn on. System texts are separate
messages. If the first line of an answer is not empty, the model code reads it as the name of a tool, and
`response` is an object. Source: ChatGLM-6B `api.py` over ChatGLM3 and GLM-4 `modeling_chatglm.py` (`chat`,
`process_response`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from gateway.dialects.base import Profile
from gateway.dialects.shared.counting import count_messages
from gateway.dialects.shared.fitting import Sent, messages_to_fit
from gateway.dialects.shared.folding import JOINT, plain_messages
from gateway.dialects.shared.prompt_history import PromptDialect, never_greedy
from gateway.errors import BadRequest
from gateway.formats.openai import ChatRequest


class ChatGLM3NativeDialect(PromptDialect):
    """A model of the third or fourth generation. Every message keeps its role and position."""

    name = "chatglm3-native"
    context: ClassVar[int] = 8192
    probe = "/openapi.json"
    pairs = False

    def conversation(
        self, request: ChatRequest, profile: Profile, context: int
    ) -> tuple[str, list[Any], int]:
        kept, prompt_tokens = messages_to_fit(_messages(request), profile, context, _count)
        return kept[-1]["content"], kept[:-1], prompt_tokens

    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        return never_greedy(request, profile)

    def text(self, response: Any) -> Any:
        """Return the text of a response. The members `name` and `content` are two parts of one text."""
        match response:
            case {"name": str() as name, "content": str() as content}:
                return f"{name}\n{content}"
        return response


def _messages(request: ChatRequest) -> list[Sent]:
    """Return the messages with the question as the last message (rules T1, T4 to T7)."""
    spoken = plain_messages(request)
    end = len(spoken)
    while end and spoken[end - 1][0] == "system":
        end -= 1
    before, system = spoken[:end], spoken[end:]
    if not system and before[-1][0] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    if not system:
        ordered = before
    elif before and before[-1][0] == "user":  # trailing system texts move before the question
        ordered = [*before[:-1], *system, before[-1]]
    else:  # there is no question: the system texts become the question
        ordered = [*before, ("user", JOINT.join(text for _, text in system if text))]
    return [{"role": role, "content": text} for role, text in ordered]


def _count(messages: list[Sent]) -> int:
    return count_messages([message["content"] for message in messages])
