"""LangChain's ChatOpenAI, today's way to use an OpenAI-like server from LangChain.

Run with the python of the environment `langchain`; needs nothing else.

    python langchain_openai_chat.py --url http://127.0.0.1:8000/v1 --model chatglm3-6b [--key KEY]
                                    [--prompt TEXT] [--jobs invoke,stream,...]

`--url` is given to ChatOpenAI unchanged as base_url. Prints one JSON object: `sdk` (version of
langchain-openai) and one member for each job that ran, in this order.

    invoke        REPLY = {text, finish_reason, model, usage or null, calls}; calls = [{id, name, args}], args
                  the parsed arguments; usage = {input_tokens, output_tokens, total_tokens}
    stream        {deltas, text, finish_reason, usage or null}; deltas every non-empty piece, in order of
                  arrival
    tools         {first: REPLY, second: REPLY or null}; second is the turn with the tools' results, null
                  where the model called none
    stream_tools  {text, finish_reason, calls}: the sum of the streamed pieces
    error         {class, message}: what asking for an unknown model raised, null if nothing

A job that ends with an error of the OpenAI SDK, or with the ValueError that LangChain raises for an answer it
cannot use, is {error: {class, message}} instead. Anything else that goes wrong is a traceback and an exit
status of 1.
"""

import argparse
import functools
import importlib.metadata
import json
import operator
import sys
from collections.abc import Callable
from typing import Any

import openai
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

Json = dict[str, Any]

WEATHER = "北京，晴，25°C"


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return WEATHER


WEATHER_TOOL = tool(get_weather)


class Jobs:
    """What this client can do, a method a job; one object a run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.options = {
            "base_url": arguments.url,
            "api_key": arguments.key or "none",
            "max_retries": 0,
            "timeout": arguments.timeout,
        }
        self.model = ChatOpenAI(model=arguments.model, **self.options)
        self.prompt: list[BaseMessage] = [HumanMessage(arguments.prompt)]

    def invoke(self) -> Json:
        return reply(self.model.invoke(self.prompt))

    def stream(self) -> Json:
        chunks = list(self.model.stream(self.prompt, stream_usage=True))
        total = functools.reduce(operator.add, chunks)
        return {
            "deltas": [chunk.content for chunk in chunks if chunk.content],
            "text": total.content,
            "finish_reason": total.response_metadata.get("finish_reason"),
            "usage": counts(total),
        }

    def tools(self) -> Json:
        bound = self.model.bind_tools([WEATHER_TOOL])
        first = bound.invoke(self.prompt)
        results = [
            ToolMessage(WEATHER_TOOL.invoke(call["args"]), tool_call_id=call["id"])
            for call in first.tool_calls
        ]
        second = bound.invoke([*self.prompt, first, *results]) if results else None
        return {"first": reply(first), "second": reply(second) if second else None}

    def stream_tools(self) -> Json:
        chunks = self.model.bind_tools([WEATHER_TOOL]).stream(self.prompt)
        total = functools.reduce(operator.add, chunks)
        return {
            "text": total.content,
            "finish_reason": total.response_metadata.get("finish_reason"),
            "calls": calls(total),
        }

    def error(self) -> Json | None:
        try:
            ChatOpenAI(model="no-such-model", **self.options).invoke(self.prompt)
        except openai.OpenAIError as error:
            return seen(error)
        return None


def reply(message: AIMessage) -> Json:
    return {
        "text": message.content,
        "finish_reason": message.response_metadata.get("finish_reason"),
        "model": message.response_metadata.get("model_name"),
        "usage": counts(message),
        "calls": calls(message),
    }


def counts(message: AIMessage) -> Json | None:
    usage = message.usage_metadata
    if usage is None:
        return None
    return {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}


def calls(message: AIMessage) -> list[Json]:
    return [{"id": call["id"], "name": call["name"], "args": call["args"]} for call in message.tool_calls]


def seen(error: Exception) -> Json:
    return {"class": type(error).__name__, "message": str(error)}


def attempt(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except (openai.OpenAIError, ValueError) as error:
        return {"error": seen(error)}


JOBS = ("invoke", "stream", "tools", "stream_tools", "error")


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
    json.dump(
        {"sdk": importlib.metadata.version("langchain-openai"), **report}, sys.stdout, ensure_ascii=True
    )


if __name__ == "__main__":
    main()
