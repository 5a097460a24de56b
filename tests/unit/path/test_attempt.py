"""One attempt: the release of its slot, the backend's health, time-outs, answers asked for whole."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
import pytest

from gateway.dialects.shared.passing import PassingDecoder
from gateway.errors import (
    ConnectFailed,
    GatewayError,
    NoBackend,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamError,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTLS,
)
from gateway.formats import jsontext
from gateway.formats.events import Event, Repair
from tests.support.path import (
    NO_CONNECTION,
    RESET,
    PathScene,
    open_path,
    reasons,
    text,
    usage,
)
from tests.support.servers import (
    DONE,
    Reply,
    Servers,
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

# --- handing on -------------------------------------------------------------------------------------


def note_asking(scene: PathScene, order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each request to the backend `a` noted as "asked"."""
    client = scene.fleet["a"].client
    exchange = client.exchange

    def asked(*args: Any, **routing: Any) -> Any:
        order.append("asked")
        return exchange(*args, **routing)

    monkeypatch.setattr(client, "exchange", asked)


async def test_whoever_gets_the_slot_asks_before_the_answer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = asyncio.Event()
    servers = Servers(a=[held(finished, native()), native()])
    order: list[str] = []

    async def one(scene: PathScene) -> None:
        await scene.answer()
        order.append("answered")

    async with open_path(servers, "chatglm2") as scene, asyncio.TaskGroup() as group:
        note_asking(scene, order, monkeypatch)
        group.create_task(one(scene))
        await wait_until(lambda: servers.order == ["a"])
        group.create_task(one(scene))
        await wait_until(lambda: scene.dispatcher.queue_depth("m") == 1)
        finished.set()
    assert order == ["asked", "asked", "answered", "answered"]


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n"], ids=["lf", "crlf"])
async def test_whoever_gets_the_slot_asks_before_the_end_of_a_stream_is_read(
    end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = asyncio.Event()
    last = chunk(finish="stop") + end
    servers = Servers(a=[streaming(chunk("a", role=True), last, until=finished, at=1), whole("b")])
    order: list[str] = []
    feed = PassingDecoder.feed

    def fed(decoder: PassingDecoder, data: bytes) -> list[Event]:
        order.append("end" if data.endswith(end) else "content")
        return feed(decoder, data)

    monkeypatch.setattr(PassingDecoder, "feed", fed)
    async with open_path(servers, slots=1) as scene, asyncio.TaskGroup() as group:
        note_asking(scene, order, monkeypatch)
        group.create_task(scene.answer(stream=True))
        await wait_until(lambda: order == ["asked", "content"])
        group.create_task(scene.answer())
        await wait_until(lambda: scene.dispatcher.queue_depth("m") == 1)
        finished.set()
    assert order == ["asked", "content", "asked", "end"]


async def test_a_card_is_not_free_for_others_before_its_stream_is_known_to_have_an_answer() -> None:
    servers = Servers(a=[streaming(DONE), whole("b"), whole("c")])
    async with open_path(servers, "chatglm3") as scene, asyncio.TaskGroup() as group:
        first = group.create_task(scene.answer(stream=True))
        second = group.create_task(scene.answer())
        await asyncio.wait({first, second})
        assert text(first.result()) == "b", "asked once more, by the same request"
        assert text(second.result()) == "c"


# --- what is learned of a backend ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "error", "up"),
    [
        pytest.param(NO_CONNECTION, ConnectFailed, False, id="refused-connection"),
        pytest.param(RESET, UpstreamReset, True, id="reset-once"),
        pytest.param(refusing(500), UpstreamError, True, id="500"),
        pytest.param(refusing(503, retry_after="7"), UpstreamBusy, True, id="503"),
        pytest.param(refusing(200, b"?"), UpstreamGarbled, True, id="garbage"),
    ],
)
async def test_a_backend_is_down_at_once_only_if_nobody_listens(
    reply: Reply, error: type[GatewayError], up: bool
) -> None:
    async with open_path(Servers(a=reply), extra="[retries]\nattempts = 1") as scene:
        await scene.failure(error)
        assert scene.dispatcher.up("a") is up
        assert scene.dispatcher.usable() == {"a": up}


