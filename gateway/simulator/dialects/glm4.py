"""GLM-4 `glm_server.py`, in front of vLLM: truly asynchronous, with real tool calls and its own mishaps.

A system text is doubled without tools and lost with them; an assistant text of several lines becomes as many
messages; a streamed call ends without `[DONE]`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from gateway.simulator.brain import BrainPrompt, tokens
from gateway.simulator.dialects.jsoncall import find_call, write_call
from gateway.simulator.exchange import ModelError, Reply, Request, Stream, compact, detail, json_reply, sse
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import models_reply, offered, random_id, usage
from gateway.simulator.validation import (
    OBJECTS,
    Field,
    array,
    boolean,
    either,
    integer,
    literal,
    mapping,
    nullable,
    number,
    read_body,
    record,
    text,
)

_CALL = record(name=Field(nullable(text), None), arguments=Field(nullable(text), None))
_CHOICE = either(**{"str": text, "dict[any,any]": mapping})
_MESSAGE = record(
    role=Field(literal("user", "assistant", "system", "tool")),
    content=Field(nullable(text), None),
    function_call=Field(nullable(_CALL), None),
    tool_calls=Field(nullable(array(record(id=Field(text), function=Field(_CALL)))), None),
)
_REQUEST = record(
    model=Field(text),
    messages=Field(array(_MESSAGE)),
    temperature=Field(nullable(number()), 0.8),
    top_p=Field(nullable(number()), 0.8),
    max_tokens=Field(nullable(integer()), None),
    stream=Field(nullable(boolean), False),
    tools=Field(nullable(OBJECTS), None),
    tool_choice=Field(nullable(_CHOICE), None),
    repetition_penalty=Field(nullable(number()), 1.1),
)
_PROMPT_END = "<|assistant|>\n"


@dataclass(frozen=True, slots=True)
class _GLM4Job:
    """One generation, and the marks that its chunks share."""

    model: str
    prompt: BrainPrompt
    input_tokens: int
    budget: int
    identity: str = field(default_factory=lambda: random_id("chatcmpl-", 29))
    fingerprint: str = field(default_factory=lambda: random_id("fp_", 9))

    def body(self, kind: str, choice: dict[str, object], **more: object) -> dict[str, object]:
        """A reply or a chunk around its one choice."""
        head = {"model": self.model, "id": self.identity, "object": kind, "choices": [choice]}
        return {**head, "created": now(), "system_fingerprint": self.fingerprint, **more}

    def chunk(self, delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
        """One event of a stream."""
        choice: dict[str, object] = {"delta": delta, "finish_reason": finish, "index": 0}
        return sse(compact(self.body("chat.completion.chunk", choice, **more)))


class GLM4Program(Program):
    """The text server."""

    blocking = False
    cors = True

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/health", "GET"): self.health,
            ("/v1/models", "GET"): self.list_models,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    async def health(self, _request: Request) -> Reply:
        """200 without a body."""
        return Reply(200, b"", None)

    async def list_models(self, _request: Request) -> Reply:
        """The one model."""
        return models_reply("glm-4")

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = read_body(request, _REQUEST)
        if not body["messages"] or body["messages"][-1]["role"] == "assistant":
            return detail(400, "Invalid request")
        job = _job(body)
        _check_sampling(job.prompt.params)
        if body["stream"]:
            return await self._stream(request, job)
        pieces = [piece async for piece, _, _ in self._pieces(request, job)]
        return json_reply(_whole(job, "".join(pieces)))

    async def _pieces(self, request: Request, job: _GLM4Job) -> AsyncGenerator[tuple[str, bool, bool], None]:
        """Pieces of at most the budget's tokens: each with "is the last" and "was cut here"."""
        room = job.budget
        async with aclosing(self.voice.speak_marked(request, job.prompt)) as pieces:
            async for piece, last in pieces:
                parts = tokens(piece)
                cut = len(parts) > room or (len(parts) == room and not last)
                yield "".join(parts[:room]), last or cut, cut
                room -= len(parts)
                if cut:
                    return

    async def _stream(self, request: Request, job: _GLM4Job) -> Stream:
        way = self._called if job.prompt.tools else self._plain
        events = way(request, job)
        first = await anext(events)
        return Stream(_rejoined(first, events))

    async def _plain(self, request: Request, job: _GLM4Job) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._pieces(request, job)) as pieces:
            async for piece, last, cut in pieces:
                finish = ("length" if cut else "stop") if last else None
                yield job.chunk(_delta(piece), finish)
        yield sse("[DONE]")

    async def _called(self, request: Request, job: _GLM4Job) -> AsyncGenerator[bytes, None]:
        """A stream where tools were offered: silent until the text has shown what it is."""
        names = {tool.name for tool in job.prompt.tools}
        said, named = "", False
        async with aclosing(self._pieces(request, job)) as pieces:
            async for piece, _, _ in pieces:
                said += piece
                name, found, arguments = said.strip().partition("\n")
                if named:
                    yield job.chunk(_call_delta(None, None, piece))
                elif found and name.strip() in names:
                    named = True
                    yield job.chunk(_call_delta("assistant", name.strip(), ""))
                    yield job.chunk(_call_delta(None, None, arguments))
        if named:
            delta: dict[str, object] = {"role": None, "content": None, "function_call": None}
            yield job.chunk(delta, "tool_calls", usage=None)
            return
        yield job.chunk(_delta(said), "stop")
        yield sse("[DONE]")


