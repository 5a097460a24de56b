"""The chat door: whole answers and streams."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.asgi import rig
from tests.support.chunks import said, tool_chunk
from tests.support.servers import (
    Reply,
    Servers,
    answering,
    chunk,
    failing,
    native,
    streaming,
    talk,
    whole,
)

USAGE = {"include_usage": True}


# --- whole answers ---------------------------------------------------------------------------------


async def test_a_whole_answer_has_every_member_the_api_promises() -> None:
    async with rig(Servers(a=whole("hello", usage=(3, 2)))) as house:
        call = await house.chat()
    assert call.status == 200
    assert call.header("content-type") == "application/json"
    body = call.json
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def complete(text: str) -> dict[str, Any]:
    """A whole answer that passes as it is."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


async def test_choices_of_servers_of_two_kinds_are_one_answer() -> None:
    servers = Servers(a=answering(complete("one")), b=native("other"))
    async with rig(servers, dialect={"a": "openai", "b": "chatglm2"}) as house:
        call = await house.chat(n=2)
    assert [choice["index"] for choice in call.json["choices"]] == [0, 1]
    assert {choice["message"]["content"] for choice in call.json["choices"]} == {"one", "other"}


async def test_streamed_choices_of_servers_of_two_kinds_are_one_answer() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "one"}, None),
        ({}, "stop"),
    ]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    frames = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks]
    servers = Servers(a=streaming(*frames, b"data: [DONE]\n\n"), b=native("other"))
    async with rig(servers, dialect={"a": "openai", "b": "chatglm2"}) as house:
        call = await house.chat(stream=True, n=3)
    assert sorted(said(call, choice) for choice in range(3)) == ["one", "one", "other"]


async def test_an_answer_tells_its_way_in_headers() -> None:
    async with rig(Servers(a=failing(httpx.ConnectError), b=native()), "chatglm2") as house:
        call = await house.chat(seed=1, logprobs=True)
    assert call.header("x-gateway-backend") == "b"
    assert call.header("x-gateway-attempts") == "2"
    assert call.header("x-gateway-ignored") == "logprobs,seed"
    assert call.header("x-gateway-usage") == "estimate"
    assert (call.header("x-gateway-queue-ms") or "").isdigit()


async def test_no_two_answers_have_the_same_id() -> None:
    async with rig(Servers(a=whole())) as house:
        ids = {(await house.chat()).json["id"] for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) >= len("chatcmpl-") + 24 for one in ids)


async def test_an_alias_comes_back_as_it_was_asked_for() -> None:
    extra = '[[models]]\nname = "m"\naliases = ["gpt-3.5-turbo"]\n'
    async with rig(Servers(a=whole()), extra=extra) as house:
        assert (await house.chat(model="gpt-3.5-turbo")).json["model"] == "gpt-3.5-turbo"
        assert house.servers.asked[0].body["model"] == "m"


async def test_a_request_without_a_model_gets_the_default() -> None:
    async with rig(Servers(a=whole()), server={"default_model": "m"}) as house:
        call = await house.chat(model=None)
    assert (call.status, call.json["model"]) == (200, "m")


async def test_a_session_that_a_header_names_stays_on_its_backend() -> None:
    extra = '[[models]]\nname = "m"\nbalance = "session"\n'
    async with rig(Servers(a=whole(), b=whole(), c=whole()), extra=extra) as house:
        for count in range(6):
            await house.chat({"x-session-affinity": "talk"}, user=str(count))
    assert len(set(house.servers.order)) == 1


async def test_choices_come_in_their_order() -> None:
    servers = Servers(a=[native("one"), native("two")], b=native("three"))
    async with rig(servers, "chatglm2") as house:
        call = await house.chat(n=3)
    assert [choice["index"] for choice in call.json["choices"]] == [0, 1, 2]
    texts = {choice["message"]["content"] for choice in call.json["choices"]}
    assert texts == {"one", "two", "three"}


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


async def test_a_tool_call_without_an_id_gets_one() -> None:
    reply = answering({"choices": [{"index": 0, "message": CALL, "finish_reason": "tool_calls"}]})
    async with rig(Servers(a=reply)) as house:
        (choice,) = (await house.chat(tools=TOOLS)).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (made,) = choice["message"]["tool_calls"]
    assert made.pop("id").startswith("call_")
    assert made == {"type": "function", "function": {"name": "f", "arguments": "{}"}}


