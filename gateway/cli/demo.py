"""The demo: simulated model servers and the gateway over them, in one process and one event loop.

It prints what runs where, how to ask it, and asks a few questions itself. It needs no graphics card, no
config file and no network.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shlex
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from gateway.config import Address, Config, LogSettings
from gateway.config.binding import obstacle
from gateway.simulator import Options, Simulator
from gateway.simulator.llama import ModelMissingError
from gateway.simulator.server import on_signal

Say = Callable[[str], None]
"""Prints one text and a newline."""

WHO = "你好，你是谁？"
QUESTIONS = ("你好，请用一句话介绍你自己。", "Hello, who are you?")
ENGLISH = ("Hello, who are you?", "What is the capital of France?")
"""What the small real model is asked: it speaks no Chinese."""

_ASK_TIMEOUT = 120.0
"""Seconds for one answer; a real model on a slow machine needs some."""

_PORTS_TRIED = 20


class RunningServer(Protocol):
    """A gateway that listens."""

    @property
    def url(self) -> str:
        """The data plane, without a slash at the end."""

    @property
    def admin_url(self) -> str:
        """The admin plane, without a slash at the end."""


RunGateway = Callable[[Config], AbstractAsyncContextManager[RunningServer]]
"""Runs the gateway for the length of an `async with`."""


@dataclass(frozen=True)
class SimulatedServer:
    """One simulated server of the demo: its name, dialect and model, and what it imitates."""

    name: str
    dialect: str
    model: str
    imitates: str


SERVERS = (
    SimulatedServer("sim-1", "chatglm", "chatglm-6b", "ChatGLM-6B api.py"),
    SimulatedServer("sim-2", "chatglm2", "chatglm2-6b", "ChatGLM2-6B api.py"),
    SimulatedServer("sim-3", "chatglm2", "chatglm2-6b", "ChatGLM2-6B api.py"),
    SimulatedServer("sim-4", "chatglm3", "chatglm3-6b", "ChatGLM3 api_server.py"),
    SimulatedServer("sim-5", "openai", "glm-4-9b-chat", "vLLM and its like"),
)

MODELS = tuple(dict.fromkeys(server.model for server in SERVERS))


def run_demo(
    *,
    port: int = 8000,
    brain: str = "canned",
    model_file: Path | None = None,
    once: bool = False,
    say: Say = print,
    gateway: RunGateway | None = None,
) -> int:
    """Run the demo until Ctrl-C, or with `once` until its own questions are answered; give the exit status.

    0 is a clean end; 1 means that it could not start, or that with `once` an answer was missing.
    """
    options = [Options(dialect=server.dialect, brain=brain, model=model_file) for server in SERVERS]
    try:
        simulators = [Simulator(choice) for choice in options]
    except (ValueError, ModelMissingError) as error:
        say(f"The demo cannot start: {error}")
        return 1
    questions = ENGLISH if brain == "llama" else QUESTIONS
    return asyncio.run(_Demo(simulators, gateway or _gateway(), say, questions).run(port, once=once))


def _gateway() -> RunGateway:
    """Import the real gateway only when it is wanted; it shows requests as they come."""
    from gateway.server import LAST_LINES, logs_of, running

    @asynccontextmanager
    async def run(settings: Config) -> AsyncIterator[RunningServer]:
        logs = logs_of(LogSettings(format="terminal"))
        async with running(settings, logs=logs) as begun:
            yield begun
        logs.flush(LAST_LINES)

    return run


class _Demo:
    """One run of the demo."""

    def __init__(
        self, simulators: list[Simulator], gateway: RunGateway, say: Say, questions: Sequence[str]
    ) -> None:
        self._questions = questions
        self._question = ENGLISH[0] if questions is ENGLISH else WHO
        self._simulators = simulators
        self._gateway = gateway
        self._say = say
        self._stop = asyncio.Event()

    async def run(self, port: int, *, once: bool) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            on_signal(loop, number, self._stop.set)
        free = free_port(port)
        if free != port:
            self._say(f"Port {port} is taken; using {free}.\n")
        async with AsyncExitStack() as stack:
            for simulator in self._simulators:
                await stack.enter_async_context(simulator)
            urls = [simulator.url for simulator in self._simulators]
            running = await stack.enter_async_context(self._gateway(config_over(urls, free)))
            self._say(introduction(running, urls, self._question))
            if self._questions is ENGLISH:
                self._say("\nThe small model behind these servers speaks no Chinese: ask it in English.")
            answered = await self._ask_until_stopped(running.url)
            if not once and not self._stop.is_set():
                self._say(closing(running, urls, port, self._question))
                await self._stop.wait()
        self._say("\nThe demo has ended.")
        return 0 if answered or not once else 1

    async def _ask_until_stopped(self, url: str) -> bool:
        """Ask every model; whether all answered. Ctrl-C ends it early, and is no failure."""
        call = asyncio.ensure_future(self._ask_all(url))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((call, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (call, stopping):
            task.cancel()
        results = await asyncio.gather(call, stopping, return_exceptions=True)
        return results[0] is True or self._stop.is_set()

    async def _ask_all(self, url: str) -> bool:
        self._say("\nAsked through the gateway:")
        well = True
        for model in MODELS:
            self._say(f"\n{model}")
            for question in self._questions:
                answered, text = await _asked_beside(url, model, question)
                self._say(f"  > {question}\n    {text}")
                well = well and answered
        return well


def free_port(first: int) -> int:
    """Give `first`, or the next free port of 127.0.0.1 after it; 0 where twenty are taken, and for 0."""
    ports = range(first, min(first + _PORTS_TRIED, 65_536)) if first else range(0)
    return next((port for port in ports if obstacle(Address("127.0.0.1", port)) is None), 0)


def config_over(urls: Iterable[str], port: int) -> Config:
    """Make the gateway's config over the simulated servers at `urls`, in the order of SERVERS."""
    backends = [
        {"name": server.name, "url": url, "dialect": server.dialect, "models": [server.model]}
        for server, url in zip(SERVERS, urls, strict=True)
    ]
    return Config.model_validate(
        {
            "server": {"listen": f"127.0.0.1:{port}", "drain": 1.0},
            "admin": {"listen": "127.0.0.1:0"},
            "backends": backends,
        }
    )


