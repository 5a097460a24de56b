from __future__ import annotations

import asyncio

import pytest

from gateway.simulator.brain import BrainPrompt, EchoBrain
from gateway.simulator.exchange import ClientGoneError, Request
from gateway.simulator.options import Options
from gateway.simulator.pacing import PacedSpeaker
from tests.unit.simulator.helpers import Pauses, get, until


class Leaving:
    """A client that leaves when told."""

    def __init__(self) -> None:
        self._left = asyncio.Event()

    @property
    def gone(self) -> bool:
        return self._left.is_set()

    async def wait_gone(self) -> None:
        await self._left.wait()

    def leave(self) -> None:
        self._left.set()


class Stopwatch:
    """A sleep that only adds up."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)


async def test_pace_is_latency_once_and_speed_by_the_character() -> None:
    watch = Stopwatch()
    voice = PacedSpeaker(EchoBrain(4), Options(latency=2, speed=8, reply="abcdefgh!", sleep=watch.sleep))
    assert await voice.say(get("/"), BrainPrompt("m", "@@sleep:1@@")) == "abcdefgh!"
    assert watch.asked == [3.0, 0.5, 0.5, 0.125]


async def test_voice_without_a_pace_never_sleeps() -> None:
    watch = Stopwatch()
    await PacedSpeaker(EchoBrain(4), Options(sleep=watch.sleep)).say(get("/"), BrainPrompt("m", "hi"))
    assert watch.asked == []


async def test_last_piece_is_known_before_it_is_over() -> None:
    voice = PacedSpeaker(EchoBrain(2), Options(reply="abcd", piece_size=2))
    assert [item async for item in voice.speak_marked(get("/"), BrainPrompt("m", ""))] == [
        ("ab", False),
        ("cd", True),
    ]


async def test_reply_of_a_request_wins_over_that_of_the_options() -> None:
    request = Request("POST", "/", {}, b"", reply="")
    assert await PacedSpeaker(EchoBrain(4), Options(reply="text")).say(request, BrainPrompt("m", "")) == ""


async def test_generation_that_notices_ends_when_the_client_leaves() -> None:
    client, pauses = Leaving(), Pauses()
    voice = PacedSpeaker(EchoBrain(4), Options(latency=60, sleep=pauses.sleep))
    request = Request("POST", "/", {}, b"", client)
    async with asyncio.TaskGroup() as group:
        job = group.create_task(expect_gone(voice, request))
        await until(lambda: pauses.waiting)
        client.leave()
    assert await job
    assert pauses.waiting == []


async def test_generation_that_notices_does_not_start_for_nobody() -> None:
    client = Leaving()
    client.leave()
    voice = PacedSpeaker(EchoBrain(4), Options())
    assert await expect_gone(voice, Request("POST", "/", {}, b"", client))


async def test_generation_that_does_not_notice_runs_to_its_end() -> None:
    client = Leaving()
    client.leave()
    voice = PacedSpeaker(EchoBrain(4), Options(reply="all of it"))
    assert await voice.say(Request("POST", "/", {}, b"", client), BrainPrompt("m", "")) == "all of it"


async def expect_gone(voice: PacedSpeaker, request: Request) -> bool:
    with pytest.raises(ClientGoneError):
        await voice.say(request, BrainPrompt("m", ""), notices=True)
    return True
