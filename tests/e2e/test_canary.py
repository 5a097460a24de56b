"""A share of a model's requests answered by its canary, over simulated servers on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.simulator import Options, Simulator
from tests.support.faulty import closed_port
from tests.support.site import Site, site
from tests.support.stack import UNPROBED, configured, wait_until

BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
OLD, NEW = "说的是旧模型。", "说的是新模型。"
NOTHING: Mapping[str, Any] = MappingProxyType({})
KINDS = ("glm4", "chatglm2", "openai")


def table(share: float, more: str = "") -> str:
    return f'[[models]]\nname = "m"\ncanary = {{ model = "new", share = {share} }}\n{more}'


class Pair:
    """A server of the model `m`, one of its canary, and the gateway over both."""

    def __init__(self, here: Site, old: Simulator, new: Simulator) -> None:
        self.here, self.old, self.new = here, old, new
        self.http = httpx.AsyncClient(base_url=here.url, trust_env=False, timeout=20)

    async def ask(
        self, *, stream: bool = False, headers: Mapping[str, str] = NOTHING, **body: Any
    ) -> tuple[str, str, httpx.Response]:
        """Ask; give the model named and the text said."""
        body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], "stream": stream, **body}
        answer = await self.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        said = _events(answer.text) if stream else [answer.json()]
        (name,) = {one["model"] for one in said}
        choices = [choice for one in said for choice in one["choices"]]
        text = "".join(
            (one.get("delta") or one.get("message"))["content"] or ""
            for one in choices
            if "content" in (one.get("delta") or one.get("message") or ())
        )
        assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["stop"]
        return name, text, answer

    def counted(self, result: str, outcome: str = "ok") -> float:
        return self.here.metric(
            "gateway_canary_requests_total", model="m", canary="new", result=result, outcome=outcome
        )

    async def line(self) -> dict[str, Any]:
        """The log's line of the one request, which is written a little later."""
        await wait_until(lambda: "request_id" in self.here.log.getvalue())
        (line,) = [line for line in self.here.lines if line["event"] == "request"]
        return line

    def configure(self, extra: str) -> None:
        """Have another configuration taken over."""
        urls = {"a": (self.old.url, self.old.options.dialect), "b": (self.new.url, self.new.options.dialect)}
        self.here.gateway.reconfigure(configured(urls, extra + UNPROBED, serves={"b": "new"}))


def _events(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


@contextlib.asynccontextmanager
async def pair(
    extra: str,
    kind: str = "openai",
    *,
    new: Mapping[str, Any] = NOTHING,
    old: Mapping[str, Any] = NOTHING,
    **backend: Any,
) -> AsyncIterator[Pair]:
    async with (
        Simulator(Options(dialect=kind, reply=OLD, **old)) as first,
        Simulator(Options(dialect=kind, reply=NEW, **new)) as second,
        site(
            {"a": (first.url, kind), "b": (second.url, kind)},
            extra + UNPROBED,
            serves={"b": "new"},
            **backend,
        ) as here,
    ):
        one = Pair(here, first, second)
        try:
            yield one
        finally:
            await one.http.aclose()


@BOTH
@pytest.mark.parametrize("kind", KINDS)
async def test_the_canary_answers_in_its_own_name(kind: str, stream: bool) -> None:
    async with pair(table(1), kind) as one:
        name, text, answer = await one.ask(stream=stream)
        assert (name, text) == ("new", NEW)
        assert answer.headers["x-gateway-backend"] == "b"
        assert (one.old.started, one.new.started) == (0, 1)
        assert one.counted("taken") == 1
        assert one.here.metric("gateway_fallbacks_total") == 0
        assert one.here.metric("gateway_tokens_total", model="new") > 0
        assert one.here.metric("gateway_tokens_total", model="m") == 0
        line = await one.line()
    assert (line["model"], line["answered"], line["canary"]) == ("m", "new", "taken")


async def test_sessions_are_shared_out_and_each_stays_on_its_side() -> None:
    async with pair(table(0.3), slots=8) as one:

        async def wait_side(number: int) -> str:
            names = {
                (await one.ask(stream=bool(turn % 2), headers={"x-session-affinity": f"s-{number}"}))[0]
                for turn in range(3)
            }
            assert len(names) == 1
            return names.pop()

        sides = [
            side
            for start in range(0, 100, 10)
            for side in await asyncio.gather(*map(wait_side, range(start, start + 10)))
        ]
        assert 10 <= sides.count("new") <= 55
        assert one.new.started == 3 * sides.count("new")
        assert one.counted("taken") == one.new.started


async def test_the_official_sdk_stays_on_its_side_by_user_and_by_its_first_words() -> None:
    async with (
        pair(table(0.5)) as one,
        AsyncOpenAI(base_url=f"{one.here.url}/v1", api_key="k", max_retries=0) as sdk,
    ):
        for number in range(10):
            messages: list[Any] = [{"role": "user", "content": f"question {number}"}]
            named: Any = {"user": f"u-{number}"} if number % 2 else {}
            models = set()
            for _ in range(3):
                answer = await sdk.chat.completions.create(model="m", messages=messages, **named)
                models.add(answer.model)
                messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "and?"}]
            assert len(models) == 1


