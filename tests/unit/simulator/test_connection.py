from __future__ import annotations

import asyncio

import pytest

from gateway.simulator import Options, Simulator
from tests.unit.simulator.helpers import until

REQUEST = b'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\n{"prompt": "x"}'


async def test_reset_reaches_the_client_as_a_reset() -> None:
    async with Simulator(Options(faults=("reset",))) as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(REQUEST)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_close_reaches_the_client_as_an_end_without_a_byte() -> None:
    async with Simulator(Options(faults=("close",))) as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(REQUEST)
        assert await reader.read() == b""
        writer.close()


async def test_hang_lasts_until_the_client_leaves() -> None:
    async with Simulator(Options(faults=("hang",))) as simulator:
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(REQUEST)
        await until(lambda: simulator.in_flight)
        writer.close()
        await until(lambda: not simulator.in_flight)
        assert simulator.requests[0].finished
        assert simulator.completed == 0
