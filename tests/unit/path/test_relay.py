"""Several choices of one answer, made side by side where a server makes only one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from gateway.errors import (
    BadRequest,
    UpstreamGarbled,
)
from gateway.formats.events import Delta, Usage
from tests.support.path import (
    NO_CONNECTION,
    open_path,
    reasons,
    text,
    usage,
)
from tests.support.servers import (
    Servers,
    held,
    native,
    refusing,
    whole,
)
from tests.support.stack import wait_until

# --- several choices -------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_made_side_by_side_where_the_server_makes_only_one(stream: bool) -> None:
    servers = Servers(a=[native("first"), native("second"), native("third")])
    async with open_path(servers, "chatglm2") as scene:
        events = await scene.answer(n=3, stream=stream)
    assert sorted(text(events, choice) for choice in range(3)) == ["first", "second", "third"]
    assert reasons(events) == {0: "stop", 1: "stop", 2: "stop"}
    assert isinstance(events[-1], Usage)
    await wait_until(lambda: len(scene.background) == 0)


async def test_the_usage_of_several_choices_counts_the_prompt_once() -> None:
    servers = Servers(a=native("hello"))
    async with open_path(servers, "chatglm2") as scene:
        one = usage(await scene.answer())
        three = usage(await scene.answer(n=3))
    assert three == Usage(one.prompt, 3 * one.completion, "estimate")
    assert scene.receipt.usage == three


async def test_choices_use_every_free_card_and_not_more() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()), b=held(release, native()))
    async with open_path(servers, "chatglm2") as scene, asyncio.TaskGroup() as group:
        task = group.create_task(scene.answer(n=3))
        await wait_until(lambda: len(servers.order) == 2)
        assert scene.busy == {"a": 1, "b": 1}
        assert scene.dispatcher.queue_depth("m") == 1
        release.set()
        await task
    assert len(servers.order) == 3


async def test_a_server_that_makes_several_is_asked_once() -> None:
    servers = Servers(a=whole(count=3))
    async with open_path(servers) as scene:
        events = await scene.answer(n=3)
    assert [asked.body["n"] for asked in servers.asked] == [3]
    assert reasons(events) == {0: "stop", 1: "stop", 2: "stop"}


async def test_more_choices_than_the_model_allows_are_refused() -> None:
    async with open_path(Servers(a=native()), "chatglm2") as scene:
        with pytest.raises(BadRequest) as refused:
            scene.plan(n=5)
    assert refused.value.param == "n"


async def test_one_failing_choice_fails_all_and_ends_the_others() -> None:
    never = asyncio.Event()
    servers = Servers(a=[refusing(200, b"?"), held(never, whole())])
    async with open_path(servers, {"a": "openai"}, slots=2) as scene:
        plan = scene.plan(n=2)
        split = replace(plan, outgoing=scene.plan().outgoing, alone=False)
        with pytest.raises(UpstreamGarbled):
            async with aclosing(scene.events_of(split)) as events:
                [event async for event in events]
        assert len(scene.background) == 0
        assert scene.busy == {"a": 0}


async def test_a_client_that_leaves_ends_all_choices() -> None:
    never = asyncio.Event()
    servers = Servers(a=[native("first"), held(never, native())], b=held(never, native()))
    async with open_path(servers, "chatglm2") as scene:
        events = scene.events(n=4)
        assert isinstance(await anext(events), Delta)
        await events.aclose()
        assert scene.dispatcher.queue_depth("m") == 0
        assert {name: scene.dispatcher.zombies(name) for name in scene.fleet} == scene.busy
        assert scene.busy["b"] == 1
        never.set()
        await wait_until(lambda: set(scene.busy.values()) == {0})


async def test_a_retry_in_one_choice_leaves_the_others_alone() -> None:
    servers = Servers(a=NO_CONNECTION, b=native("good"), c=native("good"))
    async with open_path(servers, "chatglm2") as scene:
        events = await scene.answer(n=3)
    assert [text(events, choice) for choice in range(3)] == ["good"] * 3
    assert scene.receipt.retries == ("connect",)