def _check_sampling(params: Mapping[str, Any]) -> None:
    """What vLLM refuses before it generates; the server answers 500."""
    good = (
        0 < params["repetition_penalty"] <= 2
        and params["temperature"] >= 0
        and 0 < params["top_p"] <= 1
        and params["max_tokens"] >= 1
    )
    if not good:
        raise ModelError("a sampling parameter is out of range")


def _job(body: dict[str, Any]) -> _GLM4Job:
    tools, choice = body["tools"], body["tool_choice"]
    if choice == "none":
        tools = None
    elif isinstance(choice, dict) and tools:
        wanted = choice.get("function", {}).get("name")
        tools = [tool for tool in tools if tool.get("function", {}).get("name") == wanted]
    messages = _messages(body["messages"], tools, choice)
    *history, last = messages
    budget = body["max_tokens"] or 1024
    params = {
        "max_tokens": budget,
        "presence_penalty": 1.0,
        "repetition_penalty": body["repetition_penalty"],
        "stop_token_ids": [151329, 151336, 151338],
        "temperature": float(body["temperature"]),
        "top_p": float(body["top_p"]),
    }
    counted = len(json.dumps(messages, ensure_ascii=False)) + len(_PROMPT_END)
    prompt = BrainPrompt(
        "glm-4-9b-chat",
        last["content"],
        history,
        params,
        lead="\n",
        observation=last["role"] == "observation",
        tools=offered(tools),
        write_call=write_call,
    )
    return _GLM4Job(body["model"], prompt, counted, budget)


def _messages(messages: list[dict[str, Any]], tools: object, choice: object) -> list[dict[str, Any]]:
    mapped: list[dict[str, Any]] = []
    if tools:
        mapped.append({"role": "system", "content": None, "tools": tools})
        if isinstance(choice, dict):
            mapped.append({"role": "assistant", "metadata": choice["function"]["name"], "content": ""})
    drop = bool(tools)
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system" and drop:
            drop = False
        elif role == "tool":
            mapped.append({"role": "observation", "content": content, "function_call": True})
        elif role == "assistant":
            mapped += _assistant(message)
        else:
            mapped.append({"role": role, "content": content})
    system = next((message["content"] for message in messages if message["role"] == "system"), None)
    if not tools and system is not None:
        mapped.insert(0, {"role": "system", "content": system})
    return mapped


def _assistant(message: dict[str, Any]) -> list[dict[str, Any]]:
    if message["tool_calls"]:
        calls = [call["function"] for call in message["tool_calls"]]
        return [
            {"role": "assistant", "metadata": call["name"], "content": call["arguments"]} for call in calls
        ]
    lines = message["content"].split("\n")
    return [{"role": "assistant", "metadata": "", "content": line.strip()} for line in lines]


def _whole(job: _GLM4Job, answer: str) -> dict[str, object]:
    tools = job.prompt.tools
    call = find_call(answer, [tool.name for tool in tools]) if tools else None
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if call else answer.strip(),
        "function_call": None,
        "tool_calls": [_tool_call(random_id("call_", 24), call["name"], call["arguments"])] if call else None,
    }
    reason = "tool_calls" if call else "stop"
    choice: dict[str, object] = {"index": 0, "message": message, "finish_reason": reason}
    return job.body("chat.completion", choice, usage=usage(job.input_tokens, len(tokens(answer))))


def _delta(content: str) -> dict[str, object]:
    return {"role": "assistant", "content": content, "function_call": None}


def _call_delta(role: str | None, name: str | None, arguments: str) -> dict[str, object]:
    identity = random_id("call_", 24) if name else None
    calls = [_tool_call(identity, name, arguments)]
    return {"role": role, "content": None, "function_call": None, "tool_calls": calls}


def _tool_call(identity: str | None, name: str | None, arguments: str) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"index": 0, "id": identity, "function": function, "type": "function"}


async def _rejoined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event
