"""The budget of all requests: who is let in, who waits, who is refused, and what is given back."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.api.memory_budget import MARK, SMALL, MemoryBudget, weight
from gateway.api.request_context import RequestContext
from gateway.errors import NoMemory
from tests.support.stack import wait_until

LARGE = 2 * SMALL


class Holder:
    """As much of a visit as is looked at."""

    def __init__(self) -> None:
        self.held = 0
        self.memory: MemoryBudget | None = None


def context() -> RequestContext:
    return cast("RequestContext", Holder())


def end(one: RequestContext) -> None:
    if one.memory is not None:
        one.memory.give(one.held)


async def test_what_fits_is_let_in_at_once_and_given_back_at_the_end() -> None:
    memory, one = MemoryBudget(1000, 1), context()
    await memory.take(one, 600)
    assert (memory.used, one.held) == (600, 600)
    await memory.take(one, 900)
    assert memory.used == 900
    end(one)
    assert memory.used == 0


async def test_what_does_not_fit_waits_in_the_order_of_arrival() -> None:
    memory, holders = MemoryBudget(4 * LARGE, 30), [context() for _ in range(4)]
    await memory.take(holders[0], 4 * LARGE)
    order: list[int] = []

    async def wait(place: int) -> None:
        await memory.take(holders[place], 4 * LARGE)
        order.append(place)
        end(holders[place])

    async with asyncio.TaskGroup() as group:
        for place in (1, 2, 3):
            group.create_task(wait(place))
        await wait_until(lambda: memory.waiting == 3)
        end(holders[0])
    assert order == [1, 2, 3]
    assert (memory.used, memory.waiting) == (0, 0)


async def test_a_small_body_does_not_wait_behind_a_large_one() -> None:
    memory, first, second = MemoryBudget(LARGE, 30), context(), context()
    await memory.take(first, SMALL)
    async with asyncio.TaskGroup() as group:
        group.create_task(memory.take(second, LARGE))
        await wait_until(lambda: memory.waiting == 1)
        small = context()
        assert memory.seize(small, 100)
        assert not memory.seize(context(), SMALL + 1)
        end(small)
        end(first)
    assert memory.used == second.held == LARGE


async def test_who_would_be_one_of_too_many_that_wait_is_refused_at_once() -> None:
    memory, first = MemoryBudget(LARGE, 30), context()
    await memory.take(first, LARGE)
    waits = asyncio.ensure_future(memory.take(context(), LARGE))
    await wait_until(lambda: memory.waiting == 1)
    with pytest.raises(NoMemory):
        await memory.take(context(), LARGE)
    end(first)
    await waits


@pytest.mark.parametrize("size", [501, 2000])
async def test_who_waits_too_long_or_can_never_fit_is_refused(size: int) -> None:
    memory, first = MemoryBudget(1000, 0.01), context()
    await memory.take(first, 500)
    with pytest.raises(NoMemory) as caught:
        await memory.take(context(), size)
    assert caught.value.retry_after
    assert (memory.used, memory.waiting) == (500, 0)


async def test_who_has_begun_goes_on_before_others_that_wait() -> None:
    memory, first, second = MemoryBudget(4 * LARGE, 30), context(), context()
    await memory.take(first, LARGE)
    waits = asyncio.ensure_future(memory.take(second, 4 * LARGE))
    await wait_until(lambda: memory.waiting == 1)
    await memory.take(first, 3 * LARGE)
    assert memory.seize(first, 3 * LARGE + LARGE // 4)
    end(first)
    await waits
    assert memory.used == 4 * LARGE


async def test_who_has_begun_may_always_grow_a_little() -> None:
    memory, one = MemoryBudget(1000, 0.01), context()
    await memory.take(one, 960)
    assert memory.seize(one, 1080)
    assert not memory.seize(one, 2000)


async def test_who_leaves_while_waiting_takes_nothing_with_it_and_lets_others_in() -> None:
    memory, first, second, third = MemoryBudget(4 * LARGE, 30), context(), context(), context()
    await memory.take(first, 3 * LARGE)
    waits = asyncio.ensure_future(memory.take(second, 4 * LARGE))
    behind = asyncio.ensure_future(memory.take(third, 2 * LARGE))
    await wait_until(lambda: memory.waiting == 2)
    waits.cancel()
    await asyncio.wait({waits})
    end(first)
    await behind
    assert (memory.used, second.held, third.held) == (2 * LARGE, 0, 2 * LARGE)


async def test_who_leaves_in_the_moment_of_the_grant_gives_it_back() -> None:
    memory, first, second = MemoryBudget(1000, 30), context(), context()
    await memory.take(first, 600)
    waits = asyncio.ensure_future(memory.take(second, 900))
    await wait_until(lambda: memory.waiting == 1)
    end(first)
    waits.cancel()
    await asyncio.wait({waits})
    end(second)
    assert memory.used == 0


async def test_more_than_was_foreseen_is_counted_all_the_same() -> None:
    memory, one = MemoryBudget(1000, 0.01), context()
    memory.set(one, 5000)
    assert not memory.seize(context(), 1)
    memory.set(one, 10)
    assert memory.seize(context(), 1)


async def test_a_larger_limit_lets_those_in_who_wait() -> None:
    memory, one = MemoryBudget(1000, 30), context()
    memory.set(context(), 1000)
    waits = asyncio.ensure_future(memory.take(one, 500))
    await wait_until(lambda: memory.waiting == 1)
    memory.reconfigure(2000, 30)
    await waits
    assert one.held == 500


@pytest.mark.parametrize(
    ("raw", "width", "marks"),
    [
        (b"abc", 1, 0),
        ("字".encode(), 2, 0),
        ("😀".encode(), 4, 0),
        (b"\\u5b57", 2, 0),
        (b"\\ud83d\\ude00", 4, 0),
        (b"[1,2,{3:4}]", 1, 5),
    ],
)
def test_a_body_weighs_as_much_as_the_objects_made_of_it(raw: bytes, width: int, marks: int) -> None:
    assert weight(raw) == len(raw) * (1 + width) + marks * MARK


async def test_what_is_borrowed_comes_after_everybody_who_waits() -> None:
    memory, one = MemoryBudget(1000, 30), context()
    assert memory.borrow(600)
    assert not memory.borrow(600)
    waits = asyncio.ensure_future(memory.take(one, 900))
    await wait_until(lambda: memory.waiting == 1)
    assert not memory.borrow(1)
    memory.give(600)
    await waits
    assert (memory.used, memory.borrow(100), memory.used) == (900, True, 1000)
