"""chatglm.cpp `openai_api.py`: strict about its fields, one generation at a time, no `[DONE]`.

`max_tokens` is the length of prompt and answer together. In the recordings, made with a stub for the model,
more than 4096 is an error: a 500, or a stream that is cut behind its first chunk. The variants named by a
model's generation do as the model in C++ does behind the program's own loop, which checks no length: they
keep the last 512 tokens of a prompt, stop where prompt and answer reach `max_tokens`, fail where they reach
4096, and begin an answer with a newline, which is stripped from whole answers only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar

from gateway.simulator.brain import BrainPrompt, tokens
from gateway.simulator.dialects.pythoncall import TOOLS_TEXT, fenced, find_call
from gateway.simulator.exchange import ModelError, Reply, Request, Stream, compact, detail, json_reply, sse
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import offered
from gateway.simulator.validation import (
    Field,
    anything,
    array,
    boolean,
    integer,
    literal,
    nullable,
    number,
    read_body,
    record,
    text,
)

MODEL = "chatglm.cpp"
MAX_LENGTH = 4096
"""The server's own max_length; asking for more is an error."""
_PROMPT_WINDOW = 512

_CALL = record(arguments=Field(text), name=Field(text))
_MESSAGE = record(
    role=Field(literal("system", "user", "assistant")),
    content=Field(text),
    tool_calls=Field(nullable(array(record(function=Field(_CALL)))), None),
)
_FUNCTION = record(description=Field(nullable(text), None), name=Field(text), parameters=Field(anything))
_REQUEST = record(
    model=Field(text, "default-model"),
    messages=Field(array(_MESSAGE)),
    temperature=Field(number(0.0, 2.0), 0.95),
    top_p=Field(number(0.0, 1.0), 0.7),
    stream=Field(boolean, False),
    max_tokens=Field(integer(0), 2048),
    tools=Field(
        nullable(array(record(type=Field(literal("function"), "function"), function=Field(_FUNCTION)))), None
    ),
)


class ChatGLMCppProgram(Program):
    """The OpenAI-like server of chatglm.cpp."""

    cors = True
    linger: ClassVar[int] = 2
    """How many pieces a stream still makes for nobody."""
    lead: ClassVar[str] = ""
    """What the model writes before an answer."""
    prefix: ClassVar[int] = 0
    """Tokens that the tokenizer puts before a text, and counts with the answer's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._turn = asyncio.Lock()

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/v1/models", "GET"): self.list_models,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    async def list_models(self, _request: Request) -> Reply:
        """One card, under a borrowed name."""
        card = {"id": "gpt-3.5-turbo", "object": "model", "owned_by": "owner", "permission": []}
        return json_reply({"object": "list", "data": [card]})

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = read_body(request, _REQUEST)
        if not body["messages"]:
            return detail(400, "empty messages")
        prompt = _prompt(body, self.lead)
        if body["stream"]:
            return Stream(self._events(request, prompt, _asked(body)), linger=self.linger)
        self.check(body["max_tokens"])
        answer = "".join([piece async for piece in self.pieces(request, prompt, _asked(body))])
        return json_reply(_whole(body, self.stripped(answer), self.prefix))

    def check(self, length: object) -> None:
        """Refuse a length beyond the model's own."""
        check_length(length)

    def stripped(self, answer: str) -> str:
        """A whole answer as the program gives it."""
        return answer

    def pieces(self, request: Request, prompt: BrainPrompt, asked: int) -> AsyncGenerator[str, None]:
        """What the model says to a prompt of so many tokens."""
        del asked
        return self.voice.speak(request, prompt)

    async def _events(self, request: Request, prompt: BrainPrompt, asked: int) -> AsyncGenerator[bytes, None]:
        """The stream: it keeps the model to its end, and the loop for one piece at a time."""
        yield _chunk({"role": "assistant"})
        async with self._turn, aclosing(self.pieces(request, prompt, asked)) as pieces:
            self.check(prompt.params["max_length"])
            more = True
            while more:
                async with self.gate.hold():
                    piece = await anext(pieces, None)
                more = piece is not None
                if more:
                    yield _chunk({"content": piece})
        yield _chunk({}, finish_reason="stop")


class ChatGLMCppOfV3(ChatGLMCppProgram):
    """The same with ChatGLM3 as it is in C++."""

    lead = "\n "
    prefix = 2

    def check(self, length: object) -> None:
        """See `ChatGLMCppProgram`: the program's loop checks nothing."""

    def stripped(self, answer: str) -> str:
        """See `ChatGLMCppProgram`."""
        return answer.strip()

    async def pieces(self, request: Request, prompt: BrainPrompt, asked: int) -> AsyncGenerator[str, None]:
        """See `ChatGLMCppProgram`: as many tokens as fit behind what is kept of the prompt."""
        most = prompt.params["max_length"]
        length = min(asked, _PROMPT_WINDOW)
        kept = replace(prompt, text=prompt.text[-_PROMPT_WINDOW:])
        async with aclosing(self.voice.speak(request, kept)) as pieces:
            async for piece in pieces:
                parts = tokens(piece)[: max(0, int(str(most)) - length)]
                length += len(parts)
                if length >= MAX_LENGTH:
                    raise ModelError("the model's memory is full")
                if parts:
                    yield "".join(parts)


class ChatGLMCppOfGLM4(ChatGLMCppOfV3):
    """The same with GLM-4."""

    lead = "\n"


def check_length(length: object) -> None:
    """The model's own refusal of a length beyond its memory."""
    if not isinstance(length, int) or length > MAX_LENGTH:
        raise ModelError(f"max_length is {MAX_LENGTH}")


def _prompt(body: dict[str, Any], lead: str) -> BrainPrompt:
    messages = [{"role": message["role"], "content": message["content"]} for message in body["messages"]]
    if body["tools"]:
        messages.insert(0, {"role": "system", "content": _tools_text(body["tools"])})
    *history, last = messages
    params = {
        "do_sample": body["temperature"] > 0,
        "max_context_length": _PROMPT_WINDOW,
        "max_length": body["max_tokens"],
        "temperature": body["temperature"],
        "top_p": body["top_p"],
    }
    tools = offered(body["tools"])
    return BrainPrompt(MODEL, last["content"], history, params, lead=lead, tools=tools, write_call=fenced)


def _tools_text(tools: list[dict[str, Any]]) -> str:
    return f"{TOOLS_TEXT}\n{json.dumps(tools, indent=4, ensure_ascii=False)}"


def _asked(body: dict[str, Any]) -> int:
    """The tokens of the prompt, before it is cut."""
    asked = sum(len(message["content"]) for message in body["messages"])
    return asked + (len(_tools_text(body["tools"])) if body["tools"] else 0)


def _whole(body: dict[str, Any], answer: str, prefix: int) -> dict[str, object]:
    call = find_call(answer) if body["tools"] else None
    calls = (
        [{"function": {name: call[name] for name in ("arguments", "name")}, "type": "function"}]
        if call
        else None
    )
    message = {"role": "assistant", "content": answer, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "function_call" if call else "stop"}
    prompt, completion = min(_asked(body), _PROMPT_WINDOW), min(len(answer) + prefix, body["max_tokens"])
    return {
        "id": "chatcmpl",
        "model": "default-model",
        "object": "chat.completion",
        "created": now(),
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    }


def _chunk(delta: dict[str, object], **more: object) -> bytes:
    return sse(compact({"object": "chat.completion.chunk", "choices": [{"delta": delta, **more}]}))
