from __future__ import annotations

import asyncio

import pytest

from gateway.simulator.loop_lock import LoopLock
from tests.unit.simulator.helpers import turns


async def test_who_passes_waits_for_who_holds() -> None:
    gate, passed, free = LoopLock(blocking=True), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with gate.hold():
            await free.wait()

    async def go_through() -> None:
        await gate.wait_through()
        passed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold())
        group.create_task(go_through())
        await turns()
        assert gate.busy
        assert not passed.is_set()
        free.set()
    assert passed.is_set()
    assert not gate.busy


async def test_holders_come_in_the_order_of_their_arrival() -> None:
    gate, order = LoopLock(blocking=True), list[int]()

    async def hold(number: int) -> None:
        async with gate.hold():
            await turns(3)
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(hold(number))
    assert order == [0, 1, 2]


async def test_open_gate_holds_nobody_up() -> None:
    gate = LoopLock(blocking=False)
    async with gate.hold(), gate.hold():
        await gate.wait_through()
        assert not gate.busy


async def test_holder_that_fails_frees_the_gate() -> None:
    gate = LoopLock(blocking=True)
    with pytest.raises(LookupError):
        async with gate.hold():
            raise LookupError
    await gate.wait_through()
    assert not gate.busy
