"""Every recorded exchange with a real server, replayed against its simulator and compared byte for byte.

Only what changes from one moment to the next is blanked: times, random identities, the port. The recordings
lie beside the checkout; elsewhere their tests are skipped. The tests of what waits for what need none.
"""

from __future__ import annotations

import http.client
import json
import re
from asyncio import to_thread
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.simulator import Options, Simulator

RECORDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "wire" / "transcripts"
NOT_REPLAYED = ("README", "client_", "conc", "disconnect", "e2e_")
"""No exchange with a server, or one that needs seconds and a second request (see test_concurrency.py)."""

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
    # a length depends on how many digits and letters a volatile field has; the body is compared anyway
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