FAULTS = {
    "refused-status": {"faults": ("status:500*always",)},
    "bad-request": {"faults": ("status:400*always",)},
    "reset": {"faults": ("reset*always",)},
    "garbage": {"faults": ("garbage*always",)},
    "silent": {"faults": ("hang*always",)},
}
QUICK = "[timeouts]\nfirst_token = 0.3\ntotal = 0.5\nbetween_tokens = 0.3\n"


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_the_canary_fails_before_its_first_word_the_model_answers(
    fault: str, stream: bool
) -> None:
    async with pair(table(1) + QUICK, new=FAULTS[fault], slots=4) as one:
        name, text, answer = await one.ask(stream=stream)
        assert (name, text) == ("m", OLD)
        assert answer.headers["x-gateway-backend"] == "a"
        assert one.counted("returned") == 1
        assert one.here.metric("gateway_fallbacks_total") == 0
        assert one.here.metric("gateway_tokens_total", model="m") > 0
        line = await one.line()
    assert (line["answered"], line["canary"], line["outcome"], line["attempts"]) == (
        None,
        "returned",
        "ok",
        2,
    )


async def test_a_canary_that_is_down_costs_nothing_but_the_first_look() -> None:
    async with Simulator(Options(dialect="openai", reply=OLD)) as old:
        with closed_port() as nowhere:
            urls = {"a": (old.url, "openai"), "b": (nowhere, "openai")}
            async with site(urls, table(1) + UNPROBED, serves={"b": "new"}) as here:
                one = Pair(here, old, old)
                for _ in range(3):
                    assert (await one.ask())[:2] == ("m", OLD)
                await one.http.aclose()
                assert here.metric("gateway_backend_requests_total", backend="b") == 1
                assert one.counted("returned") == 3


async def test_the_client_reads_the_name_it_asked_by_when_the_model_answers_for_its_canary() -> None:
    extra = table(1, 'aliases = ["alias"]\n')
    async with pair(extra, "glm4", new=FAULTS["refused-status"]) as one:
        for stream in (True, False):
            assert (await one.ask(stream=stream, model="alias"))[0] == "alias"


async def test_after_the_first_word_nothing_moves() -> None:
    async with pair(table(1), new={"faults": ("cut:3*always",)}) as one:
        body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], "stream": True}
        answer = await one.http.post("/v1/chat/completions", json=body)
        assert '"error"' in answer.text
        assert "[DONE]" not in answer.text
        assert one.old.started == 0
        assert one.counted("taken", "truncated") == 1


async def test_when_both_fail_the_client_reads_of_the_model_it_asked() -> None:
    async with pair(table(1), new=FAULTS["refused-status"], old={"faults": ("garbage*always",)}) as one:
        body = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
        answer = await one.http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid_response")
        assert one.counted("returned", "bad_payload") == 1


async def test_the_models_own_fallbacks_follow_but_not_the_canary_again() -> None:
    extra = table(1, 'fallbacks = ["new", "old"]\n[[models]]\nname = "old"\nbackends = ["c"]\n')
    bad: dict[str, Any] = {"faults": ("status:500*always",)}
    async with (
        Simulator(Options(dialect="openai", **bad)) as first,
        Simulator(Options(dialect="openai", **bad)) as second,
        Simulator(Options(dialect="openai", reply=OLD)) as third,
    ):
        urls = {"a": (first.url, "openai"), "b": (second.url, "openai"), "c": (third.url, "openai")}
        async with site(urls, extra + UNPROBED, serves={"b": "new", "c": "old"}) as here:
            one = Pair(here, first, second)
            assert (await one.ask())[:2] == ("old", OLD)
            await one.http.aclose()
            assert (first.started, second.started, third.started) == (1, 1, 1)
            assert here.metric("gateway_fallbacks_total", **{"from": "m", "to": "old"}) == 1


