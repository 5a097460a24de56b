"""Demanded calls on backends that have tools and do not enforce a choice."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ToolCallFailed
from tests.support.path import open_path, reasons, text
from tests.support.servers import Servers, answering, whole
from tests.unit.abilities.test_prompted_tools import TOOLS, calls

NAMED = {"type": "function", "function": {"name": "get_weather"}}


def calling(name: str, arguments: str) -> Any:
    """Return a complete answer with a call, in the format of ChatGLM3's server or of GLM-4's."""
    message = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": name, "arguments": arguments},
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }
    return answering({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})


@pytest.mark.parametrize("dialect", ["chatglm3", "glm4"])
@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_answer_without_a_call_is_asked_again(dialect: str, choice: Any) -> None:
    servers = Servers(a=[whole("晴天"), calling("get_weather", '{"city": "北京"}')])
    async with open_path(servers, dialect) as scene:
        events = await scene.answer(tools=TOOLS, tool_choice=choice)
        assert scene.receipt.ignored == ()
    assert calls(events) == [("get_weather", {"city": "北京"})]
    assert reasons(events) == {0: "tool_calls"}
    assert scene.receipt.retries == ("tool_call",)
    assert "必须调用" in str(servers.asked[0].body["messages"])


@pytest.mark.parametrize("dialect", ["chatglm3", "glm4"])
async def test_call_that_never_comes_is_an_error(dialect: str) -> None:
    servers = Servers(a=whole("晴天"))
    async with open_path(servers, dialect) as scene:
        await scene.failure(ToolCallFailed, tools=TOOLS, tool_choice="required")
    assert servers.order == ["a", "a"]


async def test_call_in_the_text_counts() -> None:
    async with open_path(Servers(a=whole('{"name": "calc", "arguments": {}}')), "chatglm3") as scene:
        events = await scene.answer(tools=TOOLS, tool_choice="required")
    assert (calls(events), text(events)) == ([("calc", {})], "")


async def test_only_the_named_function_goes_to_a_server_that_cannot_be_told_a_name() -> None:
    servers = Servers(a=calling("get_weather", '{"city": "x"}'))
    async with open_path(servers, "chatglm3") as scene:
        await scene.answer(tools=TOOLS, tool_choice=NAMED)
    assert [tool["name"] for tool in servers.asked[0].body["tools"]] == ["get_weather"]


async def test_server_that_enforces_the_choice_gets_it_as_it_is() -> None:
    servers = Servers(a=whole("no call"))
    async with open_path(servers, "openai") as scene:
        await scene.answer(tools=TOOLS, tool_choice="required")
    assert servers.asked[0].body["tool_choice"] == "required"
    assert servers.order == ["a"]
