"""GLM-4 `glm4v_server.py`: pictures, in principle; no system role, no finish, wrong counts."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.exchange import ModelError, Reply, Request, Stream, compact, detail, json_reply, sse
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import models_reply
from gateway.simulator.validation import (
    Field,
    anything,
    array,
    boolean,
    either,
    integer,
    literal,
    nullable,
    number,
    read_body,
    record,
    text,
)

_PART = record(
    type=Field(literal("text", "image_url")),
    text=Field(nullable(text), None),
    image_url=Field(anything, None),
)
_MESSAGE = record(
    role=Field(literal("user", "assistant", "system")),
    content=Field(either(str=text, list_of_ContentItem=array(_PART))),
    name=Field(nullable(text), None),
)
_REQUEST = record(
    model=Field(text),
    messages=Field(array(_MESSAGE)),
    temperature=Field(nullable(number()), 0.8),
    top_p=Field(nullable(number()), 0.8),
    max_tokens=Field(nullable(integer()), None),
    stream=Field(nullable(boolean), False),
    repetition_penalty=Field(nullable(number()), 1.0),
)


class GLM4VProgram(Program):
    """The server that sees. No picture can be fetched here: each is the 500 of a picture out of reach.

    A whole answer is generated inside the event loop and holds it to the end; a stream is generated in a
    thread, which runs to its end whether its client has left or not.
    """

    cors = True

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/v1/models", "GET"): self.list_models,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    async def list_models(self, _request: Request) -> Reply:
        """The one model."""
        return models_reply("GLM-4v-9b")

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = read_body(request, _REQUEST)
        if not body["messages"] or body["messages"][-1]["role"] == "assistant":
            return detail(400, "Invalid request")
        if body["stream"]:
            return Stream(self._events(request, body), linger=None)
        prompt, counted = _prompt(body)
        answer = await self.voice.say(request, prompt)
        message = {"role": "assistant", "content": answer, "name": None}
        total = len(answer)
        counts = {"prompt_tokens": counted, "total_tokens": total, "completion_tokens": total - counted}
        head = {"model": body["model"], "object": "chat.completion"}
        choices = [{"index": 0, "message": message}]
        return json_reply({**head, "choices": choices, "created": now(), "usage": counts})

    async def _events(self, request: Request, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        model = body["model"]
        yield _chunk(model, {"role": "assistant"})
        prompt, _ = _prompt(body)
        async with aclosing(self.voice.speak(request, prompt)) as pieces:
            async for piece in pieces:
                await self.gate.wait_through()
                yield _chunk(model, {"role": "assistant", "content": piece})
        yield _chunk(model, {"role": "assistant", "content": ""})
        yield _chunk(model, {})


def _prompt(body: dict[str, Any]) -> tuple[BrainPrompt, int]:
    messages = [
        {"role": _role(message), "content": _flat(message["content"])} for message in body["messages"]
    ]
    *history, last = messages
    params = {
        "max_new_tokens": body["max_tokens"] or 1024,
        "temperature": body["temperature"],
        "top_p": body["top_p"],
    }
    prompt = BrainPrompt("glm-4v-9b", last["content"], history, params)
    return prompt, len(json.dumps(messages, ensure_ascii=False))


def _role(message: dict[str, Any]) -> str:
    role: str = message["role"]
    if role == "system":
        raise ModelError("the model knows users and assistants only")
    return role


def _flat(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    if any(part["type"] == "image_url" for part in content):
        raise ModelError("the picture cannot be fetched")
    return " ".join(part["text"] for part in content)


def _chunk(model: str, delta: dict[str, object]) -> bytes:
    choice = {"index": 0, "delta": delta}
    return sse(compact({"model": model, "object": "chat.completion.chunk", "choices": [choice]}))