async def test_the_other_way_round_only_where_fallbacks_say_so() -> None:
    async with pair(table(0), old=FAULTS["refused-status"]) as one:
        answer = await one.http.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        )
        assert answer.status_code == 502
        assert one.new.started == 0
        one.configure(table(0, 'fallbacks = ["new"]\n'))
        assert (await one.ask())[0] == "new"


async def test_keys_that_may_not_use_the_canary_never_get_there() -> None:
    keys = "".join(
        f'[[keys]]\nname = "{name}"\nkey = "secret-{name}"\nmodels = {json.dumps(models)}\n'
        for name, models in {"one": ["m"], "two": ["m", "new"]}.items()
    )
    async with pair(table(1) + keys) as one:
        for key, expected in (("one", "m"), ("two", "new")):
            assert (await one.ask(headers={"authorization": f"Bearer secret-{key}"}))[0] == expected
        assert (one.counted("forbidden"), one.counted("taken")) == (1, 1)


async def test_what_the_canary_cannot_take_stays() -> None:
    async with (
        Simulator(Options(dialect="openai", reply=OLD)) as first,
        Simulator(Options(dialect="chatglm2", reply=NEW)) as second,
        site(
            {"a": (first.url, "openai"), "b": (second.url, "chatglm2")},
            table(1) + UNPROBED,
            serves={"b": "new"},
        ) as here,
    ):
        one = Pair(here, first, second)
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        assert (await one.ask(tools=[tool]))[0] == "m"
        assert (await one.ask())[0] == "new"
        await one.http.aclose()
        assert (one.counted("unfit"), one.counted("taken")) == (1, 1)


async def test_a_busy_canary_is_waited_for() -> None:
    async with pair(table(1), new={"faults": ("slow:0.2",)}, slots=1) as one:
        served = asyncio.ensure_future(one.ask())
        await wait_until(lambda: one.new.in_flight == 1)
        assert (await one.ask(stream=True))[0] == "new"
        assert (await served)[0] == "new"
        assert one.here.metric("gateway_queue_wait_seconds_count", model="new", outcome="granted") == 2


async def test_a_canary_that_stays_busy_is_left_when_the_queues_time_is_over() -> None:
    extra = table(1) + "[queue]\ntimeout = 0.2\n"
    async with pair(extra, new={"faults": ("slow:1",)}, slots=1) as one:
        served = asyncio.ensure_future(one.ask())
        await wait_until(lambda: one.new.in_flight == 1)
        assert (await one.ask(stream=True))[0] == "m"
        assert (await served)[0] == "new"
        assert (one.counted("taken"), one.counted("returned")) == (1, 1)


async def test_a_full_queue_of_the_canary_sends_its_share_back() -> None:
    async with pair(table(1) + "[queue]\nlength = 0\n", new={"faults": ("slow:0.5",)}, slots=1) as one:
        served = asyncio.ensure_future(one.ask())
        await wait_until(lambda: one.new.in_flight == 1)
        assert (await one.ask())[0] == "m"
        assert (await served)[0] == "new"


async def test_a_reload_changes_the_share_and_takes_the_canary_away() -> None:
    async with pair(table(0)) as one:
        for extra, expected in ((table(1), "new"), (table(0), "m"), (table(1), "new"), ("", "m")):
            one.configure(extra)
            assert (await one.ask(stream=True))[0] == expected


async def test_who_waits_for_a_canary_that_a_reload_takes_away_is_answered_by_the_model() -> None:
    async with pair(table(1), new={"faults": ("hang",)}, slots=1) as one:
        hanging = asyncio.ensure_future(one.ask())
        await wait_until(lambda: one.new.in_flight == 1)
        waiting = asyncio.ensure_future(one.ask(stream=True))
        await wait_until(lambda: one.here.waiting == 1)
        one.here.gateway.reconfigure(configured({"a": (one.old.url, "openai")}, UNPROBED, slots=1))
        name, text, _ = await waiting
        assert (name, text) == ("m", OLD)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
