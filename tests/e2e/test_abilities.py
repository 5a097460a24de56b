"""The OpenAI SDK's `parse` and tools, unchanged, on every server, with the answers of a small model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.fleet import SERVERS, Server
from tests.support.stack import threaded

EMULATED = '[[models]]\nname = "m"\nemulate = ["tools", "structured"]\n'
EVERY_SERVER = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
WITHOUT_TOOLS = pytest.mark.parametrize(
    "server",
    [one for one in SERVERS if not one.tools or one.dialect == "openai"],
    ids=lambda server: server.id,
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SLOPPY = "好的，结果如下：\n```json\n{'name': '安', 'age': '5',}\n```\n希望有帮助！"
CALL = '好的。\n{"tool": "get_weather", "args": {"city": "北京"}}'


class Person(BaseModel):
    """What the client wants to know."""

    name: str
    age: int


def sdk(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def emulating(server: Server) -> dict[str, Any]:
    """The backend's settings: a server of dialect openai that can do nothing by itself."""
    return server.backend | ({"capabilities": []} if server.dialect == "openai" else {})


@EVERY_SERVER
def test_parse_gives_the_object_that_a_sloppy_answer_means(server: Server) -> None:
    with threaded(server.options(reply=SLOPPY), EMULATED, **emulating(server)) as one, sdk(one.url) as client:
        question: Any = [{"role": "user", "content": "谁？"}]
        whole = client.chat.completions.parse(model="m", messages=question, response_format=Person)
        with client.chat.completions.stream(model="m", messages=question, response_format=Person) as stream:
            streamed = stream.get_final_completion()
        assert one.in_flight() == 0
    for answer in (whole, streamed):
        assert answer.choices[0].message.parsed == Person(name="安", age=5)
        assert answer.choices[0].finish_reason == "stop"


@EVERY_SERVER
def test_answer_that_never_fits_is_an_error_that_says_what_is_wrong(server: Server) -> None:
    with (
        threaded(server.options(reply="抱歉，我不知道。"), EMULATED, **emulating(server)) as one,
        sdk(one.url) as client,
    ):
        question: Any = [{"role": "user", "content": "谁？"}]
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.parse(model="m", messages=question, response_format=Person)
    assert caught.value.code == "structured_output_failed"
    assert "no JSON value" in str(caught.value)


@WITHOUT_TOOLS
def test_tools_by_prompt_are_called_whole_and_streamed(server: Server) -> None:
    with threaded(server.options(reply=CALL), EMULATED, **emulating(server)) as one, sdk(one.url) as client:
        question: Any = [{"role": "user", "content": "北京天气？"}]
        whole = client.chat.completions.create(model="m", messages=question, tools=[WEATHER])
        with client.chat.completions.stream(model="m", messages=question, tools=[WEATHER]) as stream:
            streamed = stream.get_final_completion()
    answer: Any
    for answer in (whole, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        assert call.type == "function"
        assert call.id
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "北京"}
