"""Replays every recorded exchange with a real server against its simulator and compares the bytes.

Only values that change from run to run are masked: times, random ids, the port. The recordings are stored
next to the checkout. Without them, the tests that need them are skipped. The tests of blocking need no
recordings.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.simulator import Options, Simulator
from tests.unit.simulator.helpers import Pauses, turns, until

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "wire" / "transcripts"
NOT_REPLAYED = ("README", "client_", "conc", "disconnect", "e2e_")
"""No exchange with a server, or one that needs seconds and a second request (see below)."""

SERVERS = {
    18101: ("chatglm", None),
    18102: ("chatglm2", None),
    18103: ("chatglm2-openai", "pydantic-1"),
    18104: ("chatglm2-openai", "pydantic-2"),
    18105: ("chatglm3", "2024-05"),
    18106: ("chatglm3", "2024-01"),
    18107: ("chatglm3", "2023-11"),
    18108: ("glm4", None),
    18109: ("glm4v", None),
    18110: ("chatglm-cpp", None),
    18111: ("chatglm-cpp-native", None),
}
VOLATILE = [
    (re.compile(rb'"created": ?\d+'), b'"created":0'),
    (re.compile(rb'"time":"[0-9: -]+"'), b'"time":""'),
    (re.compile(rb"chatcmpl-[A-Za-z0-9]{29}"), b"chatcmpl-"),
    (re.compile(rb"fp_[A-Za-z0-9]{9}"), b"fp_"),
    (re.compile(rb"call_[A-Za-z0-9]{24}"), b"call_"),
]
HEADERS_THAT_DIFFER = ("date", "server", "connection", "transfer-encoding")
"""Moment, program and framing of the connection; the framing shows in `cut` instead."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool


@dataclass(frozen=True)
class Recording:
    method: str
    port: int
    path: str
    headers: dict[str, str]
    body: bytes
    answer: Answer


def normalise(body: bytes) -> bytes:
    for pattern, blank in VOLATILE:
        body = pattern.sub(blank, body)
    return body


def visible(headers: dict[str, str]) -> dict[str, str]:
    # the length depends on the length of masked values; the body is compared anyway
    dropped = (*HEADERS_THAT_DIFFER, "content-length")
    return {name: value for name, value in headers.items() if name not in dropped}


def header_lines(lines: list[bytes]) -> dict[str, str]:
    pairs = [line.decode().partition(": ") for line in lines if b": " in line]
    return {name.lower(): value for name, _, value in pairs}


def read_recording(path: Path) -> Recording:
    raw = path.read_bytes()
    head, _, rest = raw.partition(b">>>\n")
    sent, _, received = rest.partition(b"\n<<< 11 ")
    first, *lines = [line.removeprefix(b">>> ") for line in head.splitlines()]
    method, url = first.decode().split(" ", 1)
    port, slash, place = url.removeprefix("http://127.0.0.1:").partition("/")
    answered, _, tail = received.partition(b"<<< BODY\n")
    status, *answer_lines = answered.splitlines()
    body, _, trailer = tail.rpartition(b"\n=== end body ")
    answer = Answer(
        int(status.split()[0]),
        header_lines([line.removeprefix(b"<<< ") for line in answer_lines]),
        body,
        b"error: IncompleteRead" in trailer,
    )
    return Recording(method, int(port), slash + place, header_lines(lines), sent, answer)


def ask(port: int, recording: Recording) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        body = recording.body or None
        connection.request(recording.method, recording.path, body=body, headers=recording.headers)
        response = connection.getresponse()
        received, cut = read_all(response)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, received, cut)
    finally:
        connection.close()


