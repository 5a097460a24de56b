"""The composition root: everything is built from one configuration, joined, and can be closed."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.compose import create_app
from gateway.config import Config
from gateway.telemetry.logs.events import configure
from tests.support.asgi import chat, fetch, rig, with_server
from tests.support.servers import Servers, failing, held, native, streaming, talk, whole
from tests.support.stack import configured, wait_until


def test_importing_builds_nothing() -> None:
    assert "gateway.compose" in sys.modules
    assert not [name for name, value in vars(sys.modules["gateway.compose"]).items() if name == "app"]


async def test_every_configured_backend_and_model_is_there() -> None:
    servers = Servers(a=native(), b=whole())
    async with rig(servers, {"a": "chatglm2", "b": "openai"}) as house:
        assert {name: one.dialect.name for name, one in house.gateway.fleet.items()} == {
            "a": "chatglm2",
            "b": "openai",
        }
        models = await house.get("/v1/models")
        assert [entry["id"] for entry in models.json["data"]] == ["m"]
        exposition = house.gateway.metrics.render()[0].decode()
    assert 'gateway_backend_slots{backend="a"} 1.0' in exposition
    assert 'gateway_backend_slots{backend="b"} 8.0' in exposition
    assert 'gateway_queue_depth{model="m"} 0.0' in exposition


def key(name: str, **more: object) -> str:
    return "\n".join(["[[keys]]", f'name = "{name}"', f'key = "sk-{name}-key"', *_lines(more)]) + "\n"


def _lines(fields: dict[str, object]) -> list[str]:
    return [f"{name} = {value}" for name, value in fields.items()]


async def order_of_answers(keys: str, *names: str) -> list[str]:
    """Whose requests are answered first when all of these wait for one card."""
    release = asyncio.Event()
    answered: list[str] = []
    async with rig(Servers(a=held(release, native())), "chatglm2", keys) as house:
        house.begin(body=chat(), headers={"authorization": "Bearer sk-first-key"})
        await wait_until(lambda: house.busy == 1)
        calls = []
        for depth, name in enumerate(names, start=1):
            call = house.begin(body=chat(), headers={"authorization": f"Bearer sk-{name}-key"})
            calls.append(call.task)
            call.task.set_name(name)
            call.task.add_done_callback(lambda task: answered.append(task.get_name()))
            await wait_until(lambda depth=depth: house.gateway.dispatcher.queue_depth("m") == depth)
        release.set()
        await asyncio.gather(*calls)
    return answered


async def test_a_key_with_a_higher_priority_goes_first() -> None:
    keys = key("first") + key("low", priority=-1) + key("high", priority=3)
    assert await order_of_answers(keys, "low", "first", "high") == ["high", "first", "low"]


async def test_keys_take_turns_by_weight() -> None:
    keys = key("first") + key("one") + key("two", weight=2)
    order = await order_of_answers(keys, *["one"] * 3, *["two"] * 4)
    assert order == ["one", "two", "two", "one", "two", "two", "one"]


async def test_a_session_stays_on_its_card() -> None:
    servers = Servers(**{name: whole() for name in "abcd"})
    async with rig(servers, extra='[[models]]\nname = "m"\nbalance = "session"\n') as house:
        for user in ("ann", "bob"):
            earlier = len(servers.order)
            for turn in range(4):
                await house.chat(messages=[{"role": "user", "content": f"turn {turn}"}], user=user)
            assert len(set(servers.order[earlier:])) == 1


async def test_a_chat_stays_with_the_card_that_knows_its_beginning() -> None:
    servers = Servers(**{name: whole() for name in "abcd"})
    async with rig(servers, extra='[[models]]\nname = "m"\nbalance = "prefix"\n') as house:
        messages = [{"role": "user", "content": "hello"}]
        for _ in range(4):
            await house.chat(messages=messages)
            messages += [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "and?"}]
        assert len(set(servers.order)) == 1


async def test_what_happens_is_counted_and_logged() -> None:
    async with rig(Servers(a=failing(httpx.ConnectError), b=whole())) as house:
        call = await house.chat()
        exposition = house.gateway.metrics.render()[0].decode()
    assert call.header("x-request-id") == house.access[0]["request_id"]
    assert house.access[0]["retries"] == ["connect"]
    assert [line["event"] for line in house.lines] == ["backend_down", "request"]
    assert 'gateway_retries_total{model="m",reason="connect"} 1.0' in exposition
    assert 'gateway_backend_up{backend="a"} 0.0' in exposition
    assert 'gateway_requests_total{door="chat",model="m",outcome="ok",status="200",stream="false"} 1.0' in (
        exposition
    )


async def test_notes_are_told_in_words() -> None:
    async with rig(Servers(a=whole()), "chatglm-cpp") as house:
        await house.chat(messages=[{"role": "user", "content": "word " * 1000}])
    (note,) = [line for line in house.lines if line["event"] == "note"]
    assert "prompt_window" in note["message"]
    assert note["backend"] == "a"


async def test_a_bug_is_logged_and_tells_the_client_nothing() -> None:
    async with rig(Servers(a=whole())) as house:
        house.gateway.fleet.clear()  # as a bug might
        call = await house.chat()
    assert (call.status, call.error["code"]) == (500, "internal_error")
    (crash,) = [line for line in house.lines if line["event"] == "crash"]
    assert crash["request_id"] == call.header("x-request-id")
    assert b"KeyError" not in call.body


async def test_request_ids_are_made_anew() -> None:
    async with rig(Servers(a=whole())) as house:
        ids = {(await house.get("/livez")).header("x-request-id") for _ in range(20)}
    assert len(ids) == 20
    assert all(one is not None and one.startswith("req_") for one in ids)


async def test_keys_are_off_unless_there_are_some() -> None:
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    for extra, server, status in [("", {}, 200), (keys, {}, 401), (keys, {"auth": "none"}, 200)]:
        async with rig(Servers(a=whole()), extra=extra, server=server) as house:
            assert (await house.chat()).status == status


async def test_closing_ends_what_still_runs() -> None:
    gateway = create_app(
        configured(Servers(a=whole()).urls("openai")), configure("json", "debug", io.StringIO())
    )
    ran: list[str] = []

    async def work() -> None:
        try:
            await wait_until(lambda: False)
        finally:
            ran.append("ended")

    gateway.background.start(work(), "work")
    assert (await fetch(gateway.data, "GET", "/livez")).status == 200
    await gateway.aclose()
    assert ran == ["ended"]
    assert len(gateway.background) == 0


# --- another configuration -------------------------------------------------------------------------


def over(*names: str, extra: str = "", **backend: Any) -> Config:
    """The same settings with these backends alone."""
    urls = {name: (f"http://{name}:80", "openai") for name in names}
    return configured(urls, extra, **backend)


def over_model(name: str) -> str:
    """The backend `a` serving another model."""
    return f'[[backends]]\nname = "a"\nurl = "http://a:80"\ndialect = "chatglm"\nmodels = ["{name}"]\n'


async def test_a_backend_that_is_new_is_asked_and_one_that_is_gone_no_more() -> None:
    async with rig(Servers(a=whole(), b=whole())) as house:
        house.gateway.reconfigure(over("b"))
        assert {(await house.chat()).header("x-gateway-backend") for _ in range(3)} == {"b"}
        house.gateway.reconfigure(over("a"))
        assert {(await house.chat()).header("x-gateway-backend") for _ in range(3)} == {"a"}
        exposition = house.gateway.metrics.render()[0].decode()
    assert 'gateway_backend_up{backend="a"}' in exposition
    assert 'gateway_backend_up{backend="b"}' not in exposition
    assert 'gateway_backend_requests_total{backend="b",outcome="ok"} 3.0' in exposition


async def test_a_stream_in_flight_ends_on_the_backend_that_is_gone() -> None:
    until = asyncio.Event()
    servers = Servers(a=streaming(*talk("one", "two"), until=until, at=2), b=whole())
    async with rig(servers) as house:
        house.gateway.reconfigure(over("a"))
        call = house.begin(body=chat(stream=True))
        await wait_until(lambda: "one" in call.body.decode())
        gone = house.gateway.fleet["a"]
        house.gateway.reconfigure(over("b"))
        assert gone.retired
        assert (await house.chat()).header("x-gateway-backend") == "b"
        until.set()
        await call.task
        assert call.events[-1] == "[DONE]"
        assert "two" in call.body.decode()
        assert house.gateway.dispatcher.usable() == {"b": True}


async def test_who_waits_is_planned_anew_for_the_backends_of_now() -> None:
    until = asyncio.Event()
    async with rig(
        Servers(a=held(until, native()), b=whole("from b")), {"a": "chatglm", "b": "openai"}
    ) as house:
        house.gateway.reconfigure(configured({"a": ("http://a:80", "chatglm")}))
        busy = house.begin(body=chat())
        await wait_until(lambda: house.busy == 1)
        waits = house.begin(body=chat())
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("m") == 1)
        # The same name is another server now, which speaks another dialect.
        house.gateway.reconfigure(configured({"a": ("http://b:80", "openai")}))
        await waits.task
        assert waits.json["choices"][0]["message"]["content"] == "from b"
        until.set()
        await busy.task
        assert busy.status == 200


async def test_who_waits_for_a_model_that_is_gone_is_refused() -> None:
    until = asyncio.Event()
    async with rig(Servers(a=held(until, native())), "chatglm") as house:
        busy = house.begin(body=chat())
        await wait_until(lambda: house.busy == 1)
        waits = house.begin(body=chat())
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("m") == 1)
        house.gateway.reconfigure(configured({}, over_model("other")))
        await waits.task
        assert (waits.status, waits.error["code"]) == (503, "no_backend")
        assert (await house.chat()).error["code"] == "model_not_found"
        until.set()
        await busy.task
        assert busy.status == 200


FALLS = '[[models]]\nname = "m"\nfallbacks = ["spare"]\n'


def spare(*names: str, dialect: str = "chatglm") -> Config:
    """The model `m`, whose backend `a` is down, and its fallback `spare` on these backends."""
    urls = {"a": ("http://a:80", "chatglm")} | {name: (f"http://{name}:80", dialect) for name in names}
    return configured(urls, FALLS, serves=dict.fromkeys(names, "spare"))


@pytest.mark.parametrize(
    ("later", "dialect", "ends"),
    [
        pytest.param(("b", "c"), "chatglm", "c", id="added"),
        pytest.param(("c",), "chatglm", "c", id="replaced"),
        pytest.param(("c",), "chatglm2", "c", id="replaced-by-another-dialect"),
        pytest.param(("c", "d"), "chatglm2", "c", id="replaced-by-two"),
    ],
)
async def test_a_request_that_waits_for_a_fallback_goes_to_a_backend_that_a_reload_adds(
    later: tuple[str, ...], dialect: str, ends: str
) -> None:
    until = asyncio.Event()
    servers = Servers(
        a=failing(httpx.ConnectError), b=held(until, native()), c=native("from c"), d=native("d")
    )
    async with rig(servers, "chatglm") as house:
        house.gateway.reconfigure(spare("b"))
        busy = house.begin(body=chat(model="spare"))
        await wait_until(lambda: house.gateway.dispatcher.in_flight("b") == 1)
        waits = house.begin(body=chat())
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("spare") == 1)
        house.gateway.reconfigure(spare(*later, dialect=dialect))
        await waits.task
        assert (waits.status, waits.header("x-gateway-backend")) == (200, ends)
        assert waits.json["model"] == "spare"
        until.set()
        await busy.task
        assert not any(house.gateway.dispatcher.in_flight(name) for name in later)


async def test_a_request_that_waits_for_a_fallback_that_is_gone_is_refused() -> None:
    until = asyncio.Event()
    servers = Servers(a=failing(httpx.ConnectError), b=held(until, native()))
    async with rig(servers, "chatglm") as house:
        house.gateway.reconfigure(spare("b"))
        busy = house.begin(body=chat(model="spare"))
        await wait_until(lambda: house.gateway.dispatcher.in_flight("b") == 1)
        waits = house.begin(body=chat())
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("spare") == 1)
        house.gateway.reconfigure(configured({"a": ("http://a:80", "chatglm")}))
        await waits.task
        assert (waits.status, waits.error["code"]) == (503, "no_backend")
        until.set()
        await busy.task


CARDS = """
[[backends]]
name = "cards"
url = "http://cards.svc:80"
dialect = "openai"
models = ["cards"]
discover = "dns"
"""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_whose_servers_dns_does_not_name_is_known_and_others_may_answer(stream: bool) -> None:
    async with rig(Servers(a=streaming(*talk("from a")) if stream else whole("from a")), "openai") as house:
        house.gateway.reconfigure(configured({"a": ("http://a:80", "openai")}, CARDS))
        for body in (chat(model="cards", stream=stream), chat(model="cards", stream=stream, n=2)):
            call = await house.post("/v1/chat/completions", body)
            assert (call.status, call.error["code"], call.header("retry-after")) == (503, "no_backend", "1")
        falls = '[[models]]\nname = "cards"\nfallbacks = ["m"]\n'
        house.gateway.reconfigure(configured({"a": ("http://a:80", "openai")}, CARDS + falls))
        call = await house.post("/v1/chat/completions", chat(model="cards", stream=stream))
        assert (call.status, call.header("x-gateway-backend")) == (200, "a")
        assert b"from a" in call.body
        assert house.gateway.settings.services
        assert [one.name for one in house.gateway.fleet.values()] == ["a"]


async def test_a_canary_whose_servers_dns_does_not_name_gives_its_requests_back() -> None:
    split = '[[models]]\nname = "m"\ncanary = { model = "cards", share = 1.0 }\n'
    async with rig(Servers(a=whole("from a")), "openai") as house:
        house.gateway.reconfigure(configured({"a": ("http://a:80", "openai")}, CARDS + split))
        call = await house.chat()
        assert (call.status, call.header("x-gateway-backend")) == (200, "a")


async def test_a_service_is_no_other_model_for_who_failed_while_it_has_no_servers() -> None:
    falls = '[[models]]\nname = "m"\nfallbacks = ["cards"]\n'
    async with rig(Servers(a=failing(httpx.ConnectError)), "openai") as house:
        house.gateway.reconfigure(configured({"a": ("http://a:80", "openai")}, CARDS + falls))
        call = await house.chat()
        assert (call.status, call.error["code"]) == (503, "no_backend")


async def test_keys_aliases_and_limits_change_for_the_next_request() -> None:
    extra = '[[models]]\nname = "m"\naliases = ["n"]\n[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    async with rig(Servers(a=whole())) as house:
        assert (await house.chat()).status == 200
        house.gateway.reconfigure(with_server(over("a", extra=extra), max_body=1024))
        assert (await house.chat()).status == 401
        key = {"authorization": "Bearer sk-12345678"}
        assert (await house.chat(key, model="n")).status == 200
        assert (await house.chat(key, user="u" * 2000)).status == 413
        house.gateway.reconfigure(over("a"))
        assert (await house.chat()).status == 200


async def test_a_backend_that_is_the_same_stays_the_same_object() -> None:
    async with rig(Servers(a=whole(), b=whole())) as house:
        before = dict(house.gateway.fleet)
        house.gateway.reconfigure(over("a", "b", extra="[timeouts]\ntotal = 5\n", weight=3))
        assert house.gateway.fleet == before
        house.gateway.reconfigure(over("a", "b", slots=3))
        assert not {*house.gateway.fleet.values()} & {*before.values()}


async def test_a_certificate_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    async with rig(Servers(a=whole())) as house:
        gateway = create_app(house.gateway.settings, house.logs)
        before = gateway.fleet
        tls = {"ca_file": str(tmp_path / "ca.pem")}
        broken = house.gateway.settings.backends[0].model_copy(
            update={"tls": house.gateway.settings.backends[0].tls.model_copy(update=tls)}
        )
        with pytest.raises(FileNotFoundError):
            gateway.reconfigure(gateway.settings.model_copy(update={"backends": (broken,)}))
        assert gateway.fleet is before
        assert not before["a"].retired
        await gateway.aclose()
