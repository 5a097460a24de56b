"""ChatGLM2-6B `openai_api.py`: the first OpenAI-like server. On pydantic 1 as meant; on 2 its streams die.

Sampling fields are read and forgotten; a system text is glued to the last question; an odd number of earlier
messages drops them all. The loop is blocked while it generates, for a whole stream too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.exchange import (
    CutError,
    Reply,
    Request,
    Stream,
    detail,
    json_reply,
    spaced,
    sse,
)
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import models_reply
from gateway.simulator.validation import (
    Check,
    Field,
    Record,
    array,
    boolean,
    integer,
    literal,
    loose_text,
    nullable,
    number,
    read_body,
    record,
    text,
)

_PARAMS = {
    "do_sample": True,
    "max_length": "model-default",
    "temperature": "model-default",
    "top_p": "model-default",
}


def _request(word: Check) -> Record:
    message = record(role=Field(literal("user", "assistant", "system")), content=Field(word))
    return record(
        model=Field(word),
        messages=Field(array(message)),
        temperature=Field(nullable(number()), None),
        top_p=Field(nullable(number()), None),
        max_length=Field(nullable(integer()), None),
        stream=Field(nullable(boolean), False),
    )


class ChatGLM2OpenAIProgram(Program):
    """The server on pydantic 1."""

    cors = True
    pydantic: ClassVar[int] = 1
    chat_request: ClassVar[Record] = _request(loose_text)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/v1/models", "GET"): self.list_models,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    async def list_models(self, _request: Request) -> Reply:
        """One card, under a borrowed name."""
        return models_reply("gpt-3.5-turbo")

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = read_body(request, self.chat_request, pydantic=self.pydantic)
        messages: list[dict[str, str]] = body["messages"]
        if messages[-1]["role"] != "user":
            return detail(400, "Invalid request")
        prompt = _prompt(messages)
        if body["stream"]:
            return Stream(self.predict(request, body["model"], prompt), linger=None)
        answer = await self.voice.say(request, prompt)
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"model": body["model"], "object": "chat.completion"}
        return json_reply({**head, "choices": [choice], "created": now()})

    async def predict(self, request: Request, model: str, prompt: BrainPrompt) -> AsyncGenerator[bytes, None]:
        """The stream, which keeps the loop from its first byte to its last."""
        async with self.gate.hold():
            yield _chunk(model, {"role": "assistant"}, None)
            async with aclosing(self.voice.speak(request, prompt)) as pieces:
                async for piece in pieces:
                    yield _chunk(model, {"content": piece}, None)
            yield _chunk(model, {}, "stop")
            yield sse("[DONE]")


class ChatGLM2OpenAIOnPydantic2(ChatGLM2OpenAIProgram):
    """The server on pydantic 2, which its requirements allow: every stream is 200 and cut without a byte."""

    pydantic = 2
    chat_request = _request(text)

    async def predict(self, request: Request, model: str, prompt: BrainPrompt) -> AsyncGenerator[bytes, None]:
        """Dies of the first chunk, which it cannot write."""
        async with aclosing(super().predict(request, model, prompt)) as events:
            async for event in events:
                if event:
                    raise CutError
                yield event


def _prompt(messages: list[dict[str, str]]) -> BrainPrompt:
    *earlier, last = messages
    question = last["content"]
    if earlier and earlier[0]["role"] == "system":
        question = earlier.pop(0)["content"] + question
    history: list[list[str]] = []
    if len(earlier) % 2 == 0:
        for asked, told in zip(earlier[::2], earlier[1::2], strict=True):
            if (asked["role"], told["role"]) == ("user", "assistant"):
                history.append([asked["content"], told["content"]])
    return BrainPrompt("chatglm2-6b", question, history, _PARAMS)


def _chunk(model: str, delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse(spaced({"model": model, "object": "chat.completion.chunk", "choices": [choice]}))