async def test_who_asks_in_the_old_way_is_answered_in_the_old_way() -> None:
    reply = answering({"choices": [{"index": 0, "message": CALL, "finish_reason": "tool_calls"}]})
    async with rig(Servers(a=reply)) as house:
        (choice,) = (await house.chat(functions=[TOOLS[0]["function"]])).json["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in choice["message"]


# --- streams ---------------------------------------------------------------------------------------


async def test_a_stream_has_the_headers_of_one() -> None:
    async with rig(Servers(a=streaming(*talk("hello")))) as house:
        call = await house.chat(stream=True)
    assert call.status == 200
    assert call.header("content-type") == "text/event-stream; charset=utf-8"
    assert call.header("cache-control") == "no-cache"
    assert call.header("x-accel-buffering") == "no"
    assert call.header("content-length") is None
    assert call.header("x-gateway-backend") == "a"
    assert call.header("x-gateway-usage") is None


@pytest.mark.parametrize(
    ("dialect", "reply"),
    [("openai", streaming(*talk("hel", "lo", " you"))), ("chatglm2", native("hello you"))],
    ids=["openai", "native"],
)
async def test_a_stream_is_a_role_its_texts_a_finish_and_done(dialect: str, reply: Reply) -> None:
    async with rig(Servers(a=reply), dialect) as house:
        call = await house.chat(stream=True)
    *events, done = call.events
    assert done == "[DONE]"
    assert said(call) == "hello you"
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert all("role" not in choice["delta"] for choice in choices[1:])
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["delta"] == {}
    assert {choice["logprobs"] for choice in choices} == {None}
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in events}) == 1
    assert events[0]["object"] == "chat.completion.chunk"
    assert all("usage" not in event for event in events)


async def test_every_event_is_a_write_of_its_own() -> None:
    async with rig(Servers(a=streaming(*talk("one", "two", "three")))) as house:
        call = await house.chat(stream=True)
    texts = [frame for frame in call.chunks if b'"content":"t' in frame or b'"content":"o' in frame]
    assert len(texts) == 3
    assert all(frame.endswith(b"\n\n") for frame in call.chunks)


async def test_with_usage_every_chunk_has_null_and_one_more_the_counts() -> None:
    counted = chunk(finish="stop", usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
    async with rig(Servers(a=streaming(*talk("hello")[:2], counted, b"data: [DONE]\n\n"))) as house:
        call = await house.chat(stream=True, stream_options=USAGE)
    *events, usage, done = call.events
    assert done == "[DONE]"
    assert [event["usage"] for event in events] == [None] * len(events)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert usage["id"] == events[0]["id"]


async def test_usage_is_made_where_the_server_counts_nothing() -> None:
    async with rig(Servers(a=native("hello you")), "chatglm2") as house:
        call = await house.chat(stream=True, stream_options=USAGE)
    usage = call.events[-2]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == 3


async def test_each_choice_of_a_stream_has_one_role_and_one_finish() -> None:
    async with rig(Servers(a=native("one"), b=native("two")), "chatglm2") as house:
        call = await house.chat(stream=True, n=2)
    choices = [event["choices"][0] for event in call.events[:-1]]
    for index in (0, 1):
        mine = [choice for choice in choices if choice["index"] == index]
        assert [choice["delta"].get("role") for choice in mine] == ["assistant", *[None] * (len(mine) - 1)]
        assert [choice["finish_reason"] for choice in mine] == [*[None] * (len(mine) - 1), "stop"]
    assert {said(call, 0), said(call, 1)} == {"one", "two"}


async def test_a_streamed_tool_call_has_its_id_once() -> None:
    pieces = (tool_chunk("f"), tool_chunk(arguments='{"a"'), tool_chunk(arguments=":1}"))
    async with rig(Servers(a=streaming(*pieces, chunk(finish="tool_calls")))) as house:
        call = await house.chat(stream=True, tools=TOOLS)
    deltas = [event["choices"][0]["delta"] for event in call.events[:-1]]
    assert (deltas[0]["role"], deltas[0]["content"]) == ("assistant", None)
    assert not any("role" in delta for delta in deltas[1:])
    first, *rest = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert first.pop("id").startswith("call_")
    assert first == {"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}
    assert [set(piece) for piece in rest] == [{"index", "function"}] * 2
    assert "".join(piece["function"]["arguments"] for piece in rest) == '{"a":1}'
