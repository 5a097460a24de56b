"""Clients that need an environment of their own: older SDKs and LangChain, against every server."""

from __future__ import annotations

import json

import pytest

from tests.e2e.test_openai_sdk import check_reply, check_stream
from tests.support.fleet import ALIASES, ANSWER, SERVERS, Server
from tests.support.programs import seen
from tests.support.stack import threaded

pytestmark = pytest.mark.clients

EVERY_SERVER = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
KEY = "sk-team-a-0123456789"
KEYS = f'{ALIASES}[[keys]]\nname = "team-a"\nkey = "{KEY}"\n'
QUESTION = "北京和上海两座城市有什么不同？"
OPENING = ["我将从美国到中国来旅游，出行前希望了解中国的城市", "欢迎问我任何问题。"]


@EVERY_SERVER
def test_the_sdk_of_the_one_x_line(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), ALIASES, **server.backend) as one:
        got = seen(
            "openai1",
            "openai_modern",
            url=f"{one.url}/v1",
            model="m",
            jobs="chat,chat_async,stream,stream_async",
        )
    check_reply(got["chat"])
    check_reply(got["chat_async"])
    check_stream(got["stream"])
    check_stream(got["stream_async"])


@EVERY_SERVER
def test_the_sdk_before_one(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), ALIASES, **server.backend) as one:
        got = seen("openai0", "openai_legacy", url=f"{one.url}/v1", model="m")
    check_reply(got["chat"])
    assert got["stream"]["text"] == ANSWER
    assert got["stream"]["finish_reasons"] == ["stop"]
    assert got["error"]["class"] == "InvalidRequestError"


@EVERY_SERVER
def test_langchains_chat_openai(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), ALIASES, **server.backend) as one:
        got = seen("langchain", "langchain_openai_chat", url=f"{one.url}/v1", model="m", jobs="invoke,stream")
    assert got["invoke"]["text"] == ANSWER
    assert got["invoke"]["finish_reason"] == "stop"
    assert got["invoke"]["usage"]["output_tokens"] > 0
    assert got["stream"]["text"] == ANSWER


@pytest.mark.parametrize("server", [one for one in SERVERS if one.tools], ids=lambda server: server.id)
def test_langchains_chat_openai_with_tools(server: Server) -> None:
    with threaded(server.options(), ALIASES, **server.backend) as one:
        got = seen(
            "langchain", "langchain_openai_chat", url=f"{one.url}/v1", model="m",
            prompt="北京天气怎么样？", jobs="tools,stream_tools",
        )  # fmt: skip
    (call,) = got["tools"]["first"]["calls"]
    assert call["name"] == "get_weather"
    assert call["args"]["city"]
    assert not server.observes or "25°C" in got["tools"]["second"]["text"]
    assert [one["name"] for one in got["stream_tools"]["calls"]] == ["get_weather"]


@EVERY_SERVER
def test_the_seeds_chatglm3_program(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), KEYS, **server.backend) as one:
        url = f"{one.url}/v1/chat/completions"
        got = seen("langchain", "langchain_chatglm3", url=url, model="chatglm3-6b", key=KEY)
        (asked,) = one.only.requests
    assert got["text"] == ANSWER
    told = json.dumps(asked.json, ensure_ascii=False)
    assert all(text in told for text in (*OPENING, QUESTION))


@EVERY_SERVER
def test_the_seeds_chatglm_program(server: Server) -> None:
    with threaded(server.options(reply=ANSWER), KEYS, **server.backend) as one:
        got = seen("langchain", "langchain_chatglm", url=one.url, key=KEY)
        told = json.dumps(one.only.requests[0].json, ensure_ascii=False)
    assert got["stateless"]["text"] == ANSWER
    assert got["with_history"]["texts"] == [ANSWER, ANSWER]
    assert [pair[1] for pair in got["with_history"]["history"][1:]] == [ANSWER, ANSWER]
    assert got["with_history"]["history"][0] == OPENING
    assert all(text in told for text in (*OPENING, QUESTION))
