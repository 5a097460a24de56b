"""Copies of a share of the requests, over simulated servers on real ports: callers never feel them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from gateway.server import running
from gateway.simulator import Options, Simulator
from tests.support.site import Site, site
from tests.support.stack import UNPROBED, configured, wait_until

BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
NOTHING: Mapping[str, Any] = MappingProxyType({})
SAID = "春眠不觉晓，处处闻啼鸟。"
ASKED = "a question that nobody else may read"
HANGS = {"faults": ("hang*always",)}


def table(share: float = 1.0, **settings: float) -> str:
    more = "".join(f", {name} = {value}" for name, value in settings.items())
    return f'[[models]]\nname = "m"\nshadow = {{ model = "new", share = {share}{more} }}\n'


class Pair:
    """A server of the model `m`, one of its shadow, and the gateway over both."""

    def __init__(self, here: Site, first: Simulator, second: Simulator, http: httpx.AsyncClient) -> None:
        self.here, self.first, self.second, self.http = here, first, second, http

    async def ask(self, model: str = "m", *, stream: bool = False) -> str:
        """Ask; give what came."""
        answer = await self.http.post("/v1/chat/completions", json=body(model, stream=stream))
        assert answer.status_code == 200, answer.text
        return answer.text

    def metric(self, name: str, **labels: str) -> float:
        return self.here.metric(f"gateway_shadow_{name}", **labels)

    async def settle(self) -> None:
        """Wait until no copy runs."""
        await wait_until(lambda: not len(self.here.gateway.shadow))


def body(model: str = "m", *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": ASKED}], "stream": stream}


@asynccontextmanager
async def pair(
    extra: str,
    kind: str = "openai",
    *,
    second: Mapping[str, Any] = NOTHING,
    settle: bool = True,
    **backend: Any,
) -> AsyncIterator[Pair]:
    async with (
        Simulator(Options(dialect=kind, reply=SAID)) as caller,
        Simulator(Options(**{"dialect": kind, "reply": SAID, **second})) as shadow,
        site(
            {"a": (caller.url, kind), "b": (shadow.url, kind)},
            extra + UNPROBED,
            serves={"b": "new"},
            settle=settle,
            **backend,
        ) as here,
        httpx.AsyncClient(base_url=here.url, trust_env=False, timeout=20) as http,
    ):
        yield Pair(here, caller, shadow, http)


@BOTH
@pytest.mark.parametrize("kind", ["openai", "glm4", "chatglm2", "chatglm3"])
async def test_a_copy_is_compared_counted_and_told_without_a_word_of_it(kind: str, stream: bool) -> None:
    async with pair(table(), kind) as one:
        assert '"m"' in await one.ask(stream=stream)
        await one.settle()
        assert (one.first.started, one.second.started) == (1, 1)
        pair_ = {"model": "m", "shadow": "new"}
        assert one.metric("copies_total", **pair_, outcome="ok") == 1
        for what in ("outcome", "finish", "text"):
            assert one.metric("compared_total", **pair_, what=what, result="same") == 1
        for side in ("caller", "copy"):
            assert one.metric("answer_characters_sum", **pair_, side=side) == len(SAID)
            assert one.metric("duration_seconds_count", **pair_, side=side) == 1
            assert one.metric("first_token_seconds_count", **pair_, side=side) == 1
        assert one.metric("skipped_total") == 0
        await wait_until(lambda: '"shadow"' in one.here.log.getvalue())
        (line,) = [line for line in one.here.lines if line["event"] == "shadow"]
        log = one.here.log.getvalue()
    assert (line["same_text"], line["backend"], line["caller_backend"]) == (True, "b", "a")
    assert SAID[:4] not in log
    assert json.dumps(SAID[:4])[1:-1] not in log
    assert ASKED[:10] not in log


async def test_another_answer_is_told_from_the_callers() -> None:
    async with pair(table(), second={"reply": "别的话"}) as one:
        await one.ask(stream=True)
        await one.settle()
        assert one.metric("compared_total", what="text", result="different") == 1
        assert one.metric("compared_total", what="outcome", result="same") == 1


async def test_a_copy_counts_for_no_key_no_backend_and_no_model() -> None:
    async with pair(table()) as one:
        await one.ask()
        await one.settle()
        assert one.here.metric("gateway_requests_total") == 1
        assert one.here.metric("gateway_tokens_total", model="new") == 0
        assert one.here.metric("gateway_backend_requests_total", backend="b") == 0
        assert one.here.metric("gateway_queue_wait_seconds_count", model="new") == 0
        await wait_until(lambda: '"request"' in one.here.log.getvalue())
        assert [line["event"] for line in one.here.lines].count("request") == 1


@BOTH
async def test_a_shadow_that_hangs_holds_up_nobody(stream: bool) -> None:
    async with pair(table(at_once=3), second=HANGS, settle=False, slots=8) as one:
        async with asyncio.timeout(10):  # the shadow would hang for ever
            for _ in range(10):
                await one.ask(stream=stream)
        assert len(one.here.gateway.shadow) == 3
        assert one.metric("skipped_total", reason="full") == 7
        assert one.here.waiting == 0


@pytest.mark.parametrize("fault", ["status:500", "reset", "garbage", "cut:3", "hang"])
@BOTH
async def test_a_shadow_that_fails_changes_nothing(fault: str, stream: bool) -> None:
    async with pair(table(timeout=0.3), second={"faults": (f"{fault}*always",)}, slots=8) as one:
        expected = len(await one.ask(stream=stream))
        await one.settle()
        for _ in range(4):
            assert len(await one.ask(stream=stream)) == expected
            await one.settle()
        assert one.metric("copies_total", outcome="ok") == 0
        assert one.metric("copies_total") == 5
        assert one.here.gateway.dispatcher.up("b")
        assert one.here.metric("gateway_backend_ejections_total") == 0


async def test_a_busy_shadow_is_left_alone() -> None:
    async with pair(table(), second={"faults": ("slow:0.3",)}, slots=1) as one:
        real = asyncio.ensure_future(one.ask("new"))
        await wait_until(lambda: one.second.in_flight == 1)
        await one.ask()
        await wait_until(lambda: one.metric("skipped_total", reason="busy") == 1)
        await real
        assert one.second.max_in_flight == 1
        assert one.second.started == 1


async def test_a_copy_makes_room_for_who_comes_to_wait() -> None:
    async with pair(table(), second={"faults": ("hang",)}, slots=1, abandon="close") as one:
        await one.ask()
        await wait_until(lambda: one.second.in_flight == 1)
        async with asyncio.timeout(30):
            assert '"new"' in await one.ask("new", stream=True)
        assert one.metric("skipped_total", reason="gave_way") == 1


async def test_the_bytes_of_a_copied_stream_are_those_of_any_other() -> None:
    async with pair(table(0)) as one:
        plain = await one.ask(stream=True)
        settings = configured(
            {"a": (one.first.url, "openai"), "b": (one.second.url, "openai")},
            table(1) + UNPROBED,
            serves={"b": "new"},
        )
        one.here.gateway.reconfigure(settings)
        copied = await one.ask(stream=True)
        await one.settle()
        assert one.second.started == 1
    assert _without_ids(copied) == _without_ids(plain)


def _without_ids(stream: str) -> list[Any]:
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return [{**event, "id": "", "created": 0} for event in events]


async def test_a_reload_changes_the_share() -> None:
    async with pair(table(0)) as one:
        urls = {"a": (one.first.url, "openai"), "b": (one.second.url, "openai")}
        copies = 0
        for share, more in ((1, 1), (0, 0), (1, 1)):
            one.here.gateway.reconfigure(configured(urls, table(share) + UNPROBED, serves={"b": "new"}))
            await one.ask()
            await one.settle()
            copies += more
            assert one.second.started == copies


async def test_a_client_that_leaves_takes_its_copy_with_it() -> None:
    async with pair(table()) as one:
        one.first.inject("slow:0.2")
        with pytest.raises(httpx.ReadTimeout):
            await one.http.post("/v1/chat/completions", json=body(), timeout=0.05)
        await wait_until(lambda: one.metric("skipped_total", reason="unanswered") == 1)
        assert one.second.started == 0


@pytest.mark.parametrize("kind", ["openai", "chatglm2"])
async def test_the_end_waits_for_no_copy_and_leaves_none_behind(kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with (
        Simulator(Options(dialect=kind, reply=SAID)) as caller,
        Simulator(Options(dialect=kind, reply=SAID, faults=("hang*always",))) as shadow,
    ):
        urls = {"a": (caller.url, kind), "b": (shadow.url, kind)}
        tasks = asyncio.all_tasks()
        settings = configured(urls, table() + UNPROBED, serves={"b": "new"})
        async with running(settings) as run:
            async with httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=20) as http:
                for stream in (True, False):
                    answer = await http.post("/v1/chat/completions", json=body(stream=stream))
                    assert answer.status_code == 200
            await wait_until(lambda: shadow.in_flight > 0)
            gateway, began = run.gateway, loop.time()
        assert loop.time() - began < settings.server.drain / 5
        assert len(gateway.shadow) == 0
        assert len(gateway.background) == 0
        if kind == "openai":  # the others work on whatever happens
            await wait_until(lambda: shadow.in_flight == 0)
        left = {task for task in asyncio.all_tasks() - tasks if "copy of" in task.get_name()}
        assert left == set()
