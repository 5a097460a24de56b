import ast
import asyncio
import json
import os
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.cli.demo import (
    MODELS,
    QUESTIONS,
    SERVERS,
    RunGateway,
    RunningServer,
    ask,
    config_over,
    curl_command,
    free_port,
    introduction,
    langchain_program,
    python_program,
    run_demo,
)
from gateway.config import Config

URLS = [f"http://127.0.0.1:{40_000 + index}" for index in range(len(SERVERS))]


@dataclass(frozen=True)
class StubGateway:
    """The addresses of a gateway that is not there."""

    url: str
    admin_url: str = "http://127.0.0.1:9"


def gateway_that_replies(status: int, body: str) -> RunGateway:
    """A gateway that gives the same reply to everything."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        payload = body.encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(asked.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(head + payload)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the demo has ended in the middle of a question
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()  # else the loop may end first, and warn of it

    @asynccontextmanager
    async def running(config: Config) -> AsyncIterator[RunningServer]:
        address = config.server.address
        writers: list[asyncio.StreamWriter] = []
        async with asyncio.TaskGroup() as tasks:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writers.append(writer)
                tasks.create_task(reply(reader, writer))

            async with await asyncio.start_server(connected, address.host, address.port) as server:
                yield StubGateway(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            for _ in range(3):  # a connection that was accepted at the end is announced a step later
                await asyncio.sleep(0)
            for writer in writers:  # also of a connection whose task has not begun to run
                writer.close()

    return running


def answer(text: str) -> str:
    return json.dumps({"choices": [{"message": {"content": text}}]})


def test_the_demo_introduces_itself_asks_every_model_and_ends() -> None:
    said: list[str] = []
    status = run_demo(port=0, once=True, say=said.append, gateway=gateway_that_replies(200, answer("你好！")))
    text = "\n".join(said)
    assert status == 0
    assert text.splitlines()[0] == "你好，ChatGLM 网关"
    assert text.count("你好！") == len(MODELS) * len(QUESTIONS)
    assert text.count("vLLM") == 1
    assert text.endswith("The demo has ended.")


def test_a_missing_answer_fails_the_demo_and_is_shown() -> None:
    said: list[str] = []
    refusal = json.dumps({"error": {"message": "no backend is usable"}})
    assert run_demo(port=0, once=True, say=said.append, gateway=gateway_that_replies(503, refusal)) == 1
    assert "(error 503: no backend is usable)" in "\n".join(said)


@pytest.mark.parametrize("when", ["Your turn", "Asked through"])
def test_ctrl_c_ends_the_demo_cleanly(when: str) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if when in text:
            os.kill(os.getpid(), signal.SIGINT)

    assert run_demo(port=0, say=say, gateway=gateway_that_replies(200, answer("x"))) == 0
    assert "ended" in said[-1]


def test_a_taken_port_is_told_and_the_next_free_one_is_used() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        run_demo(port=taken, once=True, say=said.append, gateway=gateway_that_replies(200, answer("x")))
    assert said[0].startswith(f"Port {taken} is taken; using ")


def test_last_lines_tell_the_addresses_that_were_taken_and_the_curl_that_fits() -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "Your turn" in text:
            os.kill(os.getpid(), signal.SIGINT)

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        run_demo(port=taken, say=say, gateway=gateway_that_replies(200, answer("x")))
    (turn,) = [text for text in said if "Your turn" in text]
    *_, first, servers, last = turn.splitlines()
    url = first.split()[1]
    assert f"({taken} is taken" in first
    assert servers.count("http://127.0.0.1:") == len(SERVERS)
    assert last == curl_command(url)
    assert url != f"http://127.0.0.1:{taken}"


def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    assert run_demo(brain="llama", model_file=tmp_path / "none.gguf", say=said.append) == 1
    assert said[0].startswith("The demo cannot start: ")
    assert run_demo(brain="human", say=said.append) == 1
    assert "unknown brain" in said[1]


def test_a_free_port_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert free_port(taken) not in {0, taken}
    assert free_port(taken) == taken
    assert free_port(0) == 0


def test_the_config_has_every_server_and_stays_on_this_machine() -> None:
    config = config_over(URLS, 8000)
    assert [model.name for model in config.resolved_models] == list(MODELS)
    assert config.names["chatglm2-6b"].backends == ("sim-2", "sim-3")
    assert config.server.address.is_local
    assert config.admin.address.is_local


def test_the_introduction_shows_what_runs_where_and_how_to_ask() -> None:
    gateway = StubGateway("http://127.0.0.1:8000")
    text = introduction(gateway, URLS)
    rows = [line.split() for line in text.splitlines() if line.startswith(tuple(MODELS))]
    assert [(row[0], row[-1]) for row in rows] == [
        (server.model, url) for server, url in zip(SERVERS, URLS, strict=True)
    ]
    assert curl_command(gateway.url) in text
    assert python_program(gateway.url) in text
    assert langchain_program(gateway.url) in text
    assert max(map(len, text.splitlines())) < 200


def test_the_curl_command_is_one_a_shell_understands() -> None:
    words = shlex.split(curl_command("http://h:1"))
    assert words[:2] == ["curl", "http://h:1/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] in MODELS


@pytest.mark.parametrize("program", [python_program, langchain_program])
def test_the_programs_are_python(program: Callable[[str], str]) -> None:
    assert "http://h:1/" in ast.unparse(ast.parse(program("http://h:1")))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(200, answer(" a\n b "), (True, "a b"), id="an-answer-on-one-line"),
        pytest.param(200, "<html>", (False, "(status 200, and a body that is no answer)"), id="html"),
        pytest.param(200, "[]", (False, "(status 200, and a body that is no answer)"), id="no-object"),
        pytest.param(500, "{}", (False, "(status 500, and a body that is no answer)"), id="no-envelope"),
    ],
)
async def test_an_answer_is_read_or_told_apart(status: int, body: str, expected: tuple[bool, str]) -> None:
    async with gateway_that_replies(status, body)(config_over(URLS, 0)) as running:
        assert await asyncio.to_thread(ask, running.url, "m", "q") == expected


def test_a_gateway_that_is_gone_is_told() -> None:
    answered, text = ask("http://127.0.0.1:9", "m", "q")
    assert not answered
    assert "Connection refused" in text


def test_real_small_model_is_asked_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Silent:
        """A simulator that is none."""

        url = "http://127.0.0.1:1"

        def __init__(self, options: object) -> None: ...
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr("gateway.cli.demo.Simulator", Silent)
    run_demo(
        port=0, brain="llama", once=True, say=said.append, gateway=gateway_that_replies(200, answer("x"))
    )
    text = "\n".join(said)
    assert "speaks no Chinese" in text
    assert "What is the capital of France?" in text
    assert "你是谁" not in text
