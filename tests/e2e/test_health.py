"""Busy is not dead, killed is: real ports, real probes, and the times within which the gateway notices."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.config import Config
from gateway.server import RunningPlanes, running
from gateway.simulator import Options, Simulator
from tests.support.fleet import SERVERS, Server
from tests.support.peer import free_port
from tests.support.stack import client, configured, stack, wait_until

INTERVAL = 0.1
"""The probe period of these tests, in seconds; 20 of a user's in the time that their requests take."""
FAST = f"[health]\ninterval = {INTERVAL}\ntimeout = 0.3\nslow_start = 0\n"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def state(run: RunningPlanes, backend: str = "gpu-0") -> str:
    """How a backend is, as the metrics tell."""
    return run.gateway.dispatcher.health(backend)


@asynccontextmanager
async def gateway(settings: Config) -> AsyncIterator[tuple[RunningPlanes, httpx.AsyncClient]]:
    """A gateway whose servers the test starts and stops itself, and a client."""
    async with (
        running(settings) as run,
        httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=30) as http,
    ):
        yield run, http


async def seconds_until(condition: Callable[[], bool]) -> float:
    """Wait for something to become true, and say how long it took."""
    began = time.monotonic()
    await wait_until(condition)
    return time.monotonic() - began


# --- busy is not dead ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
async def test_a_backend_that_generates_for_long_is_never_ejected(server: Server) -> None:
    """One answer lasts twelve probe periods, and as many time-outs of probes as would eject four backends."""
    options = server.options(latency=12 * INTERVAL)
    async with stack(options, FAST, **server.backend) as one, client(one) as http:
        answer = await http.post("/v1/chat/completions", json=chat())
        metrics = one.run.gateway.metrics.render()[0].decode()
    assert answer.status_code == 200
    assert 'gateway_backend_ejections_total{backend="gpu-0",reason="refused"} 0.0' in metrics
    assert metrics.count("gateway_backend_ejections_total{") == 1


async def test_a_backend_that_works_on_for_nobody_is_not_ejected() -> None:
    async with stack(Options(latency=20 * INTERVAL), FAST) as one, client(one) as http:
        with contextlib.suppress(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json=chat(), timeout=3 * INTERVAL)
        await wait_until(lambda: one.run.gateway.dispatcher.zombies("gpu-0") == 1)
        states = set()

        def ended() -> bool:
            states.add(state(one.run))
            return one.in_flight() == 0

        await wait_until(ended)
        assert states == {"up"}


# --- killed is dead --------------------------------------------------------------------------------


