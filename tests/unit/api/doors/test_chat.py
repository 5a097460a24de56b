"""The chat door: whole answers and streams, and how each kind of failure looks in both."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.formats.sse import SseParser
from tests.support.asgi import Call, chat, rig
from tests.support.servers import (
    Reply,
    Servers,
    answering,
    chunk,
    failing,
    held,
    native,
    refusing,
    streaming,
    talk,
    whole,
)
from tests.support.stack import wait_until

USAGE = {"include_usage": True}


def tool_chunk(name: str | None = None, arguments: str = "", **more: Any) -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    delta = {"tool_calls": [{"index": 0, "function": function, **more}]}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def said(call: Call, choice: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [one for event in call.events if event != "[DONE]" for one in event["choices"]]
    return "".join(one["delta"].get("content") or "" for one in choices if one["index"] == choice)


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


# --- errors before the head ------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        pytest.param(failing(httpx.ConnectError), 503, "no_backend", id="refused-connection"),
        pytest.param(failing(httpx.ReadError), 502, "upstream_error", id="reset"),
        pytest.param(refusing(500), 502, "upstream_error", id="500"),
        pytest.param(refusing(503), 503, "overloaded", id="503"),
        pytest.param(refusing(400, b"{}"), 400, None, id="400"),
        pytest.param(streaming(chunk("", role=True)), 502, None, id="nothing-but-a-role"),
    ],
)
async def test_an_error_before_the_head_keeps_its_status(
    reply: Reply, status: int, code: str | None, stream: bool
) -> None:
    async with rig(Servers(a=reply)) as house:
        call = await house.chat(stream=stream)
    assert call.status == status
    assert call.header("content-type") == "application/json"
    assert call.header("x-gateway-backend") == "a"
    assert set(call.error) == {"message", "type", "param", "code"}
    assert code is None or call.error["code"] == code
    assert b"secret" not in call.body


async def test_a_busy_backends_retry_after_is_passed_on() -> None:
    once = "[retries]\nattempts = 1\n"
    async with rig(Servers(a=refusing(429, b"", retry_after="7")), extra=once) as house:
        call = await house.chat()
    assert (call.status, call.header("retry-after")) == (503, "7")


async def test_a_failure_that_made_a_card_work_is_not_to_be_repeated_by_the_sdk() -> None:
    async with rig(Servers(a=refusing(500))) as house:
        assert (await house.chat()).header("x-should-retry") == "false"


# --- errors after the head -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("break_off", "code"),
    [
        pytest.param({"error": httpx.ReadError("cut")}, "upstream_error", id="reset"),
        pytest.param({}, "upstream_error", id="silent-end"),
    ],
)
async def test_a_cut_after_content_is_one_error_event_and_no_good_end(
    break_off: dict[str, Any], code: str
) -> None:
    async with rig(Servers(a=streaming(*talk("half")[:2], **break_off))) as house:
        call = await house.chat(stream=True)
    assert call.status == 200
    assert call.complete
    assert said_before_error(call) == "half"
    assert set(call.events[-1]) == {"error"}
    assert call.events[-1]["error"]["code"] == code
    assert "[DONE]" not in call.events
    assert all(event["choices"][0]["finish_reason"] is None for event in call.events[:-1])
    (line,) = house.access
    assert (line["status"], line["outcome"]) == (200, "truncated")


def said_before_error(call: Call) -> str:
    return "".join(event["choices"][0]["delta"].get("content", "") for event in call.events[:-1])


@pytest.mark.parametrize("garbage", [b"data: {oops\n\n", b"data: []\n\n", b'data: {"choices": 5}\n\n'])
async def test_garbage_after_content_is_an_error_event(garbage: bytes) -> None:
    async with rig(Servers(a=streaming(*talk("half")[:2], garbage))) as house:
        call = await house.chat(stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_invalid_response"
    assert b"oops" not in call.body


async def test_an_endless_event_is_an_error_event() -> None:
    endless = [b"data: " + b"x" * 600_000] * 2
    async with rig(Servers(a=streaming(*talk("half")[:2], *endless))) as house:
        call = await house.chat(stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_invalid_response"


async def test_one_choice_that_fails_ends_the_stream_of_all() -> None:
    servers = Servers(a=native("x" * 40), b=[refusing(200, b"?")])
    once = "[retries]\nattempts = 1\n"
    async with rig(servers, "chatglm2", once, server={"stream_head_wait": 0.0}) as house:
        call = await house.chat(stream=True, n=2)
    assert call.events[-1]["error"]["code"] == "upstream_invalid_response"
    assert "[DONE]" not in call.events


# --- waiting ---------------------------------------------------------------------------------------

IMPATIENT = {"stream_head_wait": 0.0}


async def test_a_stream_that_waits_gets_its_head_and_then_comments() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native("hello")))
    async with rig(servers, "chatglm2", "[queue]\nkeepalive = 0.01\n", server=IMPATIENT) as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: len(call.chunks) >= 3)
        assert call.status == 200
        assert set(call.frames) == {": generating"}
        release.set()
        await call.task
    assert said(call) == "hello"
    assert call.events[-1] == "[DONE]"


async def test_one_who_queues_is_told_the_place_and_the_wait() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native("hello")))
    async with rig(servers, "chatglm2", "[queue]\nkeepalive = 0.01\n", server=IMPATIENT) as house:
        house.gateway.dispatcher.served("m", 4.0)
        holder = house.begin(body=chat())
        await wait_until(lambda: servers.order == ["a"])
        calls = []
        for depth in (1, 2):
            calls.append(house.begin(body=chat(stream=True)))
            await wait_until(lambda depth=depth: house.gateway.dispatcher.queue_depth("m") == depth)
        await wait_until(lambda: all(call.chunks for call in calls))
        assert calls[0].frames[0] == ": queued position=1 wait=4s"
        assert calls[1].frames[0] == ": queued position=2 wait=8s"
        release.set()
        for call in (holder, *calls):
            await call.task
    assert [said(call) for call in calls] == ["hello", "hello"]


def places(call: Call) -> list[tuple[str, int, float]]:
    """What the events of the type `queue` told, in their order."""
    told = [json.loads(event.data) for event in SseParser().feed(call.body) if event.type == "queue"]
    return [(one["state"], one["position"], one["wait"]) for one in told]


@pytest.mark.parametrize(
    ("setting", "wish", "wanted"),
    [
        pytest.param("", None, False, id="nobody-asked"),
        pytest.param("events = true\n", None, True, id="all-get-them"),
        pytest.param("", "true", True, id="this-client-asks"),
        pytest.param("", " TRUE ", True, id="in-whatever-letters"),
        pytest.param("events = true\n", "false", False, id="all-but-this-client"),
        pytest.param("", "false", False, id="nobody-twice"),
        pytest.param("", "3", False, id="a-word-that-means-nothing"),
        pytest.param('keepalive_style = "events"\n', None, True, id="events-as-a-style"),
        pytest.param('keepalive_style = "events"\n', "false", False, id="a-style-but-not-for-this-client"),
    ],
)
async def test_a_waiting_stream_gets_events_where_they_are_wanted(
    setting: str, wish: str | None, wanted: bool
) -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native("hello")))
    extra = f"[queue]\nkeepalive = 0.01\n{setting}"
    headers = {} if wish is None else {"x-gateway-queue-events": wish}
    async with rig(servers, "chatglm2", extra, server=IMPATIENT) as house:
        house.gateway.dispatcher.served("m", 4.0)
        holder = house.begin(body=chat())
        await wait_until(lambda: servers.order == ["a"])
        call = house.begin(headers=headers, body=chat(stream=True))
        await wait_until(lambda: len(call.chunks) >= 2)
        queued = places(call)
        assert set(queued) == ({("queued", 1, 4.0)} if wanted else set())
        assert any(frame.startswith(": ") for frame in call.frames) is not wanted
        release.set()
        for one in (holder, call):
            await one.task
    check_news_come_first(call)
    assert said(call) == "hello"
    assert call.events[-1] == "[DONE]"


def check_news_come_first(call: Call) -> None:
    """What tells of waiting stands before everything else."""
    news = [frame.startswith((": ", "event: queue\n")) for frame in call.frames]
    assert news == sorted(news, reverse=True)


async def test_the_events_tell_when_a_card_works_on_it() -> None:
    release = asyncio.Event()
    extra = "[queue]\nkeepalive = 0.01\nevents = true\n"
    async with rig(Servers(a=held(release, native("hello"))), "chatglm2", extra, server=IMPATIENT) as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: len(call.chunks) >= 2)
        assert set(places(call)) == {("generating", 0, 0.0)}
        release.set()
        await call.task
    check_news_come_first(call)
    assert said(call) == "hello"


async def test_a_waiting_stream_gets_chunks_with_an_empty_delta_where_that_is_configured() -> None:
    release = asyncio.Event()
    extra = '[queue]\nkeepalive = 0.01\nkeepalive_style = "chunks"\n'
    async with rig(Servers(a=held(release, native("hello"))), "chatglm2", extra, server=IMPATIENT) as house:
        call = house.begin(body=chat(stream=True, stream_options={"include_usage": True}))
        await wait_until(lambda: len(call.chunks) >= 3)
        release.set()
        await call.task
    assert all(frame.startswith("data: ") for frame in call.frames)
    first, second = call.events[:2]
    assert first == second
    assert first["choices"][0]["delta"] == {"content": ""}
    assert len({(one["id"], one["created"], one["model"]) for one in call.events[:-1]}) == 1
    assert said(call) == "hello"


async def test_a_waiting_stream_gets_its_head_and_nothing_more_where_that_is_configured() -> None:
    release = asyncio.Event()
    extra = '[queue]\nkeepalive = 0.01\nkeepalive_style = "none"\n'
    async with rig(Servers(a=held(release, native("hello"))), "chatglm2", extra, server=IMPATIENT) as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: call.status == 200)
        release.set()
        await call.task
    assert said(call) == "hello"
    assert call.events[0]["choices"][0]["delta"]["role"] == "assistant", "nothing came before the content"
    assert all(frame.startswith("data: ") for frame in call.frames)


@pytest.mark.parametrize("style", ["chunks", "none"])
async def test_who_asks_for_events_gets_them_whatever_the_style(style: str) -> None:
    release = asyncio.Event()
    extra = f'[queue]\nkeepalive = 0.01\nkeepalive_style = "{style}"\n'
    async with rig(Servers(a=held(release, native("hello"))), "chatglm2", extra, server=IMPATIENT) as house:
        call = house.begin(headers={"x-gateway-queue-events": "true"}, body=chat(stream=True))
        await wait_until(lambda: len(call.chunks) >= 2)
        assert set(places(call)) == {("generating", 0, 0.0)}
        release.set()
        await call.task


async def test_a_whole_answer_has_no_events() -> None:
    extra = "[queue]\nkeepalive = 0.01\nevents = true\n"
    async with rig(Servers(a=whole("hello")), extra=extra, server=IMPATIENT) as house:
        call = await house.chat({"x-gateway-queue-events": "true"})
    assert call.json["choices"][0]["message"]["content"] == "hello"


async def test_an_error_after_a_head_that_could_not_wait_is_an_event() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, refusing(500)))
    async with rig(servers, "chatglm2", server=IMPATIENT) as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: bool(call.chunks))
        release.set()
        await call.task
    assert call.status == 200
    assert call.events == [{"error": call.events[0]["error"]}]
    assert call.events[0]["error"]["code"] == "upstream_error"
    (line,) = house.access
    assert line["outcome"] == "upstream_5xx"


async def test_the_head_waits_so_that_errors_keep_their_status() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, refusing(500)))
    async with rig(servers, "chatglm2") as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: servers.order == ["a"])
        assert call.status == 0
        release.set()
        await call.task
    assert call.status == 502


# --- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_one_who_leaves_before_any_content_is_accounted_so(stream: bool) -> None:
    servers = Servers(a=held(asyncio.Event(), whole()))
    async with rig(servers) as house:
        call = house.begin(body=chat(stream=stream))
        await wait_until(lambda: servers.order == ["a"])
        call.leave()
        await call.task
        assert call.status == 0
        assert house.busy == 0
    (line,) = house.access
    assert (line["status"], line["outcome"]) == (499, "client_gone")
    assert line["left_while"] == "before_first"
    assert line["error"] is None
    assert house.gateway.dispatcher.up("a")


async def test_one_who_leaves_in_the_middle_frees_the_card() -> None:
    servers = Servers(a=streaming(*talk("one", "two"), until=asyncio.Event(), at=3))
    async with rig(servers) as house:
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: b"two" in call.body)
        call.leave()
        await call.task
        assert house.busy == 0
    (line,) = house.access
    assert (line["status"], line["outcome"], line["left_while"]) == (200, "client_gone", "streaming")
    assert b"[DONE]" not in call.body


async def test_one_who_leaves_the_queue_is_accounted_so() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()))
    async with rig(servers, "chatglm2") as house:
        holder = house.begin(body=chat())
        await wait_until(lambda: servers.order == ["a"])
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("m") == 1)
        call.leave()
        await call.task
        assert house.gateway.dispatcher.queue_depth("m") == 0
        assert house.access[0]["left_while"] == "queued"
        release.set()
        await holder.task
    assert servers.order == ["a"]


async def test_one_who_leaves_while_sending_is_accounted_so() -> None:
    async with rig(Servers(a=whole())) as house:
        call = house.begin(body=[])
        call.leave()
        await call.task
    (line,) = house.access
    assert (line["status"], line["outcome"], line["left_while"]) == (499, "client_gone", "queued")
    assert house.servers.asked == []


async def test_nothing_is_left_running_after_an_answer() -> None:
    async with rig(Servers(a=whole(), b=streaming(*talk("x")))) as house:
        for stream in (False, True):
            await house.chat(stream=stream)
        await wait_until(lambda: len(house.gateway.background) == 0)
