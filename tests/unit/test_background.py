"""Tasks that outlive their request: kept, independent of one another, and ended with the gateway."""

from __future__ import annotations

import asyncio

import pytest

from gateway.background import Background
from tests.support.stack import wait_until


async def _wait(event: asyncio.Event) -> str:
    await event.wait()
    return "done"


async def _fail() -> None:
    raise ZeroDivisionError


async def test_a_task_may_be_awaited() -> None:
    background, event = Background(), asyncio.Event()
    event.set()
    assert await background.start(_wait(event), "work") == "done"


async def test_tasks_are_kept_while_they_run_and_shown_by_name() -> None:
    background, event = Background(), asyncio.Event()
    for name in ("one", "two"):
        background.start(_wait(event), name)
    assert len(background) == 2
    assert repr(background) == "<Background ['one', 'two']>"
    event.set()
    await wait_until(lambda: len(background) == 0)


async def test_one_that_fails_leaves_the_others_alone() -> None:
    background, event = Background(), asyncio.Event()
    failing = background.start(_fail(), "failing")
    working = background.start(_wait(event), "working")
    with pytest.raises(ZeroDivisionError):
        await failing
    event.set()
    assert await working == "done"


async def test_a_failure_that_nobody_awaits_troubles_nobody() -> None:
    troubles: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    background = Background()
    background.start(_fail(), "failing")
    await wait_until(lambda: len(background) == 0)
    await asyncio.sleep(0)
    assert troubles == []


async def test_closing_cancels_what_still_runs_and_waits_for_its_end() -> None:
    background = Background()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tidied up")

    tasks = [background.start(work(), "work") for _ in range(3)]
    await asyncio.sleep(0)
    await background.aclose()
    assert ended == ["tidied up"] * 3
    assert all(task.cancelled() for task in tasks)
    await wait_until(lambda: len(background) == 0)


async def test_closing_an_idle_one_is_fine() -> None:
    await Background().aclose()