async def test_a_backend_killed_in_the_middle_of_an_answer_is_out_within_a_second_and_back_in_time() -> None:
    port = free_port()
    # So seldom probed that no regular probe can find it.
    settings = configured(
        {"gpu-0": (f"http://127.0.0.1:{port}", "chatglm2")}, "[health]\ninterval = 3\nslow_start = 0\n"
    )
    async with gateway(settings) as (run, http), asyncio.TaskGroup() as group:
        async with Simulator(Options(port=port, latency=60)) as simulator:
            await wait_until(lambda: simulator.requests)  # the first probe
            call = group.create_task(http.post("/v1/chat/completions", json=chat()))
            await wait_until(lambda: simulator.started == 1)
        assert await seconds_until(lambda: state(run) == "down") < 2.0
        assert (await call).status_code in (502, 503)
        refused = await http.post("/v1/chat/completions", json=chat())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_backend")
        async with Simulator(Options(port=port)):
            assert await seconds_until(lambda: run.gateway.dispatcher.up("gpu-0")) < 3.0 + 5.0
            assert (await http.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_an_idle_backend_that_is_killed_is_out_within_a_second() -> None:
    """Its end closes the connections that nobody uses: the gateway looks at once, not at the next probe."""
    port = free_port()
    slow = "[health]\ninterval = 4\nslow_start = 0\n"
    async with gateway(configured({"gpu-0": (f"http://127.0.0.1:{port}", "chatglm2")}, slow)) as (run, http):
        async with Simulator(Options(port=port)) as simulator:
            await wait_until(lambda: simulator.requests and state(run) == "up")
            assert (await http.post("/v1/chat/completions", json=chat())).status_code == 200
            health = run.gateway.health_monitor.healths["gpu-0"]
            await wait_until(
                lambda: health.errand_at - time.monotonic() < 2.4
            )  # no probe soon, none just now
        assert await seconds_until(lambda: state(run) == "down") < 2.0
        async with Simulator(Options(port=port)):
            assert await seconds_until(lambda: state(run) == "up") < 4.0 + 5.0


async def test_a_gateway_starts_without_any_backend_refuses_at_once_and_serves_when_one_comes() -> None:
    ports = [free_port(), free_port()]
    urls = {f"gpu-{place}": (f"http://127.0.0.1:{port}", "chatglm3") for place, port in enumerate(ports)}
    async with gateway(configured(urls, FAST)) as (run, http):
        await wait_until(lambda: {state(run, name) for name in urls} == {"down"})
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        began = time.monotonic()
        answer = await http.post("/v1/chat/completions", json=chat())
        assert time.monotonic() - began < 5  # of a loaded machine; nobody waits behind the dead
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_backend")
        assert int(answer.headers["retry-after"]) >= 1
        async with Simulator(Options(dialect="chatglm3", port=ports[1])):
            assert await seconds_until(lambda: run.gateway.dispatcher.up("gpu-1")) < INTERVAL + 1.0
            assert (await http.get("/readyz")).status_code == 200
            answer = await http.post("/v1/chat/completions", json=chat())
            assert answer.headers["x-gateway-backend"] == "gpu-1"


async def test_an_outage_is_borne_by_the_other_backend_and_ends_by_itself() -> None:
    """F15, faster: the primary is down for many probe periods, and every request is served."""
    port = free_port()
    async with Simulator(Options(reply="from the other")) as other:
        urls = {
            "primary": (f"http://127.0.0.1:{port}", "chatglm2"),
            "other": (other.url, "chatglm2"),
        }
        async with gateway(configured(urls, FAST)) as (run, http):
            for _ in range(8):
                answer = await http.post("/v1/chat/completions", json=chat())
                assert answer.status_code == 200
                assert answer.headers["x-gateway-backend"] == "other"
                seen = refused_probes(run, "primary")
                await wait_until(lambda: refused_probes(run, "primary") > seen)  # noqa: B023 - called here
            tries = run.gateway.metrics.render()[0].decode()
            assert 'gateway_backend_requests_total{backend="primary",outcome="ok"} 0.0' in tries
            async with Simulator(Options(port=port, reply="from the primary")):
                await wait_until(lambda: state(run, "primary") == "up", INTERVAL + 1.0)
                backends = {await answering_backend(http) for _ in range(4)}
    assert "primary" in backends


def refused_probes(run: RunningPlanes, backend: str) -> float:
    """How often a backend's probe was refused."""
    name = f'gateway_backend_probes_total{{backend="{backend}",result="refused"}} '
    found = [line for line in run.gateway.metrics.render()[0].decode().splitlines() if line.startswith(name)]
    return float(found[0].removeprefix(name)) if found else 0.0


async def answering_backend(http: httpx.AsyncClient) -> str:
    """Who answers a request."""
    answer = await http.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 200
    return answer.headers["x-gateway-backend"]


# --- sick ------------------------------------------------------------------------------------------


async def test_a_card_that_fails_every_request_is_left_out_until_it_has_generated_something() -> None:
    options = {"sick": Options(faults=("status:500*4",)), "well": Options()}
    async with stack(options, FAST) as one, client(one) as http:
        sick = one.simulators["sick"]
        for number in range(8):  # ties go round, so that the sick one gets its share
            ask = chat(messages=[{"role": "user", "content": f"question {number}"}])
            assert (await http.post("/v1/chat/completions", json=ask)).status_code == 200
        await wait_until(lambda: state(one.run, "sick") == "up")
        asked = ["trial" if "1+1=" in record.body else "user" for record in sick.requests if record.body]
        metrics = one.run.gateway.metrics.render()[0].decode()
    assert asked[:5] == ["user"] * 3 + ["trial"] * 2
    assert 'gateway_backend_ejections_total{backend="sick",reason="upstream_5xx"} 1.0' in metrics
    assert 'gateway_backend_probes_total{backend="sick",result="trial_failed"} 1.0' in metrics
    assert 'gateway_backend_probes_total{backend="sick",result="trial_ok"} 1.0' in metrics


async def test_one_poisoned_request_takes_no_card_down() -> None:
    """As a client's library sends it: three times, on both cards each time."""
    faults = ("status:500*3",)
    async with (
        stack({"a": Options(faults=faults), "b": Options(faults=faults)}, FAST) as one,
        client(one) as http,
    ):
        for _ in range(3):
            assert (await http.post("/v1/chat/completions", json=chat())).status_code == 502
        assert [state(one.run, name) for name in ("a", "b")] == ["up", "up"]