async def test_a_failed_tls_handshake_is_not_taken_for_an_answer() -> None:
    untrusted = failing(httpx.ConnectError, ssl.SSLError(1, "certificate verify failed"))
    async with open_path(Servers(a=untrusted)) as scene:
        await scene.failure(UpstreamTLS)
        assert "misses=1" in repr(scene.health_monitor.healths["a"])


async def test_a_silent_backend_is_busy_and_not_down() -> None:
    servers = Servers(a=held(asyncio.Event(), whole()))
    async with open_path(servers, extra="[timeouts]\ntotal = 0.05\n") as scene:
        await scene.failure(TotalTimeout)
        assert scene.dispatcher.up("a")


async def test_those_who_wait_are_not_sent_to_a_backend_that_has_just_failed() -> None:
    broken, release = asyncio.Event(), asyncio.Event()
    servers = Servers(a=held(broken, NO_CONNECTION), b=held(release, whole()))
    async with open_path(servers, slots=1) as scene, asyncio.TaskGroup() as group:
        tasks = [group.create_task(scene.answer()) for _ in range(5)]
        await wait_until(lambda: sorted(servers.order) == ["a", "b"])
        broken.set()
        await wait_until(lambda: not scene.dispatcher.up("a"))
        release.set()
        answers = [await task for task in tasks]
    assert [text(answer) for answer in answers] == ["hello"] * 5
    assert servers.order.count("a") == 1


async def test_an_answered_probe_after_a_failure_brings_a_backend_up() -> None:
    servers = Servers(a=[NO_CONNECTION, whole()])
    async with open_path(servers) as scene:
        await scene.failure(ConnectFailed)
        await scene.failure(NoBackend)  # it is out
        scene.health_monitor.probed("a", "ok")
        await scene.answer()
        assert scene.dispatcher.up("a")


async def test_the_same_request_sent_again_is_known_as_the_same() -> None:
    async with open_path(Servers(a=refusing(500))) as scene:
        for content in ("one", "one", "two"):
            await scene.failure(UpstreamError, messages=[{"role": "user", "content": content}])
        assert "strikes=2" in repr(scene.health_monitor.healths["a"])


# --- streams that must be asked for again whole ----------------------------------------------------


V3 = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "\n ok"}, "finish_reason": "stop"}]
}


async def test_a_stream_without_an_event_is_asked_for_again_whole() -> None:
    servers = Servers(a=[streaming(DONE), refusing(200, jsontext.write(V3))])
    async with open_path(servers, "chatglm3") as scene:
        events = await scene.answer(stream=True)
    assert text(events) == "ok"
    assert [asked.body["stream"] for asked in servers.asked] == [True, False]
    assert events[0] == Repair("short_stream")
    assert scene.receipt.repairs == ("short_stream",)
    assert scene.outcomes == [("a", "ok")]


async def test_a_server_whose_streams_never_work_is_remembered() -> None:
    answer = refusing(200, jsontext.write(V3))
    servers = Servers(a=[streaming(), answer])
    async with open_path(servers, "chatglm2-openai") as scene:
        for _ in range(3):
            assert text(await scene.answer(stream=True)).strip() == "ok"
        assert scene.fleet["a"].no_streams
        assert "without streams" in repr(scene.fleet["a"])
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, False, False]


OLD_CHUNK = jsontext.write(
    {"model": "m", "id": "", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]}
).decode()
A_TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "pieces", [(chunk(OLD_CHUNK) + DONE,), (chunk(OLD_CHUNK), DONE)], ids=["in-one-piece", "in-two"]
)
async def test_glm4_server_whose_streams_hold_chunks_as_text_is_remembered(pieces: tuple[bytes, ...]) -> None:
    servers = Servers(a=[streaming(*pieces), whole("hello")])
    async with open_path(servers, "glm4") as scene:
        for _ in range(2):
            assert text(await scene.answer(stream=True)) == "hello"
        assert scene.fleet["a"].no_streams
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, False]


