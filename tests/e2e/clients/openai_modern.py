"""The official OpenAI SDK of today (3.x) and of the 1.x line, as a user would write with it.

Run with the python of an environment that has the package `openai`; needs nothing else.

    python openai_modern.py --url http://127.0.0.1:8000/v1 --model chatglm2-6b [--key KEY]
                            [--prompt TEXT] [--jobs chat,stream,...]

`--url` is given to the SDK unchanged as base_url. Without a key the SDK gets "none", since it insists on one.
Prints one JSON object: `sdk` (its version) and one member for each job that ran, in this order.

    models        [id, ...]
    chat          REPLY = {id, model, role, text, finish_reason, usage or null};
                  usage = {prompt_tokens, completion_tokens, total_tokens}
    chat_async    REPLY
    stream        STREAM = {ids, models, roles, deltas, text, finish_reasons, usage or null, usage_chunks,
                  chunks}; ids and models without repeats, deltas every non-empty piece of text, all in order
                  of arrival
    stream_async  STREAM
    tools         {first: {text, finish_reason, calls}, second: REPLY or null}; calls = [{id, name,
                  arguments}], arguments the JSON text exactly as received; second is the turn with the tools'
                  results, null where the model called none
    stream_tools  {text, finish_reasons, calls [{index, id, name, arguments, pieces}]};
                  pieces counts the deltas of a call
    error         ERROR or null: what asking for an unknown model raised;
                  ERROR = {class, status, type, param, code, message}, null what the SDK does not know

A job that the SDK ends with an error is {error: ERROR} instead. Anything else that goes wrong is a traceback
and an exit status of 1.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

Json = dict[str, Any]

WEATHER = "北京，晴，25°C"
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "name of the city"}},
                "required": ["city"],
            },
        },
    }
]


class Jobs:
    """What this client can do, a method a job; one object a run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.options: Json = {
            "base_url": arguments.url,
            "api_key": arguments.key or "none",
            "max_retries": 0,
            "timeout": arguments.timeout,
        }
        self.client = openai.OpenAI(**self.options)
        self.model: str = arguments.model
        self.prompt: str = arguments.prompt

    @property
    def messages(self) -> list[ChatCompletionMessageParam]:
        return [{"role": "user", "content": self.prompt}]

    def models(self) -> list[str]:
        return [model.id for model in self.client.models.list()]

    def chat(self) -> Json:
        return reply(self.client.chat.completions.create(model=self.model, messages=self.messages))

    def chat_async(self) -> Json:
        async def ask() -> ChatCompletion:
            async with openai.AsyncOpenAI(**self.options) as client:
                return await client.chat.completions.create(model=self.model, messages=self.messages)

        return reply(asyncio.run(ask()))

    def stream(self) -> Json:
        chunks = self.client.chat.completions.create(
            model=self.model, messages=self.messages, stream=True, stream_options={"include_usage": True}
        )
        return streamed(list(chunks))

    def stream_async(self) -> Json:
        async def collect() -> list[ChatCompletionChunk]:
            async with openai.AsyncOpenAI(**self.options) as client:
                chunks = await client.chat.completions.create(
                    model=self.model,
                    messages=self.messages,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                return [chunk async for chunk in chunks]

        return streamed(asyncio.run(collect()))

    def tools(self) -> Json:
        first = self.client.chat.completions.create(model=self.model, messages=self.messages, tools=TOOLS)
        choice = first.choices[0]
        calls = function_calls(choice.message)
        return {
            "first": {"text": choice.message.content, "finish_reason": choice.finish_reason, "calls": calls},
            "second": self.second_turn(choice.message, calls) if calls else None,
        }

    def second_turn(self, asked: ChatCompletionMessage, calls: list[Json]) -> Json:
        """Send the SDK's own message back, as its documentation shows, with a result for each call."""
        messages: list[Any] = [*self.messages, asked]
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": WEATHER} for call in calls]
        return reply(self.client.chat.completions.create(model=self.model, messages=messages, tools=TOOLS))

    def stream_tools(self) -> Json:
        chunks = self.client.chat.completions.create(
            model=self.model, messages=self.messages, tools=TOOLS, stream=True
        )
        return streamed_calls(list(chunks))

    def error(self) -> Json | None:
        try:
            self.client.chat.completions.create(model="no-such-model", messages=self.messages)
        except openai.OpenAIError as error:
            return seen(error)
        return None


def reply(answer: ChatCompletion) -> Json:
    choice = answer.choices[0]
    return {
        "id": answer.id,
        "model": answer.model,
        "role": choice.message.role,
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "usage": counts(answer.usage),
    }


def counts(usage: openai.types.CompletionUsage | None) -> Json | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def streamed(chunks: list[ChatCompletionChunk]) -> Json:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    deltas = [choice.delta.content for choice in choices if choice.delta.content]
    usages = [counts(chunk.usage) for chunk in chunks if chunk.usage is not None]
    return {
        "ids": unrepeated([chunk.id for chunk in chunks]),
        "models": unrepeated([chunk.model for chunk in chunks]),
        "roles": [choice.delta.role for choice in choices if choice.delta.role],
        "deltas": deltas,
        "text": "".join(deltas),
        "finish_reasons": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usage": usages[-1] if usages else None,
        "usage_chunks": len(usages),
        "chunks": len(chunks),
    }


def unrepeated(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def function_calls(message: ChatCompletionMessage) -> list[Json]:
    return [
        {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        for call in message.tool_calls or []
        if call.type == "function"
    ]


def streamed_calls(chunks: list[ChatCompletionChunk]) -> Json:
    """Join the pieces of each call by their index, the way the SDK's documentation tells its users to."""
    calls: dict[int, Json] = {}
    choices = [choice for chunk in chunks for choice in chunk.choices]
    for piece in (piece for choice in choices for piece in choice.delta.tool_calls or []):
        new = {"index": piece.index, "id": None, "name": None, "arguments": "", "pieces": 0}
        call = calls.setdefault(piece.index, new)
        call["pieces"] += 1
        call["id"] = piece.id or call["id"]
        if piece.function is not None:
            call["name"] = piece.function.name or call["name"]
            call["arguments"] += piece.function.arguments or ""
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish_reasons": [choice.finish_reason for choice in choices if choice.finish_reason],
        "calls": list(calls.values()),
    }


def seen(error: openai.OpenAIError) -> Json:
    members = ("type", "param", "code")
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        **{member: getattr(error, member, None) for member in members},
        "message": str(error),
    }


def attempt(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except openai.OpenAIError as error:
        return {"error": seen(error)}


JOBS = ("models", "chat", "chat_async", "stream", "stream_async", "tools", "stream_tools", "error")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--prompt", default="你好")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one call")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    jobs = Jobs(arguments)
    asked = arguments.jobs.split(",")
    report = {name: attempt(getattr(jobs, name)) for name in JOBS if name in asked}
    json.dump({"sdk": openai.__version__, **report}, sys.stdout, ensure_ascii=True)


if __name__ == "__main__":
    main()
