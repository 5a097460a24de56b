from __future__ import annotations

import asyncio
import os
import signal

import httpx
import pytest

from gateway.simulator import DIALECTS, Options, Simulator, run
from gateway.simulator.brain import CannedBrain, EchoBrain
from gateway.simulator.dialects import find_program
from gateway.simulator.server import make_brain
from tests.unit.simulator.helpers import until


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_starts_and_answers(dialect: str) -> None:
    async with Simulator(Options(dialect=dialect)) as simulator, httpx.AsyncClient() as client:
        state = (await client.get(simulator.url + "/__simulator/state")).json()
        assert (await client.get(simulator.url + "/nothing")).status_code == 404
    assert state["dialect"] == dialect


async def test_simulator_tells_what_it_saw_and_forgets_it() -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as client:
        await client.post(simulator.url, json={"prompt": "hi"})
        await client.get(simulator.url + "/openapi.json")
        assert [(entry.method, entry.path) for entry in simulator.requests] == [
            ("POST", "/"),
            ("GET", "/openapi.json"),
        ]
        assert simulator.requests[0].json == {"prompt": "hi"}
        assert (simulator.started, simulator.completed, simulator.max_in_flight) == (1, 1, 1)
        simulator.inject("status:503")
        simulator.reset()
        assert simulator.requests == []
        assert (await client.post(simulator.url, json={"prompt": "hi"})).status_code == 200


async def test_stopping_ends_what_is_running_and_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with httpx.AsyncClient(timeout=None) as client:
        async with Simulator() as simulator:
            running = asyncio.ensure_future(client.post(simulator.url, json={"prompt": "@@sleep:999@@"}))
            waiting = asyncio.ensure_future(client.post(simulator.url, json={"prompt": "@@sleep:999@@"}))
            await until(lambda: simulator.in_flight == 2)
        answers = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(answer, httpx.ReadError | httpx.RemoteProtocolError) for answer in answers)
    assert simulator.in_flight == 0
    assert asyncio.all_tasks() == before


async def test_stopping_ends_a_generation_whose_client_has_left() -> None:
    async with Simulator() as simulator:
        async with httpx.AsyncClient() as client:
            running = asyncio.ensure_future(client.post(simulator.url, json={"prompt": "@@sleep:999@@"}))
            await until(lambda: simulator.in_flight)
            running.cancel()
            await asyncio.wait({running})
        assert simulator.in_flight == 1
    assert simulator.in_flight == 0


async def test_simulator_outside_its_block_has_no_address() -> None:
    simulator = Simulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = simulator.url
    assert "stopped" in repr(simulator)
    async with simulator:
        assert str(simulator.port) in repr(simulator)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(
            Options(dialect="chatglm9"), "unknown dialect 'chatglm9'; one of chatglm,", id="dialect"
        ),
        pytest.param(
            Options(dialect="chatglm3", variant="1999"), "there are: 2024-05, 2024-01, 2023-11", id="variant"
        ),
        pytest.param(Options(dialect="glm4", variant="x"), "there are: none", id="no-variants"),
        pytest.param(Options(brain="human"), "unknown brain 'human'", id="brain"),
        pytest.param(Options(faults=("explode",)), "unknown fault", id="fault"),
    ],
)
def test_options_that_name_nothing_are_refused(options: Options, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Simulator(options)


def test_first_variant_is_the_default() -> None:
    assert find_program("chatglm3", None) is find_program("chatglm3", "2024-05")


def test_brain_is_the_one_asked_for() -> None:
    assert type(make_brain(Options(brain="echo"))) is EchoBrain
    assert type(make_brain(Options())) is CannedBrain


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_listens_until_a_signal_ends_it(number: signal.Signals) -> None:
    urls: list[str] = []

    def ready(simulators: list[Simulator]) -> None:
        urls.extend(simulator.url for simulator in simulators)
        os.kill(os.getpid(), number)

    run(Options(), Options(dialect="openai"), ready=ready)
    assert len(set(urls)) == 2
