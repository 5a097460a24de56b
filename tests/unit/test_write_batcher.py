"""Writes that wait for the end of a turn, and no longer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.write_batcher import CALM, MOST, WriteBatcher


class Wire(asyncio.Transport):
    """Notes what is written, in one list with others."""

    def __init__(self, name: str, told: list[str], fails: Exception | None = None) -> None:
        super().__init__()
        self.name = name
        self.told = told
        self.fails = fails
        self.closed = False

    def write(self, data: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.told.append(f"{self.name}: {bytes(data).decode()}")

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.told.append(f"{self.name} aborted")


def write(write_batcher: WriteBatcher, wire: Wire, text: str) -> None:
    write_batcher.write(wire, text.encode(), asyncio.get_running_loop())


async def test_writes_go_out_in_their_order_at_the_end_of_the_turn() -> None:
    told: list[str] = []
    write_batcher, a, b = WriteBatcher(math.inf), Wire("a", told), Wire("b", told)
    write(write_batcher, a, "1")
    write(write_batcher, b, "2")
    write(write_batcher, a, "3")
    assert told == []
    await asyncio.sleep(0)
    assert told == ["a: 1", "b: 2", "a: 3"]
    write(write_batcher, b, "4")
    await asyncio.sleep(0)
    assert told[3:] == ["b: 4"]


async def test_the_first_of_many_does_not_wait_for_the_last() -> None:
    told: list[str] = []
    write_batcher, wire = WriteBatcher(math.inf), Wire("a", told)
    for number in range(MOST + 1):
        assert len(told) == 0
        write(write_batcher, wire, str(number))
        if number == MOST - 1:
            assert len(told) == MOST
            break
    write(write_batcher, wire, "late")
    await asyncio.sleep(0)
    assert told[-1] == "a: late"


async def test_what_is_held_can_be_sent_before() -> None:
    told: list[str] = []
    write_batcher, wire = WriteBatcher(math.inf), Wire("a", told)
    turn = write_batcher.turn
    write(write_batcher, wire, "1")
    assert write_batcher.turn == turn
    write_batcher.flush()
    assert write_batcher.turn == turn + 1
    assert told == ["a: 1"]
    await asyncio.sleep(0)
    assert told == ["a: 1"]
    assert write_batcher.turn == turn + 1


async def test_a_transport_that_closes_meanwhile_gets_nothing() -> None:
    told: list[str] = []
    write_batcher, wire = WriteBatcher(math.inf), Wire("a", told)
    write(write_batcher, wire, "1")
    wire.closed = True
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.parametrize("error", [RuntimeError("closed=True"), BrokenPipeError()], ids=["uvloop", "socket"])
async def test_one_that_refuses_is_aborted_and_costs_the_others_nothing(error: Exception) -> None:
    told: list[str] = []
    write_batcher = WriteBatcher(math.inf)
    write(write_batcher, Wire("a", told, error), "1")
    write(write_batcher, Wire("b", told), "2")
    await asyncio.sleep(0)
    assert told == ["a aborted", "b: 2"]


class Clock:
    """An event loop as an outbox knows it; `soon` is what it was asked to call."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)


def test_rare_writes_go_out_at_once_and_only_crowded_ones_are_held() -> None:
    told: list[str] = []
    write_batcher, wire, clock = WriteBatcher(), Wire("a", told), Clock()
    loop = cast("asyncio.AbstractEventLoop", clock)
    for after, text in ((0.0, "1"), (2 * CALM, "2"), (CALM / 2, "3"), (CALM / 2, "4")):
        clock.now += after
        write_batcher.write(wire, text.encode(), loop)
    assert told == ["a: 1", "a: 2"]
    assert len(clock.soon) == 1
    clock.soon[0]()
    assert told == ["a: 1", "a: 2", "a: 3", "a: 4"]
    assert write_batcher.turn == 3


def test_a_calm_write_takes_what_is_held_before_it() -> None:
    told: list[str] = []
    write_batcher, wire, clock = WriteBatcher(), Wire("a", told), Clock()
    loop = cast("asyncio.AbstractEventLoop", clock)
    for after, text in ((0.0, "1"), (0.0, "2"), (2 * CALM, "3")):
        clock.now += after
        write_batcher.write(wire, text.encode(), loop)
    assert told == ["a: 1", "a: 2", "a: 3"]
