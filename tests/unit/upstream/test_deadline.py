"""A deadline that moves: when it ends the waiting, and when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.upstream.deadline import Deadline


async def test_what_takes_too_long_is_ended() -> None:
    deadline = Deadline()
    deadline.move(0.01)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.Event().wait()
    deadline.cancel()


async def test_a_time_that_has_passed_already_ends_the_waiting_at_once() -> None:
    deadline = Deadline()
    deadline.move(-1)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.Event().wait()


async def test_moving_it_later_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    armed: list[float] = []
    call_at = loop.call_at

    def noting(when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        armed.append(when)
        return call_at(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", noting)
    deadline = Deadline()
    for _ in range(100):
        deadline.move(5)
        with deadline:
            pass
    assert len(armed) == 1
    deadline.cancel()


async def test_a_deadline_moved_on_outlives_the_first_one() -> None:
    deadline = Deadline()
    deadline.move(0.02)
    for _ in range(6):
        deadline.move(0.02)
        with deadline:
            await asyncio.sleep(0.005)
    deadline.cancel()


async def test_moving_it_earlier_counts() -> None:
    deadline = Deadline()
    deadline.move(60)
    deadline.move(0.01)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.Event().wait()


async def test_time_that_ends_while_nobody_waits_ends_the_next_waiting() -> None:
    deadline = Deadline()
    deadline.move(0.005)
    await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.Event().wait()


async def test_it_can_be_used_again_after_it_has_struck() -> None:
    deadline = Deadline()
    for _ in range(2):
        deadline.move(0.005)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()
    assert asyncio.current_task() is not None
    await asyncio.sleep(0)  # and leaves no cancellation behind


async def test_somebody_elses_cancellation_stays_one() -> None:
    entered = asyncio.Event()
    deadline = Deadline()

    async def wait() -> None:
        deadline.move(60)
        with deadline:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.cancel()


async def test_a_cancellation_in_the_same_moment_is_not_swallowed() -> None:
    entered = asyncio.Event()
    deadline = Deadline()

    async def wait() -> None:
        deadline.move(60)
        with deadline:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await entered.wait()
    deadline._when = 0.0
    deadline._fire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.cancel()


async def test_other_errors_pass() -> None:
    deadline = Deadline()
    deadline.move(60)
    with pytest.raises(KeyError), deadline:
        raise KeyError
    deadline.cancel()


def test_it_is_of_no_use_outside_a_task() -> None:
    loop = asyncio.new_event_loop()

    def use() -> None:
        deadline = Deadline()
        with pytest.raises(RuntimeError):
            deadline.__enter__()
        loop.stop()

    loop.call_soon(use)
    loop.run_forever()
    loop.close()
