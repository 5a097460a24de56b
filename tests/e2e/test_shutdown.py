"""The end of the gateway while answers are being made: told to clients, never a cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.server import running
from gateway.simulator import Options, Simulator
from tests.support.stack import configured, wait_until

LONG = Options(dialect="openai", speed=20, reply="一二三四五六七八九十" * 40)
BODY = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


async def ask(url: str, began: asyncio.Event, *, stream: bool) -> tuple[int, str]:
    """Give status and text of an answer; `began` is set with its first byte."""
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http,
        http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": stream}) as answer,
    ):
        pieces: list[str] = []
        async for piece in answer.aiter_text():
            began.set()
            pieces.append(piece)
        return answer.status_code, "".join(pieces)


async def ended_in_the_middle(*, stream: bool) -> tuple[int, str]:
    """Ask, end the gateway while the answer is being made, and give what the client got."""
    began = asyncio.Event()
    async with Simulator(LONG) as simulator, asyncio.TaskGroup() as group:
        settings = configured({"gpu-0": (simulator.url, "openai")})
        short = settings.model_copy(update={"server": settings.server.model_copy(update={"drain": 0.1})})
        async with running(short) as run:
            call = group.create_task(ask(run.url, began, stream=stream))
            await wait_until(lambda: simulator.in_flight == 1)
            if stream:
                await began.wait()
        await wait_until(lambda: simulator.in_flight == 0)
        return await call


async def test_who_waits_is_told_at_once_and_who_is_served_may_finish() -> None:
    short = Options(dialect="chatglm", latency=0.5, reply="你好")
    began = asyncio.Event()
    async with Simulator(short) as simulator, asyncio.TaskGroup() as group:
        extra = "[health]\nprobes = false\n"
        async with running(configured({"gpu-0": (simulator.url, "chatglm")}, extra)) as run:
            served = group.create_task(ask(run.url, began, stream=False))
            await wait_until(lambda: simulator.in_flight == 1)
            waiting = group.create_task(refusal(run.url))
            await wait_until(lambda: run.gateway.dispatcher.queue_depth("m") == 1)
            waiting.add_done_callback(lambda _: order.append("refused"))
            served.add_done_callback(lambda _: order.append("served"))
            order: list[str] = []
        answer = await waiting
    assert order == ["refused", "served"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await served)[0] == 200
    assert simulator.started == 1


async def refusal(url: str) -> httpx.Response:
    """Ask and give whatever comes."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        return await http.post("/v1/chat/completions", json=BODY)


async def test_a_stream_past_the_drain_limit_ends_with_an_error_event() -> None:
    status, text = await ended_in_the_middle(stream=True)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200
    assert json.loads(events[-1])["error"]["code"] == "draining"
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text


async def test_a_whole_answer_past_the_drain_limit_is_a_503_in_the_envelope() -> None:
    status, text = await ended_in_the_middle(stream=False)
    assert status == 503
    assert json.loads(text)["error"]["code"] == "draining"


# --- in a process of its own -----------------------------------------------------------------------


@dataclass
class Own:
    """A gateway in a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    admin: str

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ready(self, plane: str) -> int | None:
        """What `/readyz` says on a new connection; None where nobody takes it, or hangs up as it closes."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            try:
                return (await http.get(f"{plane}/readyz")).status_code
            except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                return None

    async def wait_ready(self, plane: str, status: int | None) -> float:
        """Wait until it says so, and give the time."""
        async with asyncio.timeout(20):
            while await self.ready(plane) != status:  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def own(folder: Path, backend: str, server: str) -> AsyncIterator[Own]:
    """Start it over one backend; `server` is more of `[server]`."""
    file, log = folder / "config.toml", folder / "log"
    file.write_text(
        f'[server]\nlisten = "127.0.0.1:0"\n{server}\n[admin]\nlisten = "127.0.0.1:0"\n'
        f'[[backends]]\nname = "gpu-0"\nurl = "{backend}"\ndialect = "openai"\nmodels = ["m"]\n'
    )
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(file), stdout=output
        )
    try:
        await wait_until(lambda: b"\n" in log.read_bytes(), 20)
        first = json.loads(log.read_text().splitlines()[0])
        yield Own(process, first["data"], first["admin"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_for_a_while_it_serves_on_without_being_ready_then_closes_and_lets_streams_end(
    tmp_path: Path,
) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.Event()
    two_seconds = Options(dialect="openai", speed=200, reply="一二三四五六七八九十" * 40)
    async with Simulator(two_seconds) as simulator, own(tmp_path, simulator.url, "drain_delay = 1") as one:
        async with asyncio.TaskGroup() as group:
            await one.wait_ready(one.url, 200)
            streaming = group.create_task(ask(one.url, began, stream=True))
            await began.wait()
            told = loop.time()
            one.tell(signal.SIGTERM)
            for plane in (one.url, one.admin):
                await one.wait_ready(plane, 503)
            late = group.create_task(refusal(one.url))
            await wait_until(lambda: simulator.started == 2)
            closed = await one.wait_ready(one.url, None)
            assert not streaming.done()
            await one.wait_ready(one.admin, None)  # the next gateway may have its address
            assert not streaming.done()
        status, text = await streaming
        assert (status, text.endswith("data: [DONE]\n\n")) == (200, True)
        assert (await late).status_code == 200
        assert closed - told >= 1
        async with asyncio.timeout(20):
            assert await one.process.wait() == 0


async def test_a_second_signal_ends_the_wait_at_once(tmp_path: Path) -> None:
    async with Simulator(LONG) as simulator, own(tmp_path, simulator.url, "drain_delay = 600") as one:
        await one.wait_ready(one.url, 200)
        one.tell(signal.SIGTERM)
        await one.wait_ready(one.url, 503)
        one.tell(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await one.process.wait() == 1
