"""What ChatGLM3's own server breaks, seen whole through the official SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from gateway.simulator import Options
from tests.support.stack import Stack, threaded, wait_until

CODE = "Here is code:\ndef get_name(self):\n    return 'é𠮷'  # 名字\nEnd."
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
EVERY_EDITION = pytest.mark.parametrize("variant", ["2023-11", "2024-01", "2024-05"])


def options(variant: str, reply: str | None = None) -> Options:
    return Options(dialect="chatglm3", variant=variant, reply=reply)


def ask(one: Stack, **more: Any) -> Any:
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0, timeout=20) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "北京天气"}], **more}
        answer = client.chat.completions.create(**body)
        return list(answer) if more.get("stream") else answer


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def repairs(one: Stack) -> str:
    return one.run.gateway.metrics.render()[0].decode()


@EVERY_EDITION
@pytest.mark.parametrize("reply", ["你好吗", "1+1", "好", "def get_name", CODE], ids=lambda text: text[:8])
def test_short_answers_and_answers_with_get_stream_whole(variant: str, reply: str) -> None:
    with threaded(options(variant, reply)) as one:
        chunks = ask(one, stream=True)
    assert text_of(chunks) == reply
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"


@pytest.mark.parametrize(("reply", "repair"), [("你好吗", "short_stream"), (CODE, "get_event")])
def test_repairs_are_counted(reply: str, repair: str) -> None:
    with threaded(options("2024-05", reply)) as one:
        ask(one, stream=True)
        counted = f'gateway_repairs_total{{backend="gpu-0",repair="{repair}"}} 1.0'
        # The receipt is settled after the last byte has gone to the client.
        asyncio.run(wait_until(lambda: counted in repairs(one)))


@EVERY_EDITION
def test_a_tool_call_streams_as_tool_calls(variant: str) -> None:
    call = "get_weather\n ```python\ntool_call(city='北京', days=2)\n```<|observation|>"
    question = [{"role": "user", "content": f"@@reply:{call}@@@@raw@@".replace("\n", "\\n")}]
    with threaded(options(variant)) as one:
        chunks = ask(one, stream=True, tools=[WEATHER], messages=question)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    assert [piece.function.name for piece in pieces if piece.function.name] == ["get_weather"]
    assert pieces[0].id.startswith("call_")
    assert {piece.index for piece in pieces} == {0}
    assert json.loads("".join(piece.function.arguments or "" for piece in pieces)) == {
        "city": "北京",
        "days": 2,
    }
    assert text_of(chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@EVERY_EDITION
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_false_call_comes_back_as_text(variant: str, stream: bool) -> None:
    with threaded(options(variant, "Answer is\nx\n42\ny")) as one:
        answer = ask(one, tools=[WEATHER], stream=stream)
    if stream:
        assert text_of(answer) == "Answer is\nx\n42\ny"
        assert answer[-1].choices[0].finish_reason == "stop"
    else:
        assert answer.choices[0].message.content == "Answer is\nx\n42\ny"
        assert not answer.choices[0].message.tool_calls
        assert answer.choices[0].finish_reason == "stop"


@EVERY_EDITION
def test_the_callers_system_message_survives_tools(variant: str) -> None:
    messages = [{"role": "system", "content": "只用中文回答"}, {"role": "user", "content": "你好"}]
    echo = Options(dialect="chatglm3", variant=variant, brain="echo")
    with threaded(echo) as one:
        handed = json.loads(ask(one, messages=messages, tools=[WEATHER]).choices[0].message.content)
    said = [handed["prompt"], *(turn["content"] for turn in handed["history"] if turn["role"] != "system")]
    assert any("只用中文回答" in text for text in said)
