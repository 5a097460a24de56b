"""Servers that work on when their client has left: the slot stays taken until they are done."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import (
    GatewayError,
)
from gateway.formats import jsontext
from gateway.formats.events import Delta
from tests.support.path import (
    NO_CONNECTION,
    RESET,
    leave_when,
    open_path,
    reasons,
    text,
)
from tests.support.servers import (
    Reply,
    Servers,
    chunk,
    held,
    native,
    refusing,
    streaming,
    talk,
    whole,
)
from tests.support.stack import wait_until

# --- leaving ---------------------------------------------------------------------------------------


async def test_a_card_that_cannot_be_stopped_stays_taken_until_its_answer_has_come() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, native()))
    async with open_path(servers, "chatglm2") as scene:
        await leave_when(scene, lambda: servers.order == ["a"])
        assert scene.busy == {"a": 1}
        assert scene.dispatcher.zombies("a") == 1
        assert scene.outcomes == [("a", "client_gone")]
        async with asyncio.TaskGroup() as group:
            following = group.create_task(scene.answer())
            await wait_until(lambda: scene.dispatcher.queue_depth("m") == 1)
            assert servers.order == ["a"]
            finished.set()
            assert text(await following) == "hello"
        assert scene.dispatcher.zombies("a") == 0


async def test_an_abandoned_answer_that_fails_frees_the_card_and_troubles_nobody() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, RESET))
    async with open_path(servers, "chatglm2") as scene:
        await leave_when(scene, lambda: servers.order == ["a"])
        finished.set()
        await wait_until(lambda: scene.busy == {"a": 0})
        assert len(scene.background) == 0
        assert scene.dispatcher.up("a")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_stops_by_itself_is_free_at_once(stream: bool) -> None:
    never = asyncio.Event()
    reply = streaming(*talk("hello"), until=never, at=2) if stream else held(never, whole())
    servers = Servers(a=reply)
    async with open_path(servers) as scene:
        await leave_when(scene, lambda: servers.order == ["a"], stream=stream)
        assert scene.busy == {"a": 0}
        assert scene.dispatcher.zombies("a") == 0


async def test_a_blocked_server_is_free_when_it_answers_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_path(servers, "chatglm2-openai") as scene:
        events = scene.events(stream=True)
        assert await anext(events) == Delta("hello")
        await events.aclose()
        await wait_until(lambda: servers.asked[-1].method == "GET")
        assert scene.busy == {"a": 1}
        assert scene.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: scene.busy == {"a": 0})
        assert scene.dispatcher.zombies("a") == 0


async def test_a_probe_that_fails_frees_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.servers.probed", NO_CONNECTION)
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_path(servers, "chatglm2-openai") as scene:
        events = scene.events(stream=True)
        await anext(events)
        await events.aclose()
        await wait_until(lambda: scene.busy == {"a": 0})


@pytest.mark.parametrize("dialect", ["chatglm-stream", "chatglm2-openai"])
async def test_a_card_whose_answer_was_cut_at_its_limit_stays_taken(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    said = "word " * 50
    if dialect == "chatglm-stream":
        pieces = [b"data: " + jsontext.write({"success": True, "response": said}) + b"\n\n"]
    else:
        pieces = [chunk("", role=True), chunk(said)]
    servers = Servers(a=streaming(*pieces, until=asyncio.Event(), at=len(pieces)))
    async with open_path(servers, dialect) as scene:
        events = await scene.answer(stream=True, max_tokens=5)
        assert reasons(events) == {0: "length"}
        assert scene.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: scene.busy == {"a": 0})


async def test_a_stream_that_was_read_to_its_end_needs_no_probe() -> None:
    servers = Servers(a=streaming(*talk("hello")))
    async with open_path(servers, "chatglm2-openai") as scene:
        await scene.answer(stream=True)
        assert scene.busy == {"a": 0}
    assert [asked.method for asked in servers.asked] == ["POST"]


@pytest.mark.parametrize("reply", [NO_CONNECTION, refusing(500)], ids=["no-connection", "refusal"])
async def test_a_server_that_did_not_take_a_stream_needs_no_probe(reply: Reply) -> None:
    servers = Servers(a=reply)
    async with open_path(servers, "chatglm2-openai") as scene:
        await scene.failure(GatewayError, stream=True)
        assert scene.busy == {"a": 0}
    assert {asked.method for asked in servers.asked} == {"POST"}


async def test_one_who_leaves_the_queue_was_never_sent_anywhere() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()))
    async with open_path(servers, "chatglm2") as scene, asyncio.TaskGroup() as group:
        holder = group.create_task(scene.answer())
        await wait_until(lambda: servers.order == ["a"])
        await leave_when(scene, lambda: scene.dispatcher.queue_depth("m") == 1)
        assert scene.dispatcher.queue_depth("m") == 0
        release.set()
        await holder
    assert servers.order == ["a"]


async def test_a_server_of_one_slot_is_taken_to_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    unblocked, finished = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    stream = streaming(*talk("hello"), until=asyncio.Event(), at=2)
    servers = Servers(a=[stream, held(finished, whole())])
    async with open_path(servers, slots=1) as scene:
        for free, more in ((unblocked, {"stream": True}), (finished, {})):
            before = len(servers.order)
            await leave_when(scene, lambda: len(servers.order) > before, **more)  # noqa: B023 - used at once
            assert scene.busy == {"a": 1}
            assert scene.dispatcher.zombies("a") == 1
            free.set()
            await wait_until(lambda: scene.busy == {"a": 0})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_of_one_slot_that_stops_can_be_said_to(stream: bool) -> None:
    never = asyncio.Event()
    reply = streaming(*talk("hello"), until=never, at=2) if stream else held(never, whole())
    servers = Servers(a=reply)
    async with open_path(servers, slots=1, abandon="close") as scene:
        await leave_when(scene, lambda: servers.order == ["a"], stream=stream)
        assert scene.dispatcher.zombies("a") == 0


async def test_a_drained_stream_is_read_to_its_end() -> None:
    finished = asyncio.Event()
    servers = Servers(a=streaming(*talk("hello"), until=finished, at=2))
    async with open_path(servers, abandon="drain") as scene:
        events = scene.events(stream=True)
        await anext(events)
        await events.aclose()
        assert scene.dispatcher.zombies("a") == 1
        finished.set()
        await wait_until(lambda: scene.busy == {"a": 0})
    assert [asked.method for asked in servers.asked] == ["POST"]


async def test_a_drained_stream_that_has_not_begun_is_awaited() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, streaming(*talk("hello"))))
    async with open_path(servers, abandon="drain") as scene:
        await leave_when(scene, lambda: servers.order == ["a"], stream=True)
        assert scene.dispatcher.zombies("a") == 1
        assert scene.busy == {"a": 1}
        finished.set()
        await wait_until(lambda: scene.busy == {"a": 0})
    assert [asked.method for asked in servers.asked] == ["POST"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_has_not_begun_is_probed(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    servers = Servers(a=held(asyncio.Event(), whole()))
    async with open_path(servers, abandon="probe") as scene:
        await leave_when(scene, lambda: servers.order == ["a"], stream=stream)
        assert scene.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: scene.busy == {"a": 0})
