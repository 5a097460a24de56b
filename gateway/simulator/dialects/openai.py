"""A correct modern OpenAI-like server, answering as vLLM would: the one simulated server without quirks.

It batches, so it never blocks; it notices a client that leaves at once. Tokens are characters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.dialects.jsoncall import find_call, write_call
from gateway.simulator.exchange import RefusedError, Reply, Request, Stream, compact, json_reply
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import offered, random_id
from gateway.simulator.validation import (
    Field,
    anything,
    array,
    boolean,
    check_body,
    either,
    integer,
    literal,
    nullable,
    number,
    record,
    text,
)

MODEL = "simulated-openai"

_PART = record(type=Field(text), text=Field(nullable(text), None))
_MESSAGE = record(
    role=Field(literal("system", "developer", "user", "assistant", "tool", "function")),
    content=Field(nullable(either(str=text, list=array(_PART))), None),
    tool_calls=Field(nullable(array(anything)), None),
)
_REQUEST = record(
    model=Field(text, MODEL),
    messages=Field(array(_MESSAGE)),
    temperature=Field(nullable(number(0.0, 2.0)), None),
    top_p=Field(nullable(number(0.0, 1.0)), None),
    n=Field(nullable(integer(1)), 1),
    max_tokens=Field(nullable(integer(1)), None),
    max_completion_tokens=Field(nullable(integer(1)), None),
    stop=Field(nullable(either(str=text, list=array(text))), None),
    stream=Field(nullable(boolean), False),
    stream_options=Field(nullable(record(include_usage=Field(nullable(boolean), False))), None),
    tools=Field(nullable(array(anything)), None),
    tool_choice=Field(anything, None),
)


@dataclass(frozen=True, slots=True)
class _OpenAIJob:
    """One request: how often to generate what, within which bounds."""

    model: str
    prompt: BrainPrompt
    asked: int
    choices: int
    limit: int | None
    stops: list[str]
    wants_usage: bool
    identity: str = field(default_factory=lambda: random_id("chatcmpl-", 32))
    created: int = field(default_factory=now)

    def body(self, kind: str, choices: list[dict[str, object]], **more: object) -> dict[str, object]:
        """A reply or a chunk around its choices."""
        head = {"id": self.identity, "object": kind, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}

    def chunk(self, index: int, delta: dict[str, object], finish: str | None = None) -> bytes:
        """One event of a stream."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event(self.body("chat.completion.chunk", [choice]))

    def usage(self, answered: int) -> dict[str, int]:
        """The counts of the whole request."""
        return {
            "prompt_tokens": self.asked,
            "total_tokens": self.asked + answered,
            "completion_tokens": answered,
        }


class OpenAIProgram(Program):
    """The server that every other one should have been."""

    blocking = False
    cors = True

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/health", "GET"): self.health,
            ("/v1/models", "GET"): self.list_models,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    def refusal(self, status: int, phrase: str) -> Reply:
        """See `Program`."""
        return _error(status, phrase)

    async def health(self, _request: Request) -> Reply:
        """200 without a body."""
        return Reply(200, b"", None)

    async def list_models(self, _request: Request) -> Reply:
        """One card; every other name is answered too."""
        card = {"id": MODEL, "object": "model", "created": now(), "owned_by": "vllm", "root": MODEL}
        return json_reply({"object": "list", "data": [{**card, "parent": None, "max_model_len": 8192}]})

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = _read(request)
        job = _job(body)
        if body["stream"]:
            return Stream(self._events(request, job))
        choices, answered = [], 0
        for index in range(job.choices):
            said, finish = "", "stop"
            async with aclosing(self._texts(request, job)) as texts:
                async for piece, end in texts:
                    said, finish = said + piece, end or finish
            choices.append(_choice(job, index, said, finish))
            answered += len(said)
        return json_reply(job.body("chat.completion", choices, usage=job.usage(answered)))

    async def _events(self, request: Request, job: _OpenAIJob) -> AsyncGenerator[bytes, None]:
        answered = 0
        for index in range(job.choices):
            yield job.chunk(index, {"role": "assistant", "content": ""})
            said = ""
            async with aclosing(self._texts(request, job)) as texts:
                async for piece, end in texts:
                    said += piece
                    if not job.prompt.tools and piece:
                        yield job.chunk(index, {"content": piece})
                    if end and not job.prompt.tools:
                        yield job.chunk(index, {}, end)
            if job.prompt.tools:
                for event in _tool_events(job, index, said):
                    yield event
            answered += len(said)
        if job.wants_usage:
            yield _event(job.body("chat.completion.chunk", [], usage=job.usage(answered)))
        yield b"data: [DONE]\n\n"

    async def _texts(self, request: Request, job: _OpenAIJob) -> AsyncGenerator[tuple[str, str | None], None]:
        """An answer within its bounds: pieces, the last with its finish reason."""
        held, room = "", job.limit
        keep = max((len(stop) for stop in job.stops), default=1) - 1
        async with aclosing(self.voice.speak(request, job.prompt, notices=True)) as pieces:
            async for piece in pieces:
                cut = room is not None and len(piece) > room
                held += piece[:room]
                room = None if room is None else room - len(piece)
                found = [held.find(stop) for stop in job.stops if stop in held]
                if found:
                    yield held[: min(found)], "stop"
                    return
                if cut:
                    yield held, "length"
                    return
                ready = len(held) - keep
                if ready > 0:
                    yield held[:ready], None
                    held = held[ready:]
        yield held, "stop"


