"""ChatGLM-6B and ChatGLM2-6B `api.py`: one program, two models. `POST /` and nothing else.

Nothing is validated: what the program or the model cannot digest is a plain 500. 0 counts as "not given". The
loop is blocked while it generates, and a client that leaves does not stop it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.exchange import Reply, Request, json_reply
from gateway.simulator.program import Handler, Program


class ChatGLMProgram(Program):
    """The first server, with the first model."""

    model: ClassVar[str] = "chatglm-6b"
    generating = frozenset({"/"})

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {("/", "POST"): self.create_item}

    async def create_item(self, request: Request) -> Reply:
        """The only endpoint, named as in the original: its OpenAPI page shows the name."""
        body: Any = request.json()
        prompt, history = body.get("prompt"), body.get("history") or []
        params = {
            "do_sample": True,
            "max_length": body.get("max_length") or 2048,
            "top_p": body.get("top_p") or 0.7,
            "temperature": body.get("temperature") or 0.95,
        }
        _check_prompt(prompt, history)
        text = await self.voice.say(request, BrainPrompt(self.model, prompt, history, params))
        return native_reply(prompt, history, text.strip())


class ChatGLM2Program(ChatGLMProgram):
    """The same program with the second model."""

    model = "chatglm2-6b"


def native_reply(prompt: str, history: Sequence[object], text: str) -> Reply:
    """The reply of every `POST /` server; `time` is local and names no zone, as the originals'."""
    return dated_reply(text, [*history, [prompt, text]])


def dated_reply(response: object, history: Sequence[object]) -> Reply:
    """The same around whatever the model code returned."""
    time = datetime.now().strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ005 - the originals give local time
    return json_reply({"response": response, "history": history, "status": 200, "time": time})


def _check_prompt(prompt: object, history: object) -> None:
    if not isinstance(prompt, str) or not isinstance(history, list):
        raise TypeError("the model's tokenizer takes text, its history pairs")
    for row in history:
        _question, _answer = row  # the model's own unpacking; two keys or two characters pass as a pair
