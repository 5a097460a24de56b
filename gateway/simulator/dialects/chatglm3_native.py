"""ChatGLM3 or GLM-4 behind ChatGLM-6B's `api.py`: `POST /` with a history of role objects.

The program is ChatGLM-6B's; what differs is the model code, which takes and returns `{"role", "content"}`
objects. A history of pairs fails from the second turn on. An answer without a newline fails on ChatGLM3; one
whose first line is not empty comes as an object with that line as `name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.dialects.chatglm import ChatGLMProgram, dated_reply
from gateway.simulator.exchange import Reply, Request

_ROLES = ("system", "user", "assistant", "observation")


class ChatGLM3NativeProgram(ChatGLMProgram):
    """The first program with the third model."""

    model = "chatglm3-6b"
    lead = "\n "

    async def create_item(self, request: Request) -> Reply:
        """The only endpoint."""
        body: Any = request.json()
        prompt, history = body.get("prompt"), body.get("history") or []
        params = {
            "do_sample": True,
            "max_length": body.get("max_length") or 2048,
            "top_p": body.get("top_p") or 0.7,
            "temperature": body.get("temperature") or 0.95,
        }
        _check_prompt(prompt, history)
        answer = await self.voice.say(
            request, BrainPrompt(self.model, prompt, history, params, lead=self.lead)
        )
        name, content = self.split(answer)
        said = {"role": "assistant", "metadata": name, "content": content}
        turns = [*history, {"role": "user", "content": prompt}, said]
        response = {"name": name.strip(), "content": content} if name.strip() else content
        return dated_reply(response, turns)

    def split(self, answer: str) -> tuple[str, str]:
        """The line that may name a tool, and the rest. Raises where the model code does."""
        name, content = answer.split("\n", maxsplit=1)
        return (name, content) if name.strip() else (name, content.strip())


class GLM4Native(ChatGLM3NativeProgram):
    """The first program with the fourth model."""

    model = "glm-4-9b-chat"
    lead = "\n"

    def split(self, answer: str) -> tuple[str, str]:
        """As ChatGLM3's, but an answer of one line is an answer."""
        return super().split(answer) if "\n" in answer else ("", answer.strip())


def _check_prompt(prompt: object, history: Sequence[Any]) -> None:
    if not isinstance(prompt, str) or not isinstance(history, list):
        raise TypeError("the model's tokenizer takes text, its history objects")
    for item in history:
        content = item["content"]  # a pair has no such index
        if not isinstance(content, str) or item["role"] not in _ROLES:
            raise TypeError("the model's tokenizer takes text of four roles")
