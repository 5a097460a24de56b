"""Every backend is down, and comes back."""

from __future__ import annotations

import asyncio

from tests.faults.checks import BOTH, EVERY, PROMPT, check_good, check_refused, over, playing
from tests.support.faulty import closed_port
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.site import opened
from tests.support.stack import configured
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask


@EVERY
@BOTH
async def test_nobody_queues_behind_the_dead(server: Server, stream: bool) -> None:
    with closed_port() as nowhere, closed_port() as nor_there:
        async with over(server, nowhere, nor_there, slots=1) as gateway:
            answers = await asyncio.gather(*(ask(gateway, stream=stream) for _ in range(8)))
            again = await ask(gateway, stream=stream)
    for answer in [*answers, again]:
        check_refused(answer, 503, "no_backend")
        assert "retry-after" in answer.headers
    assert again.seconds < PROMPT


async def test_it_serves_again_within_a_probe_or_two() -> None:
    server = Server("chatglm2", "chatglm2")
    good = await tape(server, stream=False)
    async with peer(playing(good.sized)) as here:
        port = here.port
    probed = configured({"gpu-0": (f"http://127.0.0.1:{port}", "chatglm2")}, "[health]\ninterval = 0.5\n")
    async with opened(probed) as gateway:
        gateway.gateway.start()
        check_refused(await ask(gateway), 503, "no_backend")
        back = await asyncio.start_server(_Answering(good.sized), "127.0.0.1", port)
        async with back, asyncio.timeout(4):
            while (answer := await ask(gateway)).status != 200:
                assert answer.status == 503
                await asyncio.sleep(0.05)
        check_good(answer, REPLY)
        assert gateway.metric("gateway_backend_up") == 1


class _Answering:
    """A server of one answer on a port that is known before."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        writer.close()
