"""A thousand clients that leave: from the queue, before the first byte, in mid-stream. Nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.simulator import Options
from gateway.upstream.pool import PoolStatistics
from gateway.upstream.transport import GatewayTransport
from tests.e2e.test_leaving import Visitor, disconnects
from tests.support.stack import Stack, stack, wait_until

WAVES = 10
SILENT = STREAMING = 30
QUEUED = 40
SLOTS = SILENT + STREAMING
QUEUE = "[queue]\nlength = 100\n"

FILES = Path("/proc/self/fd")


def open_files() -> int:
    """Files and sockets of this process."""
    return len(list(FILES.iterdir()))


def pools(one: Stack) -> list[PoolStatistics]:
    """The state of every backend's connections."""
    found = []
    for backend in one.run.gateway.fleet.values():
        transport = backend.client._http._transport
        assert isinstance(transport, GatewayTransport)
        found.append(transport.statistics())
    return found


def gauges(one: Stack) -> dict[str, float]:
    """What the gauges that count live things show."""
    text = one.run.gateway.metrics.render()[0].decode()
    names = ("gateway_queue_depth", "gateway_backend_inflight", "gateway_backend_zombies")
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(names)]
    return {name: float(value) for name, _, value in lines}


async def leave(visitors: Iterable[Visitor]) -> None:
    """All go at once, each second one without a farewell."""
    await asyncio.gather(
        *(visitor.leave("rst" if number % 2 else "fin") for number, visitor in enumerate(visitors))
    )


async def ask(one: Stack, text: str, count: int, *, stream: bool | None = None) -> list[Visitor]:
    """So many clients; `stream` None: every second one wants a stream."""
    wants = [number % 2 == 0 if stream is None else stream for number in range(count)]
    return await asyncio.gather(*(Visitor.ask(one, text, stream=want) for want in wants))


async def wave(one: Stack) -> None:
    """A hundred clients that leave at the three moments."""
    dispatcher = one.run.gateway.dispatcher
    silent = await ask(one, "@@sleep:30@@你好", SILENT)
    streaming = await ask(one, "@@tsleep:0.2@@@@reply:" + "一二三四" * 100 + "@@", STREAMING, stream=True)
    await wait_until(lambda: one.in_flight() == SLOTS)
    queued = await ask(one, "你好", QUEUED)
    await wait_until(lambda: dispatcher.queue_depth("m") == QUEUED)
    await asyncio.gather(*(visitor.reader.readuntil("一".encode()) for visitor in streaming))
    await leave(queued)
    await wait_until(lambda: dispatcher.queue_depth("m") == 0)
    await leave([*silent, *streaming])
    await wait_until(lambda: one.in_flight() == 0)


async def settle(one: Stack, tasks: int) -> None:
    """Wait until the simulator has noticed too, and no more tasks run than before."""
    await wait_until(lambda: one.only.in_flight == 0)
    await wait_until(lambda: len(asyncio.all_tasks()) <= tasks)


@pytest.mark.skipif(not FILES.exists(), reason="counts open files, which needs /proc")
async def test_a_thousand_clients_that_leave_at_every_moment_leave_nothing_behind() -> None:
    async with stack(Options(dialect="openai", history=0), QUEUE, slots=SLOTS) as one:
        await wave(one)
        tasks = len(asyncio.all_tasks())
        await settle(one, tasks)
        tasks, files = len(asyncio.all_tasks()), open_files()
        for _ in range(WAVES - 1):
            await wave(one)
        await settle(one, tasks)
        assert disconnects(one, "queued") == WAVES * QUEUED
        assert disconnects(one, "before_first") == WAVES * SILENT
        assert disconnects(one, "streaming") == WAVES * STREAMING
        assert set(gauges(one).values()) == {0.0}
        assert all(state.open == state.idle and state.waiting == 0 for state in pools(one))
        await wait_until(lambda: open_files() <= files)