@pytest.mark.parametrize("pieces", [(), (DONE,)], ids=["nothing", "only-its-end"])
async def test_empty_stream_of_glm4_with_tools_is_asked_whole_once(pieces: tuple[bytes, ...]) -> None:
    servers = Servers(a=[streaming(*pieces), whole("hello"), streaming(*talk("again"))])
    async with open_path(servers, "glm4") as scene:
        assert text(await scene.answer(stream=True, tools=[A_TOOL])) == "hello"
        assert text(await scene.answer(stream=True, tools=[A_TOOL])) == "again"
        assert scene.outcomes == [("a", "ok")] * 2
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, True]


async def test_a_request_planned_before_that_was_known_is_asked_for_whole_too() -> None:
    servers = Servers(a=refusing(200, jsontext.write(V3)))
    async with open_path(servers, "chatglm2-openai") as scene:
        plan = scene.plan(stream=True)
        scene.fleet["a"].no_streams = True
        events = [event async for event in scene.events_of(plan)]
    assert text(events).strip() == "ok"
    assert [asked.body.get("stream", False) for asked in servers.asked] == [False]


# --- stop texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_cut_at_a_stop_text_the_server_does_not_know(stream: bool) -> None:
    async with open_path(Servers(a=native("one two END three")), "chatglm2") as scene:
        events = await scene.answer(stop=["END"], stream=stream)
    assert text(events) == "one two "
    assert reasons(events) == {0: "stop"}
    assert usage(events).completion < 6  # of what was returned


async def test_a_stream_is_given_up_at_its_stop_text() -> None:
    never = asyncio.Event()
    lead = chunk("\n one two")
    servers = Servers(a=streaming(lead, chunk(" END three"), chunk(" four"), until=never, at=2))
    async with open_path(servers, "chatglm3") as scene, asyncio.timeout(10):
        events = await scene.answer(stop="END", stream=True)
    assert text(events) == "one two "
    assert reasons(events) == {0: "stop"}
    assert scene.outcomes == [("a", "ok")]


async def test_a_server_that_knows_stop_texts_is_left_to_it() -> None:
    servers = Servers(a=whole("one END two"))
    async with open_path(servers) as scene:
        assert text(await scene.answer(stop=["END"])) == "one END two"
    assert servers.asked[0].body["stop"] == ["END"]


# --- time-outs -------------------------------------------------------------------------------------


async def test_at_the_total_limit_a_card_that_works_on_stays_taken() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, native()))
    async with open_path(servers, "chatglm2", "[timeouts]\ntotal = 0.2\n") as scene:
        await scene.failure(TotalTimeout)
        assert scene.busy == {"a": 1}
        assert scene.dispatcher.zombies("a") == 1
        assert scene.outcomes == [("a", "total_timeout")]
        finished.set()
        await wait_until(lambda: scene.busy == {"a": 0})


async def test_an_answer_that_never_comes_frees_the_card_at_twice_the_limit() -> None:
    servers = Servers(a=held(asyncio.Event(), native()))
    async with open_path(servers, "chatglm2", "[timeouts]\ntotal = 0.05\n") as scene:
        await scene.failure(TotalTimeout)
        await wait_until(lambda: scene.busy == {"a": 0})


async def test_a_stalled_stream_fails_and_is_closed() -> None:
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_path(servers, extra="[timeouts]\nbetween_tokens = 0.05\n") as scene:
        came, _ = await scene.failure(StallTimeout, stream=True)
        assert text(came) == "hello"
        assert scene.busy == {"a": 0}


async def test_a_stall_after_the_finish_is_a_good_end() -> None:
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=3))
    async with open_path(servers, extra="[timeouts]\nbetween_tokens = 0.05\n") as scene:
        events = await scene.answer(stream=True)
    assert text(events) == "hello"
    assert reasons(events) == {0: "stop"}


async def test_a_time_out_is_not_repeated_elsewhere() -> None:
    servers = Servers(a=held(asyncio.Event(), native()), b=native())
    async with open_path(servers, "chatglm2", "[timeouts]\ntotal = 0.05\n") as scene:
        await scene.failure(TotalTimeout)
        assert servers.order == ["a"]
        await wait_until(lambda: scene.busy["a"] == 0)
