"""GLM-4, newer models behind the first `api.py`, and values no server may get, seen through a client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.simulator import Options
from tests.support.fleet import SERVERS, Server
from tests.support.stack import Stack, stack

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": ["string", "null"]}}},
    },
}


@asynccontextmanager
async def served(options: Options, **backend: Any) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    async with (
        stack(options, **backend) as one,
        httpx.AsyncClient(base_url=one.url, timeout=20, trust_env=False) as client,
    ):
        yield one, client


def asked(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    return {"model": "m", "messages": messages, **more}


async def chat(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body)


def message(answer: httpx.Response) -> tuple[dict[str, Any], str]:
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["message"], choice["finish_reason"]


def streamed(answer: httpx.Response) -> tuple[str, str, list[Any]]:
    """The text, the finish reason and the names of the calls of a stream."""
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    deltas = [choice["delta"] for choice in choices]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    text = "".join(delta.get("content") or "" for delta in deltas)
    return text, choices[-1]["finish_reason"], [call["function"].get("name") for call in calls]


@pytest.mark.parametrize("model", ["chatglm3", "glm4"])
@pytest.mark.parametrize("stream", [False, True])
async def test_conversation_with_a_newer_model_behind_the_first_api_goes_on(model: str, stream: bool) -> None:
    options = Options(dialect="chatglm3-native", variant=model, brain="echo")
    async with served(options) as (_, client):
        body = asked("q1", "a1", "@@reply:second answer@@", stream=stream)
        body["messages"].insert(0, {"role": "system", "content": "S"})
        answer = await chat(client, **body)
        said = streamed(answer)[0] if stream else message(answer)[0]["content"]
        assert said == "second answer"
        native = await client.post("/", json={"prompt": "@@reply:third@@", "history": [["q", "a"]]})
    assert native.json()["response"] == "third"
    assert native.json()["history"] == [["q", "a"], ["@@reply:third@@", "third"]]


NO_CALLS = [
    "get_weather\\nis: a function",
    "cogview\\n{a cat",
    "simple_browser\\n{x}",
    "get_weather\\n{bad json",
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", NO_CALLS)
async def test_text_that_only_begins_like_a_call_of_glm4_is_text(reply: str, stream: bool) -> None:
    async with served(Options(dialect="glm4", brain="echo")) as (_, client):
        answer = await chat(client, **asked(f"@@reply:{reply}@@"), tools=[TOOL], stream=stream)
    text, reason, calls = streamed(answer) if stream else (*_whole(answer), [])
    assert (text, reason, calls) == (reply.replace("\\n", "\n"), "stop", [])


def _whole(answer: httpx.Response) -> tuple[str, str]:
    said, reason = message(answer)
    assert "tool_calls" not in said
    return said["content"], reason


@pytest.mark.parametrize("stream", [False, True])
async def test_call_of_glm4_is_a_call(stream: bool) -> None:
    reply = '@@reply:get_weather\\n{"city": null}@@'
    async with served(Options(dialect="glm4", brain="echo")) as (_, client):
        answer = await chat(client, **asked(reply), tools=[TOOL], stream=stream)
    if stream:
        assert streamed(answer)[1:] == ("tool_calls", ["get_weather"])
    else:
        said, reason = message(answer)
        assert (said["tool_calls"][0]["function"]["name"], reason) == ("get_weather", "tool_calls")


HOSTILE: list[dict[str, Any]] = [
    {"repetition_penalty": 0},
    {"repetition_penalty": -1},
    {"repetition_penalty": 3},
    {"temperature": 0},
    {"temperature": 1e-9},
    {"temperature": 2},
    {"top_p": 0},
    {"top_p": 1},
    {"max_tokens": 1},
    {"max_tokens": 2**31 - 1},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
]


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.id)
async def test_no_value_of_a_parameter_makes_a_server_fail(server: Server) -> None:
    async with served(server.options(), **server.backend) as (_, client):
        for members in HOSTILE:
            answer = await chat(client, **asked("hi"), **members)
            assert answer.status_code in (200, 400), (members, answer.text)
        assert message(await chat(client, **asked("hi")))[1] == "stop"


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,@@@", "data:image/png;base64,AAAA", "file:///etc/passwd", "http://", "cat.jpg"],
)
async def test_broken_picture_never_reaches_the_server(url: str) -> None:
    parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with served(Options(dialect="glm4v")) as (one, client):
        answer = await chat(client, model="m", messages=[{"role": "user", "content": parts}])
        assert one.only.started == 0
        assert message(await chat(client, **asked("hi")))[1] == "stop"
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize("family", ["chatglm3", "glm4"])
@pytest.mark.parametrize("stream", [False, True])
async def test_long_prompt_at_chatglm_cpp_leaves_the_answer_its_length(family: str, stream: bool) -> None:
    options = Options(dialect="chatglm-cpp", variant=family, reply="0123456789" * 50)
    async with served(options, family=family) as (_, client):
        body = asked("word " * 700, max_tokens=40, stream=stream)
        answer = await chat(client, **body)
    text, reason = streamed(answer)[:2] if stream else _whole(answer)
    assert text == ("0123456789" * 4)[: 40 - (2 if family == "chatglm3" else 1)]  # the lead counts
    assert reason == "length" or stream  # ten digits are three tokens by estimate