def read_all(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    received = b""
    try:
        while piece := response.read1():
            received += piece
    except http.client.IncompleteRead as error:
        return received + error.partial, True
    return received, False


def recordings() -> list[Path]:
    return sorted(path for path in RECORDINGS.glob("*.txt") if not path.name.startswith(NOT_REPLAYED))


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings lie beside the author's checkout only")
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in recordings()])
async def test_simulator_answers_as_the_recorded_server_did(path: Path) -> None:
    recording = read_recording(path)
    dialect, variant = SERVERS[recording.port]
    async with Simulator(Options(dialect=dialect, variant=variant, brain="echo")) as simulator:
        answer = await to_thread(ask, simulator.port, recording)
    assert answer.status == recording.answer.status
    assert normalise(answer.body) == normalise(recording.answer.body)
    assert visible(answer.headers) == visible(recording.answer.headers)
    assert answer.cut == recording.answer.cut


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings lie beside the author's checkout only")
def test_every_server_has_recordings_that_are_replayed() -> None:
    replayed = {read_recording(path).port for path in recordings()}
    assert replayed == set(SERVERS)


def test_normalising_blanks_moments_and_identities_only() -> None:
    chunk = {"id": "chatcmpl-" + "a" * 29, "created": 1795360825, "content": "kept 42"}
    assert normalise(json.dumps(chunk).encode()) == b'{"id": "chatcmpl-", "created":0, "content": "kept 42"}'


# Which requests block which others, as recorded in conc_summary.txt and disconnect.txt.

CHAT = "/v1/chat/completions"
SLOW_TEXT = "@@tsleep:1@@ @@reply:aaaabbbbccccddddeeeeffff@@"


def generation(dialect: str, *, stream: bool) -> tuple[str, dict[str, object]]:
    if dialect in ("chatglm", "chatglm2", "chatglm-cpp-native"):
        return "/", {"prompt": SLOW_TEXT}
    return CHAT, {"model": "m", "messages": [{"role": "user", "content": SLOW_TEXT}], "stream": stream}


@dataclass
class Stage:
    """A running simulator, its clock, and a client."""

    simulator: Simulator
    pauses: Pauses
    client: httpx.AsyncClient
    dialect: str

    def generate(self, *, stream: bool) -> asyncio.Task[httpx.Response]:
        path, body = generation(self.dialect, stream=stream)
        return asyncio.ensure_future(self.client.post(self.simulator.url + path, json=body))

    async def probe(self) -> asyncio.Task[httpx.Response]:
        """A GET request that has arrived, and has been answered unless something blocked it."""
        seen = len(self.simulator.requests)
        task = asyncio.ensure_future(self.client.get(self.simulator.url + "/v1/models"))
        await until(lambda: len(self.simulator.requests) > seen)
        await turns()
        return task

    async def release(self, count: int) -> None:
        for _ in range(count):
            await until(lambda: self.pauses.waiting)
            self.pauses.release()
            await turns()


@asynccontextmanager
async def stage(dialect: str) -> AsyncIterator[Stage]:
    pauses = Pauses()
    options = Options(dialect=dialect, brain="echo", sleep=pauses.sleep)
    async with Simulator(options) as simulator, httpx.AsyncClient(timeout=None) as client:
        yield Stage(simulator, pauses, client, dialect)


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [
        pytest.param("chatglm", False, id="v1"),
        pytest.param("chatglm2", False, id="v2"),
        pytest.param("chatglm2-openai", False, id="v2o-nonstream"),
        pytest.param("chatglm2-openai", True, id="v2o-stream"),
        pytest.param("chatglm3", False, id="v3-nonstream"),
        pytest.param("chatglm-cpp", False, id="cppo-nonstream"),
        pytest.param("chatglm-cpp-native", False, id="cppl"),
    ],
)
async def test_probe_of_a_blocked_server_waits_for_the_whole_generation(dialect: str, stream: bool) -> None:
    async with stage(dialect) as on:
        pieces = 7 if dialect == "chatglm3" else 6
        answer = on.generate(stream=stream)
        await until(lambda: on.pauses.waiting)
        probe = await on.probe()
        await on.release(pieces - 1)
        assert not probe.done()
        await on.release(1)
        assert (await probe).status_code in (200, 404)
        assert (await answer).status_code == 200


