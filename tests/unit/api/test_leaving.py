"""A client's leaving, noticed at any await and turned into one error at the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from starlette.types import Message

from gateway.api.leaving import Leaving
from gateway.api.life import Life
from gateway.errors import ClientGone, QueueFull
from gateway.upstream.background import Background
from tests.support.stack import wait_until


class Client:
    """A client that leaves when told; messages before that are of no meaning."""

    def __init__(self, *before: Message) -> None:
        self._before = list(before)
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._before:
            return self._before.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def serve(client: Client, background: Background, inside: asyncio.Event) -> str:
    """Wait for the event as long as the client stays."""
    async with Leaving(client.receive, background, Life()):
        await inside.wait()
    return "served"


async def test_a_client_that_stays_is_served() -> None:
    client, background, inside = Client(), Background(), asyncio.Event()
    inside.set()
    assert await serve(client, background, inside) == "served"
    await wait_until(lambda: len(background) == 0)


async def test_a_client_that_leaves_ends_the_work_inside() -> None:
    client, background = Client(), Background()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_caught(serve(client, background, asyncio.Event())))
        await asyncio.sleep(0)
        client.gone.set()
        assert isinstance(await task, ClientGone)


async def test_messages_before_the_leaving_are_skipped() -> None:
    client = Client({"type": "http.request", "body": b"", "more_body": False})
    client.gone.set()
    assert isinstance(await _caught(serve(client, Background(), asyncio.Event())), ClientGone)


async def test_a_failure_inside_is_told_as_it_is() -> None:
    background = Background()
    with pytest.raises(QueueFull):
        async with Leaving(Client().receive, background, Life()):
            raise QueueFull("full")
    await wait_until(lambda: len(background) == 0)


async def test_a_failure_in_the_moment_of_leaving_is_told_as_it_is() -> None:
    client = Client()

    async def fail_when_cancelled() -> None:
        async with Leaving(client.receive, Background(), Life()):
            try:
                await asyncio.Event().wait()
            finally:
                raise QueueFull("full")

    client.gone.set()
    assert isinstance(await _caught(fail_when_cancelled()), QueueFull)


async def test_a_cancellation_from_outside_stays_one() -> None:
    client, background = Client(), Background()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(client, background, asyncio.Event()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancellation_from_outside_wins_over_the_clients_leaving() -> None:
    client, background = Client(), Background()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(client, background, asyncio.Event()))
        await asyncio.sleep(0)
        task.cancel()
        client.gone.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_after_a_leaving_the_task_can_go_on() -> None:
    client = Client()
    client.gone.set()

    async def serve_and_settle() -> str:
        with pytest.raises(ClientGone):
            await serve(client, Background(), asyncio.Event())
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
