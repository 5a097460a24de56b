"""One task for the requests of a connection: work after work, errors told, and no end without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.http1.request_loop import RequestLoop

Ends = list[Exception | None]


def made() -> RequestLoop:
    return RequestLoop(asyncio.get_running_loop())


async def settled(until: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not until():  # noqa: ASYNC110 - it is a matter of turns of the loop
            await asyncio.sleep(0)


async def noting(notes: list[str], word: str) -> None:
    notes.append(word)


async def failing(error: Exception) -> None:
    raise error


async def test_work_after_work_is_done_by_one_task_that_ends_when_it_is_dismissed() -> None:
    worker, notes, ends = made(), list[str](), Ends()
    for word in ("a", "b", "c"):
        worker.give(noting(notes, word), ends.append)
        assert not worker.rests
        await settled(lambda: worker.rests)
    assert (notes, ends) == (["a", "b", "c"], [None] * 3)
    worker.dismiss()
    await asyncio.wait_for(worker.task, 5)
    assert not worker.rests


async def test_an_error_is_told_and_the_next_work_done() -> None:
    worker, notes, ends = made(), list[str](), Ends()
    error = ValueError("x")
    worker.give(failing(error), ends.append)
    await settled(lambda: worker.rests)
    worker.give(noting(notes, "a"), ends.append)
    await settled(lambda: worker.rests)
    assert (notes, ends) == (["a"], [error, None])
    worker.dismiss()


async def test_one_that_is_dismissed_at_work_ends_with_it() -> None:
    worker, ends, go = made(), Ends(), asyncio.Event()

    async def waiting() -> None:
        await go.wait()

    worker.give(waiting(), ends.append)
    await asyncio.sleep(0)
    worker.dismiss()
    await asyncio.sleep(0)
    assert not worker.task.done()
    go.set()
    await asyncio.wait_for(worker.task, 5)
    assert ends == [None]


async def test_work_that_is_cancelled_is_told_as_over_and_ends_the_worker() -> None:
    worker, ends = made(), Ends()
    worker.give(asyncio.sleep(60), ends.append)
    await asyncio.sleep(0)
    worker.task.cancel()
    await asyncio.wait({worker.task})
    assert worker.task.cancelled()
    assert ends == [None]
    assert not worker.rests


@pytest.mark.parametrize("before", [0, 1], ids=["new", "rested"])
async def test_work_that_is_cancelled_before_it_began_is_told_as_over(before: int) -> None:
    worker, notes, ends = made(), list[str](), Ends()
    for _ in range(before):
        worker.give(noting(notes, "a"), ends.append)
        await settled(lambda: worker.rests)
    worker.give(noting(notes, "never"), ends.append)
    worker.task.cancel()
    await asyncio.wait({worker.task})
    assert ends == [None] * (before + 1)
    assert notes == ["a"] * before


async def test_one_that_rests_holds_nothing_of_its_work() -> None:
    class Request:
        alive = 0

        def __init__(self) -> None:
            Request.alive += 1

        def __del__(self) -> None:
            Request.alive -= 1

    async def serving(_: Request) -> None:
        raise ValueError

    worker, told = made(), list[str]()
    worker.give(serving(Request()), lambda error: told.append(type(error).__name__))
    await settled(lambda: worker.rests)
    assert told == ["ValueError"]
    assert Request.alive == 0
    worker.dismiss()
