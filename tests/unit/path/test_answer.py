"""Several generations that are one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.background import Background
from gateway.errors import UpstreamReset
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.path.answer import Answer, ParallelChoices
from gateway.telemetry.receipt import Receipt


class Told(Answer):
    """Gives these pieces and then ends, fails, or waits for ever."""

    def __init__(self, *pieces: Sequence[Event], end: Exception | None = None, hangs: bool = False) -> None:
        self._pieces = list(pieces)
        self._end = end
        self._hangs = hangs
        self.left = False

    async def read(self) -> list[Event]:
        await asyncio.sleep(0)
        if self._pieces:
            piece = list(self._pieces.pop(0))
            self.done = not self._pieces and self._end is None and not self._hangs
            return piece
        if self._end is not None:
            raise self._end
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        self.left = True


def told(text: str, completion: int) -> Told:
    return Told([Delta(text)], [Finish("stop"), Usage(7, completion, "estimate")])


@asynccontextmanager
async def beside(*generations: Told) -> AsyncIterator[tuple[ParallelChoices, Receipt]]:
    background, receipt = Background(), Receipt("req_1", "chat", 0.0)
    answer = ParallelChoices(generations, receipt, background)
    try:
        yield answer, receipt
    finally:
        await answer.aclose()
        await background.aclose()


async def everything(answer: Answer) -> list[Event]:
    events: list[Event] = []
    while not answer.done:
        events += await answer.read()
    return events


async def test_each_generation_is_a_choice_and_their_usage_one() -> None:
    async with beside(told("a", 1), told("b", 2), told("c", 3)) as (answer, receipt):
        events = await everything(answer)
    texts = {event.choice: event.text for event in events if isinstance(event, Delta)}
    assert texts == {0: "a", 1: "b", 2: "c"}
    assert {event.choice for event in events if isinstance(event, Finish)} == {0, 1, 2}
    assert events[-1] == Usage(7, 6, "estimate") == receipt.usage
    assert sum(isinstance(event, Usage) for event in events) == 1


async def test_one_that_fails_fails_all_and_the_others_are_left() -> None:
    slow, broken = Told(hangs=True), Told([Delta("a")], end=UpstreamReset("gone"))
    async with beside(slow, broken) as (answer, _):
        with pytest.raises(UpstreamReset):
            await everything(answer)
    assert slow.left
    assert broken.left


async def test_whoever_leaves_leaves_them_all() -> None:
    generations = [Told([Delta("a")], hangs=True) for _ in range(3)]
    async with beside(*generations) as (answer, _):
        await answer.read()
    assert all(one.left for one in generations)
