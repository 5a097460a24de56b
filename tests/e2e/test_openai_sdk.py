"""The newest OpenAI SDK, unchanged, against every server behind the gateway: real ports, real programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.fleet import ALIASES, ANSWER, SERVERS, Server
from tests.support.programs import seen_here
from tests.support.stack import threaded

EVERY_SERVER = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
SERVERS_WITH_TOOLS = [server for server in SERVERS if server.tools]


def check_reply(reply: dict[str, Any]) -> None:
    assert reply["text"] == ANSWER
    assert reply["role"] == "assistant"
    assert reply["finish_reason"] == "stop"
    assert reply["model"] == "m"
    usage = reply["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def check_stream(stream: dict[str, Any]) -> None:
    assert stream["text"] == ANSWER
    assert stream["roles"] == ["assistant"]
    assert stream["finish_reasons"] == ["stop"]
    assert len(stream["ids"]) == 1
    assert len(stream["deltas"]) > 1
    assert stream["usage_chunks"] == 1
    assert stream["usage"]["completion_tokens"] > 0


@EVERY_SERVER
def test_chat_and_streams_come_through_character_by_character(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), ALIASES, **server.backend) as one:
        got = seen_here(f"{one.url}/v1", "models", "chat", "chat_async", "stream", "stream_async", "error")
        assert one.in_flight() == 0
        assert one.only.max_in_flight == 1
    assert got["models"] == ["m", "chatglm3-6b"]
    check_reply(got["chat"])
    check_reply(got["chat_async"])
    check_stream(got["stream"])
    check_stream(got["stream_async"])
    assert got["error"]["class"] == "NotFoundError"
    assert got["error"]["code"] == "model_not_found"
    assert got["error"]["param"] == "model"


@pytest.mark.parametrize("server", SERVERS_WITH_TOOLS, ids=lambda server: server.id)
def test_a_tool_is_called_answered_and_streamed(server: Server) -> None:
    with threaded(server.options(), ALIASES, **server.backend) as one:
        got = seen_here(f"{one.url}/v1", "tools", "stream_tools", prompt="北京天气怎么样？")
        second_turn = json.dumps(one.only.requests[1].json, ensure_ascii=False)
    first, second = got["tools"]["first"], got["tools"]["second"]
    assert first["finish_reason"] == "tool_calls"
    assert not first["text"]
    (call,) = first["calls"]
    assert call["name"] == "get_weather"
    assert call["id"]
    assert json.loads(call["arguments"])["city"]
    assert "25°C" in second_turn
    assert not server.observes or "25°C" in second["text"]
    streamed = got["stream_tools"]
    assert streamed["finish_reasons"] == ["tool_calls"]
    (piece,) = streamed["calls"]
    assert piece["name"] == "get_weather"
    assert json.loads(piece["arguments"]) == json.loads(call["arguments"])


@pytest.mark.parametrize("server", [one for one in SERVERS if not one.tools], ids=lambda server: server.id)
def test_tools_on_a_model_without_them_are_refused_by_name(server: Server) -> None:
    with threaded(server.options(), ALIASES, **server.backend) as one:
        got = seen_here(f"{one.url}/v1", "tools")
        assert one.only.requests == []
    assert got["tools"]["error"]["class"] == "BadRequestError"
    assert got["tools"]["error"]["param"] == "tools"
    assert got["tools"]["error"]["code"] == "unsupported_parameter"
