"""What the simulator's unit tests share: a program without a server, a voice without a clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from gateway.simulator.brain import Brain, CannedBrain, EchoBrain
from gateway.simulator.exchange import Reply, Request, Stream
from gateway.simulator.options import Options
from gateway.simulator.pacing import PacedSpeaker
from gateway.simulator.program import Program


class Pauses:
    """A clock that a test holds: every sleep lasts until it is released."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.waiting: list[asyncio.Future[None]] = []

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        pause = asyncio.get_running_loop().create_future()
        self.waiting.append(pause)
        try:
            await pause
        finally:
            if pause in self.waiting:
                self.waiting.remove(pause)

    def release(self) -> None:
        pause = self.waiting.pop(0)
        if not pause.done():
            pause.set_result(None)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until the condition holds; pytest's time-out ends a test where it never does."""
    while not condition():
        await turns(1)


async def turns(count: int = 50) -> None:
    """Let the loop turn often enough for anything to happen that does not wait."""
    for _ in range(count):
        await asyncio.sleep(0)


def make(program: type[Program], brain: Brain | None = None, **options: Any) -> Program:
    settings = Options(**options)
    return program(PacedSpeaker(brain or EchoBrain(settings.piece_size), settings))


def canned() -> CannedBrain:
    return CannedBrain(4)


def post(path: str, body: object, **headers: str) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return Request("POST", path, {"content-type": "application/json", **headers}, raw)


def get(path: str, **headers: str) -> Request:
    return Request("GET", path, headers, b"")


def chat(*messages: tuple[str, str], **fields: object) -> Request:
    """A chat completion request of (role, content) pairs."""
    body = {"model": "m", "messages": [{"role": role, "content": content} for role, content in messages]}
    return post("/v1/chat/completions", {**body, **fields})


async def whole(program: Program, request: Request) -> tuple[int, Any]:
    """Status and JSON of a reply that is no stream; a text where it is no JSON."""
    reply = await program.answer(request)
    assert isinstance(reply, Reply)
    try:
        return reply.status, json.loads(reply.body or b"null")
    except ValueError:
        return reply.status, reply.body.decode()


async def events(program: Program, request: Request) -> list[str]:
    """The events of a stream, each without its framing."""
    stream = await program.answer(request)
    assert isinstance(stream, Stream)
    return [event.decode().strip() async for event in stream.events]


async def deltas(program: Program, request: Request) -> list[Any]:
    """The choices' deltas and finish reasons of a stream, `[DONE]` and raw events as they are."""
    found: list[Any] = []
    for event in await events(program, request):
        data = event.removeprefix("data: ")
        parsed = json.loads(data) if data.startswith("{") else data
        found.append(parsed["choices"][0] if isinstance(parsed, dict) and parsed["choices"] else parsed)
    return found
