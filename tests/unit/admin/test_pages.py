"""The pages of the admin plane."""

from __future__ import annotations

from gateway import __version__
from tests.support.asgi import fetch, rig
from tests.support.servers import Servers, whole


async def test_the_metrics_are_shown_as_prometheus_reads_them() -> None:
    async with rig(Servers(a=whole("hello", usage=(3, 2)))) as house:
        await house.chat()
        call = await fetch(house.gateway.admin, "GET", "/metrics")
    assert call.status == 200
    assert call.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    lines = call.body.decode().splitlines()
    assert 'gateway_backend_requests_total{backend="a",outcome="ok"} 1.0' in lines
    assert 'gateway_tokens_total{backend="a",model="m",source="backend",token_type="output"} 2.0' in lines


async def test_the_version_is_told() -> None:
    async with rig(Servers(a=whole())) as house:
        call = await fetch(house.gateway.admin, "GET", "/version")
    assert call.json == {"version": __version__}


async def test_pages_are_not_accounted_for() -> None:
    async with rig(Servers(a=whole())) as house:
        for path in ("/metrics", "/version"):
            await fetch(house.gateway.admin, "GET", path)
        assert house.access == []
        assert b"gateway_requests_total{" not in house.gateway.metrics.render()[0]


async def test_pages_need_no_key() -> None:
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    async with rig(Servers(a=whole()), extra=keys) as house:
        assert (await fetch(house.gateway.admin, "GET", "/metrics")).status == 200
