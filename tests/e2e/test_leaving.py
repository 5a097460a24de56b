"""Clients that leave while they wait, before the first byte, and in the middle of a stream."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from gateway.formats import jsontext
from gateway.simulator import Options
from tests.support.stack import Stack, stack, wait_until

LONG = 30.0
"""Seconds: far longer than any of these tests may take."""
SERVERS = ["chatglm", "chatglm2", "chatglm3", "glm4", "openai", "chatglm2-openai", "chatglm-cpp"]
HOW = pytest.mark.parametrize("how", ["fin", "rst"])
STREAM = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


class Visitor:
    """A client on a bare socket, which can leave in either way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def ask(cls, one: Stack, text: str, *, stream: bool) -> Visitor:
        host, port = one.url.removeprefix("http://").split(":")
        visitor = cls(*await asyncio.open_connection(host, int(port)))
        body = jsontext.write(
            {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        )
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        visitor._writer.write(head.encode() + body)
        await visitor._writer.drain()
        return visitor

    async def leave(self, how: str) -> None:
        if how == "rst":
            sock: Any = self._writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


def disconnects(one: Stack, phase: str) -> float:
    text = one.run.gateway.metrics.render()[0].decode()
    name = f'gateway_client_disconnects_total{{phase="{phase}"}} '
    return float(text.partition(name)[2].partition("\n")[0])


@HOW
@STREAM
@pytest.mark.parametrize("dialect", ["chatglm2", "chatglm3"])
async def test_leaving_the_queue_frees_the_place_and_asks_no_backend(
    dialect: str, stream: bool, how: str
) -> None:
    async with stack(Options(dialect=dialect, latency=LONG)) as one:
        first = await Visitor.ask(one, "first", stream=stream)
        await wait_until(lambda: one.only.in_flight == 1)
        second = await Visitor.ask(one, "second", stream=stream)
        await wait_until(lambda: one.run.gateway.dispatcher.queue_depth("m") == 1)
        await second.leave(how)
        await wait_until(lambda: one.run.gateway.dispatcher.queue_depth("m") == 0)
        await wait_until(lambda: disconnects(one, "queued") == 1)
        assert len(one.only.requests) == 1
        await first.leave(how)


@HOW
@pytest.mark.parametrize("dialect", ["chatglm3", "glm4", "openai"])
async def test_leaving_before_the_first_byte_closes_a_stream_that_can_be_stopped(
    dialect: str, how: str
) -> None:
    async with stack(Options(dialect=dialect, latency=LONG)) as one:
        visitor = await Visitor.ask(one, "你好", stream=True)
        await wait_until(lambda: one.only.in_flight == 1)
        await visitor.leave(how)
        await wait_until(lambda: one.in_flight() == 0)
        await wait_until(lambda: disconnects(one, "before_first") == 1)
        assert one.run.gateway.dispatcher.zombies("gpu-0") == 0


@HOW
@STREAM
@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2"])
async def test_a_card_that_cannot_be_interrupted_keeps_its_slot_until_the_answer_has_come(
    dialect: str, stream: bool, how: str
) -> None:
    async with stack(Options(dialect=dialect, latency=0.5)) as one:
        visitor = await Visitor.ask(one, "你好", stream=stream)
        await wait_until(lambda: one.only.in_flight == 1)
        await visitor.leave(how)
        await wait_until(lambda: disconnects(one, "before_first") == 1)
        assert one.in_flight() == 1
        assert one.run.gateway.dispatcher.zombies("gpu-0") == 1
        await wait_until(lambda: one.in_flight() == 0)
        assert one.only.in_flight == 0
        assert one.run.gateway.dispatcher.zombies("gpu-0") == 0


@HOW
@pytest.mark.parametrize("dialect", ["chatglm3", "glm4", "openai", "chatglm2-openai", "chatglm-cpp"])
async def test_leaving_in_the_middle_of_a_stream_frees_the_slot(dialect: str, how: str) -> None:
    async with stack(Options(dialect=dialect, speed=40, reply="一二三四五六七八九十" * 8)) as one:
        visitor = await Visitor.ask(one, "你好", stream=True)
        seen = await visitor.reader.readuntil("二".encode())
        assert b"200 OK" in seen
        await visitor.leave(how)
        await wait_until(lambda: disconnects(one, "streaming") == 1)
        await wait_until(lambda: one.in_flight() == 0)
        await wait_until(lambda: one.only.in_flight == 0)


async def test_a_client_that_leaves_blames_no_backend() -> None:
    async with stack(Options(dialect="openai", latency=LONG)) as one:
        visitor = await Visitor.ask(one, "你好", stream=False)
        await wait_until(lambda: one.only.in_flight == 1)
        await visitor.leave("fin")
        await wait_until(lambda: one.in_flight() == 0)
        assert one.run.gateway.dispatcher.up("gpu-0")
        metrics = one.run.gateway.metrics.render()[0].decode()
    assert 'outcome="client_gone"' in metrics
    assert 'status="499"' in metrics
