"""The life of a streamed response: waiting, failures behind the head, clients that leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.formats.sse import SseParser
from tests.support.asgi import Call, chat, rig
from tests.support.chunks import said
from tests.support.servers import (
    Servers,
    held,
    native,
    refusing,
    streaming,
    talk,
    whole,
)
from tests.support.stack import wait_until

USAGE = {"include_usage": True}


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


@pytest.mark.parametrize("garbage", [b"data: {oops\n\n", b"data: [1]\n\n", b'data: {"choices": 5}\n\n'])
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
