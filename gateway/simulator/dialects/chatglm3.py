"""ChatGLM3 `openai_api_demo/api_server.py` from 2024-05 on, and its two elder variants.

Non-stream answers block the loop, streams block it up to their eighth character. Streams of the two younger
variants lose short answers, break on the text `get_`, and make up what a tool returned.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.simulator.brain import STOP_TOKEN, BrainPrompt, tokens
from gateway.simulator.dialects.pythoncall import TOOLS_TEXT, find_call, write_call
from gateway.simulator.exchange import (
    ModelError,
    Reply,
    Request,
    Stream,
    compact,
    detail,
    json_reply,
    spaced,
    sse,
)
from gateway.simulator.program import Handler, Program, now
from gateway.simulator.shapes import models_reply, offered, usage
from gateway.simulator.validation import (
    OBJECTS,
    Check,
    Field,
    Record,
    anything,
    array,
    boolean,
    either,
    integer,
    literal,
    loose_text,
    nullable,
    number,
    read_body,
    record,
    text,
)

_END = "</s>"
_HEARD_FROM = 7
"""A stream says nothing before its text is longer than this."""


def _request(word: Check, content: Check, tools: str, offered: Check) -> Record:
    call = record(name=Field(nullable(word), None), arguments=Field(nullable(word), None))
    message = record(
        role=Field(literal("user", "assistant", "system", "function")),
        content=Field(content, None),
        name=Field(nullable(word), None),
        function_call=Field(nullable(call), None),
    )
    fields = {
        "model": Field(word),
        "messages": Field(array(message)),
        "temperature": Field(nullable(number()), 0.8),
        "top_p": Field(nullable(number()), 0.8),
        "max_tokens": Field(nullable(integer()), None),
        "stream": Field(nullable(boolean), False),
        "repetition_penalty": Field(nullable(number()), 1.1),
        tools: Field(offered, None),
    }
    return record(**fields)


@dataclass(frozen=True, slots=True)
class _Step:
    """The generation after one more piece: all the text, the tokens so far, and why it ended."""

    text: str
    tokens: int
    finish: str | None


@dataclass(frozen=True, slots=True)
class _ChatGLM3Job:
    """One generation: its prompt, how long that is, and how many tokens may follow."""

    prompt: BrainPrompt
    input_tokens: int
    budget: int


class ChatGLM3Program(Program):
    """The server of 2024-05 and later ("1.3")."""

    cors = True
    generating = frozenset({"/v1/chat/completions", "/v1/embeddings"})
    model: ClassVar[str] = "chatglm3-6b"
    card: ClassVar[str] = "chatglm3-6b"
    chat_request: ClassVar[Record] = _request(text, text, "tools", nullable(OBJECTS))
    embedding_input: ClassVar[Field] = Field(either(list_of_str=array(text), str=text))
    drops_first_system: ClassVar[bool] = True
    pydantic: ClassVar[int] = 2
    tools_field: ClassVar[str] = "tools"

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {
            ("/health", "GET"): self.health,
            ("/v1/models", "GET"): self.list_models,
            ("/v1/embeddings", "POST"): self.get_embeddings,
            ("/v1/chat/completions", "POST"): self.create_chat_completion,
        }

    async def health(self, _request: Request) -> Reply:
        """200 without a body."""
        return Reply(200, b"", None)

    async def list_models(self, _request: Request) -> Reply:
        """The one model."""
        return models_reply(self.card)

    async def get_embeddings(self, request: Request) -> Reply:
        """Vectors, with a usage that counts the letters of a lone text as if each were a text."""
        model = record(input=self.embedding_input, model=Field(text))
        body = read_body(request, model)
        texts = list(body["input"])
        vectors = [body["input"]] if isinstance(body["input"], str) else texts
        data = [
            {"object": "embedding", "embedding": [float(len(item)), 0.5, -0.25], "index": index}
            for index, item in enumerate(vectors)
        ]
        counts = {
            "prompt_tokens": sum(len(item.split()) for item in texts),
            "completion_tokens": 0,
            "total_tokens": sum(len(item) for item in texts),
        }
        return json_reply({"data": data, "model": body["model"], "object": "list", "usage": counts})

    async def create_chat_completion(self, request: Request) -> Reply | Stream:
        """Chat, whole or streamed."""
        body = read_body(request, self.chat_request, pydantic=self.pydantic)
        if not body["messages"] or body["messages"][-1]["role"] == "assistant":
            return detail(400, "Invalid request")
        if body["stream"]:
            return await self._stream(request, body)
        job = self._first_job(body)
        steps = [step async for step in self._steps(request, job)]
        return json_reply(self._whole(body, job, steps[-1]))

    def _first_job(self, body: dict[str, Any]) -> _ChatGLM3Job:
        tools = body[self.tools_field]
        return self._job(body, self._messages(body["messages"], tools), tools)

    def _messages(self, messages: list[dict[str, Any]], tools: object) -> list[dict[str, Any]]:
        mapped: list[dict[str, Any]] = []
        drop = False
        if tools:
            mapped.append({"role": "system", "content": TOOLS_TEXT, "tools": tools})
            drop = self.drops_first_system
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "function":
                mapped.append({"role": "observation", "content": content})
            elif role == "assistant" and message["function_call"] is not None:
                mapped += [_called(part) for part in content.split("<|assistant|>")]
            elif role == "system" and drop:
                drop = False
            else:
                mapped.append({"role": role, "content": content})
        return mapped

    def _job(self, body: dict[str, Any], messages: list[dict[str, Any]], tools: object) -> _ChatGLM3Job:
        *history, last = messages
        counted = 3 + sum(_count(message) for message in messages)
        length, budget = self._limits(body["max_tokens"] or 1024, counted)
        warmth = float(body["temperature"])
        if body["repetition_penalty"] <= 0 or not 0 <= float(body["top_p"]) <= 1:
            raise ModelError("transformers refuses the parameter")
        params = {
            "do_sample": warmth > 1e-5,
            "logits_processor": "'list'",
            **length,
            "repetition_penalty": body["repetition_penalty"],
            "role": last["role"],
            **({"temperature": warmth} if warmth > 1e-5 else {}),
            "top_p": float(body["top_p"]),
        }
        prompt = BrainPrompt(
            self.model,
            last["content"],
            history,
            params,
            lead="\n ",
            observation=last["role"] == "observation",
            tools=offered(tools),
            write_call=write_call,
        )
        return _ChatGLM3Job(prompt, counted, budget)

    def _limits(self, max_tokens: int, input_tokens: int) -> tuple[dict[str, int], int]:
        """The limit as the model is told it, and the tokens that it leaves for the answer."""
        del input_tokens  # the elder way counts them in
        return {"max_new_tokens": max_tokens}, max_tokens

    async def _steps(self, request: Request, job: _ChatGLM3Job) -> AsyncGenerator[_Step, None]:
        """The generation as the server decodes it: never with the last token, which it takes for the end."""
        visible, held, count, finish = "", "", 0, None
        async with aclosing(self._tokens(request, job)) as pieces:
            async for piece in pieces:
                count += len(piece)
                visible += held + "".join(piece[:-1])
                held = piece[-1]
                stop = visible.find(STOP_TOKEN)
                if stop >= 0:
                    visible, finish = visible[:stop], "function_call"
                if visible:
                    yield _Step(visible, count, finish)
                if finish:
                    break
        yield _Step(visible, count, "stop")

    async def _tokens(self, request: Request, job: _ChatGLM3Job) -> AsyncGenerator[list[str], None]:
        room = job.budget - 1
        async with aclosing(self.voice.speak(request, job.prompt)) as pieces:
            async for piece in pieces:
                parts = tokens(piece)
                if parts[:room]:
                    yield parts[:room]
                room -= len(parts)
                if room < 0:
                    return
        yield [_END]

    def _whole(self, body: dict[str, Any], job: _ChatGLM3Job, last: _Step) -> dict[str, object]:
        content = self._content(last.text)
        call = find_call(content) if body[self.tools_field] else None
        message = {
            "role": "assistant",
            "content": content,
            "name": None,
            "function_call": call,
        }
        choice = {"index": 0, "message": message, "finish_reason": "function_call" if call else "stop"}
        head = self._head(body["model"], "chat.completion")
        counts = usage(job.input_tokens, last.tokens)
        return {**head, "choices": [choice], "created": now(), "usage": counts}

    def _content(self, answer: str) -> str:
        return answer.strip()

    def _head(self, model: str, kind: str) -> dict[str, object]:
        return {"model": model, "id": "", "object": kind}

    def _chunk(self, model: str, delta: dict[str, object], finish: str | None, *, dated: bool = False) -> str:
        choice = {"delta": delta, "finish_reason": finish, "index": 0}
        created = {"created": now()} if dated else {}
        return compact({**self._head(model, "chat.completion.chunk"), "choices": [choice], **created})

    async def _stream(self, request: Request, body: dict[str, Any]) -> Stream:
        model = body["model"]
        direct = self._direct(model, self._steps(request, self._first_job(body)))
        first = await anext(direct)
        if "get_" not in first:
            return Stream(self._sent(direct))
        await direct.aclose()
        call = find_call(first) if first and body["tools"] else None
        if call is None:
            return Stream(self._sent(self._at_once(model, first)))
        invented = [
            {"role": "assistant", "content": first, "function_call": None},
            {"role": "function", "content": "", "function_call": None},
        ]
        messages = self._messages([*body["messages"], *invented], body["tools"])
        again = self._job(body, messages, body["tools"])
        return Stream(self._held(self._predict(model, request, lambda: again)), linger=None)

    async def _direct(self, model: str, steps: AsyncGenerator[_Step, None]) -> AsyncGenerator[str, None]:
        """The usual stream. Its first item decides the way and is never sent."""
        said, heard, called = "", False, False
        async with aclosing(steps):
            async for step in steps:
                delta, said = step.text[len(said) :], step.text
                if called or len(said) <= _HEARD_FROM:
                    continue
                called = "get_" in said
                if called:
                    continue
                if not heard:
                    yield self._spoken(model, "", step.finish)
                    delta, heard = said, True
                yield self._spoken(model, delta, step.finish)
        yield said if called else "[DONE]"

    def _spoken(self, model: str, content: str, finish: str | None) -> str:
        delta: dict[str, object] = {"role": "assistant", "content": content, "function_call": None}
        return self._chunk(model, delta, finish, dated=True)

    async def _at_once(self, model: str, answer: str) -> AsyncGenerator[str, None]:
        yield self._chunk(model, {"role": "assistant", "content": answer}, None)
        yield self._chunk(model, {}, "stop")
        yield "[DONE]"

    async def _predict(
        self, model: str, request: Request, job: Callable[[], _ChatGLM3Job]
    ) -> AsyncGenerator[str, None]:
        """The elder way to stream: a role first, a call where the model ends one, a second finish.

        The request is looked at behind the role: what cannot be digested cuts the stream there.
        """
        yield self._chunk(model, {"role": "assistant"}, None)
        said = ""
        try:
            steps = self._steps(request, job())
        except (TypeError, AttributeError, ValueError) as error:
            raise ModelError("the request cannot be digested") from error
        async with aclosing(steps):
            async for step in steps:
                delta, said = step.text[len(said) :], step.text
                if not delta and step.finish != "function_call":
                    continue
                call = find_call(said) if step.finish == "function_call" else None
                spoken: dict[str, object] = {"role": "assistant", "content": delta, "function_call": call}
                yield self._chunk(model, spoken, step.finish)
        yield self._chunk(model, {}, "stop")
        yield "[DONE]"

    async def _sent(self, chunks: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
        """Chunks of a generator that runs beside the loop: each waits only until the loop is free."""
        async with aclosing(chunks):
            async for chunk in chunks:
                await self.gate.wait_through()
                yield sse(chunk)

    async def _held(self, chunks: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
        """Chunks of a generator that runs inside the loop and keeps it to the end."""
        async with self.gate.hold(), aclosing(chunks):
            async for chunk in chunks:
                yield sse(chunk)


class ChatGLM3Of2024(ChatGLM3Program):
    """The server of 2024-01-05: replies without model and id, and every system message is kept."""

    embedding_input = Field(array(text))
    drops_first_system = False

    def _head(self, model: str, kind: str) -> dict[str, object]:  # noqa: ARG002 - the model gets lost here
        return {"object": kind}

    def _chunk(self, model: str, delta: dict[str, object], finish: str | None, *, dated: bool = False) -> str:  # noqa: ARG002 - never dated
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return compact({**self._head(model, "chat.completion.chunk"), "choices": [choice]})


class ChatGLM3Of2023(ChatGLM3Program):
    """`openai_api.py` of 2023-11-05, on pydantic 1: `functions`, no health, whole streams that block."""

    generating = frozenset({"/v1/chat/completions"})
    card = "gpt-3.5-turbo"
    pydantic = 1
    tools_field = "functions"
    chat_request = _request(loose_text, nullable(loose_text), "functions", anything)
    drops_first_system = False

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        kept = ("/v1/models", "/v1/chat/completions")
        return {route: handler for route, handler in super().routes().items() if route[0] in kept}

    def _limits(self, max_tokens: int, input_tokens: int) -> tuple[dict[str, int], int]:
        length = min(max_tokens + input_tokens, 8192)
        return {"max_length": length}, length - input_tokens

    def _content(self, answer: str) -> str:
        return answer

    def _head(self, model: str, kind: str) -> dict[str, object]:
        return {"model": model, "object": kind}

    def _chunk(self, model: str, delta: dict[str, object], finish: str | None, *, dated: bool = False) -> str:  # noqa: ARG002 - never dated
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return spaced({**self._head(model, "chat.completion.chunk"), "choices": [choice]}, escaped=True)

    async def _stream(self, request: Request, body: dict[str, Any]) -> Stream:
        chunks = self._predict(body["model"], request, lambda: self._first_job(body))
        return Stream(self._held(chunks), linger=None)


def _called(part: str) -> dict[str, str]:
    name, content = part.split("\n", maxsplit=1)
    return {"role": "assistant", "metadata": name, "content": content.strip()}


def _count(message: dict[str, Any]) -> int:
    content = message["content"]
    if message.get("tools"):
        content += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
    return 2 + len(message.get("metadata", "")) + len(content)