def _read(request: Request) -> dict[str, Any]:
    body, issues = check_body(request, _REQUEST)
    if issues:
        place = ".".join(str(step) for step in issues[0].place[1:])
        raise RefusedError(_error(400, f"{place or 'body'}: {issues[0].message}", place or None))
    if not body["messages"]:
        raise RefusedError(_error(400, "messages: at least one message is needed", "messages"))
    return body


def _job(body: dict[str, Any]) -> _OpenAIJob:
    choice = body["tool_choice"]
    tools = [] if choice == "none" else offered(body["tools"])
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool.name == choice.get("function", {}).get("name")]
    messages = [
        {"role": message["role"], "content": _flat(message["content"])} for message in body["messages"]
    ]
    *history, last = messages
    names = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop")
    prompt = BrainPrompt(
        body["model"],
        last["content"],
        history,
        {name: body[name] for name in names if body[name] is not None},
        observation=last["role"] in ("tool", "function"),
        tools=tools,
        must_call=isinstance(choice, dict) or choice == "required",
        write_call=write_call,
    )
    stop = body["stop"]
    return _OpenAIJob(
        body["model"],
        prompt,
        asked=sum(len(message["content"]) for message in messages),
        choices=body["n"] or 1,
        limit=body["max_completion_tokens"] or body["max_tokens"],
        stops=[stop] if isinstance(stop, str) else [word for word in stop or [] if word],
        wants_usage=bool((body["stream_options"] or {}).get("include_usage")),
    )


def _flat(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["text"] is not None)
    return content or ""


def _choice(job: _OpenAIJob, index: int, said: str, finish: str) -> dict[str, object]:
    call = find_call(said, [tool.name for tool in job.prompt.tools])
    calls = [{"id": random_id("chatcmpl-tool-", 32), "type": "function", "function": call}] if call else []
    message = {"role": "assistant", "content": None if call else said, "tool_calls": calls}
    reason = "tool_calls" if call else finish
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _tool_events(job: _OpenAIJob, index: int, said: str) -> list[bytes]:
    """What a stream tells where tools were offered: the text, or its call in two steps."""
    call = find_call(said, [tool.name for tool in job.prompt.tools])
    if call is None:
        return [job.chunk(index, {"content": said}), job.chunk(index, {}, "stop")]
    head = {"index": 0, "id": random_id("chatcmpl-tool-", 32), "type": "function"}
    named = {**head, "function": {"name": call["name"], "arguments": ""}}
    argued = {"index": 0, "function": {"arguments": call["arguments"]}}
    return [
        job.chunk(index, {"tool_calls": [named]}),
        job.chunk(index, {"tool_calls": [argued]}),
        job.chunk(index, {}, "tool_calls"),
    ]


def _error(status: int, message: str, param: str | None = None) -> Reply:
    kind = "BadRequestError" if status == 400 else HTTPStatus(status).phrase.replace(" ", "")
    return json_reply({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def _event(content: dict[str, object]) -> bytes:
    return f"data: {compact(content)}\n\n".encode()
