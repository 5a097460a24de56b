"""The community's streaming demo around ChatGLM-6B: `POST /chat`, and `POST /stream` with growing texts.

Read in its source, never recorded. A failed chat is a 200 that says `success: false`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.exchange import ModelError, Reply, Request, Stream, json_reply, spaced, sse
from gateway.simulator.program import Handler, Program
from gateway.simulator.validation import read_body, record

_WINDOW = 5
"""The pairs of a history that the model gets."""


class ChatGLMStreamProgram(Program):
    """The demo with the first model."""

    generating = frozenset({"/chat", "/stream"})

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {("/chat", "POST"): self.chat, ("/stream", "POST"): self.stream}

    async def chat(self, request: Request) -> Reply:
        """The whole answer; it blocks the loop."""
        try:
            prompt = _prompt(request)
            answer = await self.voice.say(request, prompt)
        except (ModelError, ValueError, TypeError, KeyError):
            return json_reply({"query": "", "response": "", "success": False})
        history = [*prompt.history, [prompt.text, answer]]
        return json_reply({"query": prompt.text, "response": answer, "history": history, "success": True})

    async def stream(self, request: Request) -> Stream:
        """The answer as it grows, beside the loop."""
        try:
            prompt = _prompt(request)
        except (ValueError, TypeError, KeyError):
            return Stream(_refusal())
        return Stream(self._events(request, prompt))

    async def _events(self, request: Request, prompt: BrainPrompt) -> AsyncGenerator[bytes, None]:
        said = ""
        async with aclosing(self.voice.speak(request, prompt)) as pieces:
            async for piece in pieces:
                said += piece
                yield _event({"delta": piece, "response": said, "finished": False})
        history = [*prompt.history, [prompt.text, said]]
        last = {"query": prompt.text, "delta": "[EOS]", "response": said, "history": history}
        yield _event({**last, "finished": True})


async def _refusal() -> AsyncGenerator[bytes, None]:
    yield _event({"query": "", "response": "", "history": [], "finished": True})


def _prompt(request: Request) -> BrainPrompt:
    read_body(request, record())
    body: Any = request.json()
    query, history = body["query"], [list(turn) for turn in body["history"]]
    if not isinstance(query, str):
        raise TypeError("the model's tokenizer takes text")
    params = {"do_sample": True, "max_length": 2048, "temperature": 0.95, "top_p": 0.7}
    return BrainPrompt("chatglm-6b", query, history[-_WINDOW:], params)


def _event(content: dict[str, object]) -> bytes:
    return b"event: delta\r\n" + sse(spaced(content))
