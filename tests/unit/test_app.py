"""The composition root: everything is built from one configuration, joined, and can be closed."""

from __future__ import annotations

import io
import sys

import httpx

from gateway.app import create_app
from gateway.telemetry.logs import configure
from tests.support.asgi import fetch, rig
from tests.support.servers import Servers, failing, native, whole
from tests.support.stack import configured, wait_until


def test_importing_builds_nothing() -> None:
    assert "gateway.app" in sys.modules
    assert not [name for name, value in vars(sys.modules["gateway.app"]).items() if name == "app"]


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
