"""A client's leaving, noticed at any await and turned into one error at the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from gateway.api.client_guard import ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.errors import ClientGone, QueueFull
from tests.support.asgi import Client


async def serve(client: Client, inside: asyncio.Event, lifecycle: Lifecycle | None = None) -> str:
    """Wait for the event as long as the client stays."""
    with ClientGuard(client, lifecycle or Lifecycle()):
        await inside.wait()
    return "served"


async def test_a_client_that_stays_is_served_and_forgotten() -> None:
    client, lifecycle, inside = Client(), Lifecycle(), asyncio.Event()
    inside.set()
    assert await serve(client, inside, lifecycle) == "served"
    assert client.on_leaving is None
    assert len(lifecycle) == 0


async def test_a_client_that_leaves_ends_the_work_inside() -> None:
    client = Client()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_caught(serve(client, asyncio.Event())))
        await asyncio.sleep(0)
        client.leave()
        assert isinstance(await task, ClientGone)


async def test_a_client_that_left_before_is_not_served() -> None:
    client, lifecycle = Client(), Lifecycle()
    client.leave()
    assert isinstance(await _caught(serve(client, asyncio.Event(), lifecycle)), ClientGone)
    assert len(lifecycle) == 0


async def test_it_costs_no_task() -> None:
    with ClientGuard(Client(), Lifecycle()):
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failure_inside_is_told_as_it_is() -> None:
    client = Client()
    with pytest.raises(QueueFull), ClientGuard(client, Lifecycle()):
        raise QueueFull("full")
    assert client.on_leaving is None


async def test_a_failure_in_the_moment_of_leaving_is_told_as_it_is() -> None:
    client = Client()

    async def fail_when_cancelled() -> None:
        with ClientGuard(client, Lifecycle()):
            try:
                await asyncio.Event().wait()
            finally:
                raise QueueFull("full")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(_caught(fail_when_cancelled()))
        await asyncio.sleep(0)
        client.leave()
        assert isinstance(await task, QueueFull)


async def test_a_cancellation_from_outside_stays_one() -> None:
    client = Client()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(client, asyncio.Event()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_from_outside_wins_over_the_clients_leaving() -> None:
    client = Client()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(client, asyncio.Event()))
        await asyncio.sleep(0)
        task.cancel()
        client.leave()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_after_a_leaving_the_task_can_go_on() -> None:
    client = Client()

    async def serve_and_settle() -> str:
        asyncio.get_running_loop().call_soon(client.leave)
        with pytest.raises(ClientGone):
            await serve(client, asyncio.Event())
        await asyncio.sleep(0)
        return "settled"

    task = asyncio.get_running_loop().create_task(serve_and_settle())
    assert await task == "settled"
    assert task.cancelling() == 0


async def _caught(work: Awaitable[object]) -> BaseException | None:
    try:
        await work
    except (ClientGone, QueueFull) as error:
        return error
    return None