@pytest.mark.parametrize("dialect", ["chatglm", "chatglm3"])
async def test_two_generations_of_a_blocked_server_end_one_after_the_other(dialect: str) -> None:
    async with stage(dialect) as on:
        pieces = 7 if dialect == "chatglm3" else 6
        first, second = on.generate(stream=False), on.generate(stream=False)
        await until(lambda: on.simulator.in_flight == 2)
        await turns()
        assert len(on.pauses.waiting) == 1
        await on.release(pieces)
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        await on.release(pieces)
        await asyncio.gather(first, second)


async def test_v3_stream_blocks_up_to_its_eighth_character() -> None:
    async with stage("chatglm3") as on:
        answer = on.generate(stream=True)
        await until(lambda: on.pauses.waiting)
        probe = await on.probe()
        await on.release(2)
        assert not probe.done()
        await on.release(1)
        assert (await probe).status_code == 200
        assert (await (await on.probe())).status_code == 200
        await on.release(4)
        assert (await answer).text.endswith("data: [DONE]\r\n\r\n")


async def test_v3_streams_run_side_by_side_behind_their_first_characters() -> None:
    async with stage("chatglm3") as on:
        answers = [on.generate(stream=True), on.generate(stream=True)]
        await until(lambda: on.simulator.in_flight == 2)
        await on.release(6)
        await until(lambda: len(on.pauses.waiting) == 2)
        await on.release(8)
        await asyncio.gather(*answers)


async def test_cpp_stream_keeps_the_loop_for_a_piece_and_the_model_to_its_end() -> None:
    async with stage("chatglm-cpp") as on:
        first = on.generate(stream=True)
        await until(lambda: on.pauses.waiting)
        second = on.generate(stream=True)
        await until(lambda: on.simulator.in_flight == 2)
        probe = await on.probe()
        assert not probe.done()
        await on.release(1)
        assert (await probe).status_code == 200
        await turns()
        assert len(on.pauses.waiting) == 1
        await on.release(5)
        await first
        assert not second.done()
        await on.release(6)
        await second


@pytest.mark.parametrize("dialect", ["glm4", "glm4v", "openai"])
async def test_server_that_batches_answers_a_probe_at_once(dialect: str) -> None:
    async with stage(dialect) as on:
        answers = [on.generate(stream=True), on.generate(stream=True)]
        await until(lambda: len(on.pauses.waiting) == 2)
        assert (await (await on.probe())).status_code == 200
        for answer in answers:
            answer.cancel()
        await asyncio.wait(answers)


@pytest.mark.parametrize(
    ("dialect", "stream", "more"),
    [
        pytest.param("chatglm", False, 4, id="v1-goes-on"),
        pytest.param("chatglm3", False, 5, id="v3-nonstream-goes-on"),
        pytest.param("chatglm2-openai", True, 4, id="v2o-stream-goes-on"),
        pytest.param("chatglm-cpp", True, 3, id="cpp-stream-goes-on-a-bit"),
        pytest.param("glm4", True, 1, id="glm4-stream-stops-at-its-next-piece"),
        pytest.param("openai", True, 0, id="openai-stream-stops-at-once"),
        pytest.param("openai", False, 0, id="openai-nonstream-stops-at-once"),
    ],
)
async def test_server_goes_on_for_a_client_that_left_as_it_was_seen_to(
    dialect: str, stream: bool, more: int
) -> None:
    async with stage(dialect) as on:
        answer = on.generate(stream=stream)
        await on.release(2)
        answer.cancel()
        await asyncio.wait({answer})
        await on.client.aclose()
        await turns()
        for _ in range(more):
            assert on.simulator.in_flight == 1
            await on.release(1)
        await until(lambda: not on.simulator.in_flight)
        assert on.simulator.completed == 0
