"""The probes: alive says nothing of backends, ready does; neither needs a key or leaves a trace."""

from __future__ import annotations

import pytest

from gateway.errors import ConnectFailed
from tests.support.asgi import fetch, rig
from tests.support.servers import Servers, native

KEYS = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'


@pytest.mark.parametrize("path", ["/livez", "/health", "/healthz", "/readyz"])
async def test_a_probe_needs_no_key_and_is_not_accounted_for(path: str) -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        for app in (house.gateway.data, house.gateway.admin):
            call = await fetch(app, "GET", path)
            assert call.status == 200
            assert call.header("content-type") == "application/json"
            assert call.header("cache-control") == "no-store"
    assert house.access == []


async def test_a_gateway_whose_backends_all_rest_is_alive_but_not_ready() -> None:
    async with rig(Servers(a=native(), b=native()), "chatglm2") as house:
        house.gateway.dispatcher.tried("a", ConnectFailed("down", refused=True))
        assert (await house.get("/readyz")).json == {"status": "ready"}
        house.gateway.dispatcher.tried("b", ConnectFailed("down", refused=True))
        call = await house.get("/readyz")
        assert (call.status, call.json) == (503, {"status": "not ready"})
        assert (await house.get("/livez")).json == {"status": "ok"}
        house.gateway.health_monitor.probed("b", "ok")
        assert (await house.get("/readyz")).status == 200


async def test_verbose_lists_the_checks() -> None:
    async with rig(Servers(a=native(), b=native()), "chatglm2") as house:
        house.gateway.dispatcher.tried("a", ConnectFailed("down", refused=True))
        call = await house.get("/readyz", query=b"verbose")
    assert call.json == {"status": "ready", "draining": False, "backends": {"a": False, "b": True}}


async def test_a_gateway_that_takes_its_leave_is_not_ready_and_serves_on() -> None:
    async with rig(Servers(a=native("hello")), "chatglm2") as house:
        house.gateway.lifecycle.take_leave()
        assert (await house.get("/readyz")).status == 503
        call = await house.chat()
    assert call.status == 200
    assert call.header("connection") == "close"


async def test_a_gateway_that_is_ending_is_alive_but_not_ready() -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        house.gateway.lifecycle.drain()
        assert (await house.get("/livez")).status == 200
        call = await house.get("/readyz", query=b"verbose")
    assert call.status == 503
    assert call.json["draining"] is True


async def test_verbose_names_no_backend_on_the_data_plane_without_a_good_key() -> None:
    good = {"authorization": "Bearer sk-12345678"}
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        for headers in ({}, {"authorization": "Bearer sk-wrong"}):
            call = await house.get("/readyz", headers=headers, query=b"verbose")
            assert (call.status, call.json) == (200, {"status": "ready", "draining": False})
        call = await house.get("/readyz", headers=good, query=b"verbose")
        assert call.json["backends"] == {"a": True}
        call = await fetch(house.gateway.admin, "GET", "/readyz", query=b"verbose")
        assert call.json["backends"] == {"a": True}
