"""One client whose requests make servers fail, beside another one: the other is served all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.server import RunningPlanes, running
from gateway.simulator import DIALECTS, Options, Simulator
from tests.support.peer import Talk, peer
from tests.support.stack import configured, wait_until

POISON = b"poison"
GOOD = 40
SAID = "春眠不觉晓，处处闻啼鸟。"
MORE = 12
"""Good requests beside each other kind of failure, on each dialect: enough for several rounds of doubts."""
KEYS = "".join(f'[[keys]]\nname = "{name}"\nkey = "sk-{name}-key"\n' for name in ("good", "bad"))
LIMITS = "[health]\ninterval = 0.5\n[retries]\nattempts = 1\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
FAILURES = {
    "500": b"HTTP/1.1 500 Oops\r\ncontent-length: 21\r\n\r\nInternal Server Error",
    "garbage": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{oops",
    "cut": HEAD + b'data: {"id":"x","object":"chat.completion.chunk"',
    "silence": b"",
}
REPORT = b'{"error":{"message":"roles must alternate","type":"BadRequestError","code":400}}'
CLOSED = b"HTTP/1.1 %d No\r\nconnection: close\r\ncontent-type: %s\r\n\r\n%s"
REFUSALS = {
    **{
        str(status): CLOSED % (status, b"text/html", b"<html>No</html>")
        for status in (400, 404, 409, 413, 415, 422)
    },
    "401": CLOSED % (401, b"application/json", b'{"detail":"No"}'),
    "no body": CLOSED % (400, b"text/plain", b""),
    "502 of a proxy": CLOSED % (502, b"text/html", b"<html>Bad Gateway</html>"),
    "json of a 200": CLOSED % (200, b"application/json", REPORT),
    "event": HEAD + b"data: " + REPORT + b"\n\n",
    "event behind the role": HEAD
    + b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\ndata: '
    + REPORT
    + b"\n\n",
    "head alone": HEAD,
    "page": CLOSED % (200, b"text/html", b"<html>Welcome</html>"),
}
"""More ways to fail for one request; nothing but the request is to blame."""
SPOKEN = sorted(set(DIALECTS) - {"glm4v"})
UNPROBED = "[health]\nprobes = false\n[retries]\nattempts = 1\n"


@dataclass
class House:
    """A gateway over one server; `failing` makes that fail whatever is asked."""

    run: RunningPlanes
    http: httpx.AsyncClient
    failing: bool = False

    async def ask(self, who: str, text: str, *, stream: bool = False) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        headers = {"authorization": f"Bearer sk-{who}-key"}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    @property
    def state(self) -> str:
        return self.run.gateway.health_monitor.state("gpu-0")


@contextlib.asynccontextmanager
async def house(dialect: str, failure: str, extra: str = LIMITS) -> AsyncIterator[House]:
    """A simulated server behind a relay that fails requests which hold the word."""
    there: list[House] = []

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            generates = request.startswith(b"POST ")
            if generates and (POISON in request or there[0].failing):
                if not (answer := {**FAILURES, **REFUSALS}[failure]):
                    talk.reset()
                    return
                await talk.send(answer)
                if b"connection: close" in answer:
                    return
                continue
            await talk.send(await forwarded(request))

    async def forwarded(request: bytes) -> bytes:
        address = urlsplit(simulator.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            head, _, body = request.partition(b"\r\n\r\n")
            writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = await reader.read(-1)
        finally:  # also if the test ends first
            writer.close()
        await writer.wait_closed()
        return answer.replace(b"connection: close\r\n", b"", 1)

    async with (
        Simulator(Options(dialect=dialect, reply=SAID)) as simulator,
        peer(script) as here,
        running(configured({"gpu-0": (here.url, dialect)}, KEYS + extra)) as run,
        httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=30) as http,
    ):
        there.append(House(run, http))
        yield there[0]


async def statuses_beside(one: House, good: int) -> list[int]:
    """Ask so many good questions while another client makes requests fail, some between every two."""
    numbers = count()
    failed: list[int] = []
    statuses: list[int] = []

    async def fail() -> None:
        while len(statuses) < good:
            number = next(numbers)
            with contextlib.suppress(httpx.HTTPError):
                await one.ask("bad", f"{POISON.decode()} {number}", stream=number % 2 == 0)
            failed.append(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(fail())
        for number in range(good):
            due = len(failed) + 4
            await wait_until(lambda due=due: len(failed) >= due, 20)
            answer = await one.ask("good", f"question {number}", stream=number % 2 == 0)
            statuses.append(answer.status_code)
    return statuses


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("dialect", ["glm4", "openai"])
@pytest.mark.parametrize("extra", [LIMITS, UNPROBED], ids=["probed", "unprobed"])
async def test_a_client_whose_requests_fail_takes_no_backend_from_others(
    dialect: str, failure: str, extra: str
) -> None:
    async with house(dialect, failure, extra) as one:
        assert await statuses_beside(one, GOOD) == [200] * GOOD


@pytest.mark.parametrize(
    ("dialect", "failure"),
    [
        *((dialect, failure) for dialect in ("openai", "chatglm2") for failure in REFUSALS),
        *((dialect, failure) for dialect in SPOKEN for failure in ("500", "409", "page")),
    ],
)
async def test_no_kind_of_failure_takes_a_backend_from_others(dialect: str, failure: str) -> None:
    async with house(dialect, failure) as one:
        assert await statuses_beside(one, MORE) == [200] * MORE


@pytest.mark.parametrize("failure", ["500", "garbage"])
async def test_without_probes_a_server_that_fails_for_one_client_alone_is_tried_out(failure: str) -> None:
    async with house("glm4", failure, UNPROBED) as one:
        one.failing = True
        for number in range(3):
            assert (await one.ask("bad", f"question {number}")).status_code >= 500
        await wait_until(lambda: one.state in ("sick", "half_open"))


@pytest.mark.parametrize("failure", ["500", "garbage"])
@pytest.mark.parametrize("dialect", ["glm4", "openai"])
async def test_a_server_that_fails_for_everybody_is_out_after_its_trial_and_comes_back(
    dialect: str, failure: str
) -> None:
    async with house(dialect, failure) as one:
        one.failing = True
        for number in range(3):
            answer = await one.ask("good" if number % 2 else "bad", f"question {number}")
            assert answer.status_code >= 500
        await wait_until(lambda: one.state == "sick")
        refused = await one.ask("good", "another question")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_backend")
        one.failing = False
        await wait_until(lambda: one.state in ("ramping", "up"))
        assert (await one.ask("good", "one more")).status_code == 200