def introduction(running: RunningServer, urls: Iterable[str], question: str = WHO) -> str:
    """Say what runs where, and how to ask it: curl, Python, LangChain."""
    head = f"{'model':<15}{'simulated server':<25}address"
    rows = [
        f"{server.model:<15}{server.imitates:<25}{url}" for server, url in zip(SERVERS, urls, strict=True)
    ]
    return "\n".join(
        [
            "你好，ChatGLM 网关",
            "",
            f"The gateway listens on {running.url} (OpenAI: /v1, native ChatGLM: POST /).",
            f"Health and metrics: {running.admin_url}/readyz, {running.admin_url}/metrics",
            "",
            head,
            *rows,
            "",
            "Ask it with curl:",
            "",
            curl_command(running.url, question),
            "",
            "or from Python (pip install openai):",
            "",
            python_program(running.url, question),
            "or with the LangChain class for ChatGLM's own API (pip install langchain-community):",
            "",
            langchain_program(running.url, question),
        ]
    )


def closing(running: RunningServer, urls: Iterable[str], wanted: int, question: str = WHO) -> str:
    """Say once more where everything listens, with the command that asks it as the last line."""
    port = urlsplit(running.url).port
    instead = (
        f" ({wanted} is taken, perhaps by a ChatGLM server of your own)" if port != wanted and wanted else ""
    )
    return "\n".join(
        [
            "",
            "Your turn; Ctrl-C ends the demo.",
            f"gateway {running.url}{instead}, health and metrics {running.admin_url},",
            f"simulated servers {', '.join(urls)}. Ask it:",
            curl_command(running.url, question),
        ]
    )


def curl_command(url: str, question: str = WHO) -> str:
    """Write a question to ChatGLM2-6B as a curl command, for a shell."""
    body = {"model": "chatglm2-6b", "messages": [{"role": "user", "content": question}]}
    return " ".join(
        [
            f"curl {url}/v1/chat/completions",
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        ]
    )


def python_program(url: str, question: str = WHO) -> str:
    """Write a streamed question to ChatGLM3-6B as a program for the official SDK."""
    return f"""\
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="none")
stream = client.chat.completions.create(
    model="chatglm3-6b",
    messages=[{{"role": "user", "content": {json.dumps(question, ensure_ascii=False)}}}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
"""


def langchain_program(url: str, question: str = WHO) -> str:
    """Write a question to `POST /` as a program for LangChain's ChatGLM class."""
    return f"""\
from langchain_community.llms import ChatGLM

print(ChatGLM(endpoint_url="{url}/").invoke({json.dumps(question, ensure_ascii=False)}))"""


def ask(url: str, model: str, question: str) -> tuple[bool, str]:
    """Ask one question through the gateway at `url`; give whether it was answered, and the answer or error.

    Blocks for up to two minutes; run it in a thread.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_ASK_TIMEOUT)
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 400}
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), headers={"Content-Type": "application/json"}
        )
        with connection.getresponse() as response:
            return _understood(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        return False, f"(no answer: {str(error) or type(error).__name__})"
    finally:
        connection.close()


async def _asked_beside(url: str, model: str, question: str) -> tuple[bool, str]:
    """Ask in a thread that the end of the demo does not wait for: a slow model may take its two minutes."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[bool, str]] = loop.create_future()

    def settle(result: tuple[bool, str]) -> None:
        if not answer.done():
            answer.set_result(result)

    def work() -> None:
        result = ask(url, model, question)
        with suppress(RuntimeError):  # the demo has ended meanwhile, and its loop with it
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=work, name="a question of the demo", daemon=True).start()
    return await answer


def _understood(status: int, body: bytes) -> tuple[bool, str]:
    try:
        found = json.loads(body)
        if status != http.HTTPStatus.OK:
            return False, f"(error {status}: {found['error']['message']})"
        return True, " ".join(str(found["choices"][0]["message"]["content"]).split())
    except (ValueError, KeyError, TypeError, IndexError):
        return False, f"(status {status}, and a body that is no answer)"
