"""No outcome of a request leaves a reference cycle, and its body is released when the request ends.

The garbage collector is off: what it would have to free stays in a busy process for seconds, with the whole
request, and freeing it stops the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from tests.faults.checks import leave_at_once, limits, over, playing, reset_at_once, stay_silent
from tests.support.fleet import SERVERS, Server
from tests.support.garbage import LARGE, left_behind
from tests.support.peer import Script, Talk, free_port, peer
from tests.support.site import Site
from tests.support.stack import wait_until
from tests.support.tapes import STREAMING, tape
from tests.support.visitor import Visitor, chat

LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
ONE_LOOP = pytest.mark.parametrize("loop", [uvloop.new_event_loop], ids=["uvloop"])
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
OPENAI = Server("openai", "openai")
CHATGLM3 = Server("chatglm3", "chatglm3")
TEXT = "x" * LARGE
UNPROBED = "[health]\nprobes = false\nfall = 100\n"
HASTE = 0.2
"""Seconds after which what is silent has taken too long."""


class Scene:
    """A gateway and what happens to it."""

    def __init__(self, here: Site, server: Server, *, stream: bool, **fields: Any) -> None:
        self.here = here
        if server.dialect == "openai":
            self.body = chat(TEXT, stream=stream, **fields)
        else:  # many refuse a text that is longer than their context
            self.body = chat(stream=stream, metadata={"padding": TEXT}, **fields)

    async def ask(self) -> None:
        """Ask and read the answer, whatever it is."""
        await (await Visitor.to(self.here, self.body)).wait_answer()

    async def leave(self, when: Callable[[], bool]) -> None:
        """Ask, and leave at a certain moment."""
        visitor = await Visitor.to(self.here, self.body)
        await wait_until(when)
        await visitor.leave()

    async def send(self, raw: bytes, *, answered: bool = True) -> None:
        """Send bytes, and read what comes if they are answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.here.port)
        writer.write(raw)
        if answered:
            await reader.read(1)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @property
    def busy(self) -> int:
        """Slots that are taken, by requests and by work that goes on without a client."""
        return self.here.gateway.dispatcher.in_flight("gpu-0")

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.here.gateway.dispatcher.queue_depth("m")

    @property
    def visitors(self) -> int:
        """Requests that are served."""
        return len(self.here.gateway.lifecycle)


Act = Callable[[Scene], Awaitable[None]]


def run(
    loop: Callable[[], asyncio.AbstractEventLoop],
    act: Act,
    server: Server,
    *scripts: Script,
    stream: bool,
    extra: str = limits() + UNPROBED,
    occupied: bool = False,
    fields: Any = (),
    **options: Any,
) -> None:
    """Let it happen before servers with these scripts; nothing may be left. `occupied`: the slot is taken."""

    async def main() -> list[str]:
        async with contextlib.AsyncExitStack() as stack:
            urls = [(await stack.enter_async_context(peer(script))).url for script in scripts]
            urls = urls or [f"http://127.0.0.1:{free_port()}"]
            here = await stack.enter_async_context(over(server, *urls, extra=extra, settle=False, **options))
            scene = Scene(here, server, stream=stream, **dict(fields))
            if occupied:
                await stack.enter_async_context(_first(scene))
                await wait_until(lambda: scene.busy == 1)
            return await left_behind(lambda: act(scene), quiet=lambda: scene.visitors == int(occupied))

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == []


@contextlib.asynccontextmanager
async def _first(scene: Scene) -> AsyncIterator[None]:
    """Somebody who holds the slot."""
    visitor = await Visitor.to(scene.here, chat("first"))
    yield
    await visitor.leave()


async def ask(scene: Scene) -> None:
    await scene.ask()


async def leave_queue(scene: Scene) -> None:
    await scene.leave(lambda: scene.waiting == 1)


async def leave_backend(scene: Scene) -> None:
    await scene.leave(lambda: scene.busy == 1)
    await wait_until(lambda: scene.busy == 0)


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def always(answer: bytes, then: Callable[[Talk], Awaitable[None]] | None = None) -> Script:
    """A server that says the same to everybody; `then`: how it goes on."""

    async def script(talk: Talk) -> None:
        while await talk.wait_request():
            await talk.send(answer)
            if then is not None:
                await then(talk)
                return

    return script


async def _reset(talk: Talk) -> None:
    talk.reset()


async def _silence(talk: Talk) -> None:
    await talk.wait_left()


def taped(server: Server, *, stream: bool, part: float = 1.0) -> bytes:
    """A whole answer of a server, or its beginning."""
    good = asyncio.run(tape(server, stream=stream and server in STREAMING))
    whole = (
        good.chunked if part == 1 else good.head("transfer-encoding: chunked") + b"%x\r\n" % len(good.body)
    )
    return whole if part == 1 else whole + good.body[: int(len(good.body) * part)]


@ONE_LOOP
@BOTH
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_a_good_answer_leaves_nothing(loop: Any, stream: bool, server: Server) -> None:
    run(loop, ask, server, always(taped(server, stream=stream)), stream=stream)


@LOOPS
@BOTH
@pytest.mark.parametrize(
    "script",
    [
        always(b"HTTP/1.1 500 no\r\ncontent-length: 2\r\n\r\nno"),
        always(b"HTTP/1.1 400 no\r\ncontent-length: 2\r\n\r\nno"),
        always(sized(b"{}")),
        always(b"nonsense\r\n\r\n"),
        leave_at_once,
        reset_at_once,
    ],
    ids=["500", "400", "no-answer", "no-http", "closed", "reset"],
)
@pytest.mark.parametrize("server", [OPENAI, CHATGLM3], ids=lambda server: server.id)
def test_a_backend_that_fails_leaves_nothing(loop: Any, stream: bool, script: Script, server: Server) -> None:
    run(loop, ask, server, script, stream=stream)


@LOOPS
@BOTH
def test_a_backend_that_is_not_there_leaves_nothing(loop: Any, stream: bool) -> None:
    run(loop, ask, OPENAI, stream=stream)


@LOOPS
@BOTH
@pytest.mark.parametrize("then", [_reset, _silence], ids=["cut", "stall"])
@pytest.mark.parametrize("server", [OPENAI, CHATGLM3], ids=lambda server: server.id)
def test_an_answer_that_breaks_off_leaves_nothing(loop: Any, stream: bool, then: Any, server: Server) -> None:
    script = always(taped(server, stream=stream, part=0.6), then)
    haste = limits(first_token=HASTE, between_tokens=HASTE, total=1) + UNPROBED
    run(loop, ask, server, script, stream=stream, extra=haste)


@LOOPS
@BOTH
@pytest.mark.parametrize("server", [OPENAI, CHATGLM3, Server("chatglm", "chatglm")], ids=lambda one: one.id)
def test_a_backend_that_is_silent_leaves_nothing(loop: Any, stream: bool, server: Server) -> None:
    haste = limits(first_token=HASTE, total=HASTE) + UNPROBED
    run(loop, ask, server, stay_silent, stream=stream, extra=haste)


@LOOPS
@BOTH
def test_another_backend_that_answers_leaves_nothing(loop: Any, stream: bool) -> None:
    run(loop, ask, OPENAI, reset_at_once, always(taped(OPENAI, stream=stream)), stream=stream)


@LOOPS
@BOTH
@pytest.mark.parametrize("answer", [True, False], ids=["ok", "fails"])
def test_another_model_that_answers_leaves_nothing(loop: Any, stream: bool, answer: bool) -> None:
    extra = limits() + UNPROBED + '[[models]]\nname = "m"\nfallbacks = ["spare"]\n'
    second = always(taped(OPENAI, stream=stream)) if answer else reset_at_once
    run(loop, ask, OPENAI, reset_at_once, second, stream=stream, extra=extra, serves={"gpu-1": "spare"})


@LOOPS
@BOTH
@pytest.mark.parametrize("share", [("canary", ""), ("shadow", ", at_once = 1")], ids=lambda one: one[0])
@pytest.mark.parametrize("answer", [True, False], ids=["ok", "fails"])
def test_a_canary_and_a_copy_leave_nothing(loop: Any, stream: bool, share: Any, answer: bool) -> None:
    kind, more = share
    extra = limits() + UNPROBED + f'[[models]]\nname = "m"\n{kind} = {{ model = "new", share = 1.0{more} }}\n'
    good = always(taped(OPENAI, stream=stream))

    async def settled(scene: Scene) -> None:
        await scene.ask()
        await wait_until(lambda: not len(scene.here.gateway.shadow))

    second = good if answer else reset_at_once
    run(loop, settled, OPENAI, good, second, stream=stream, extra=extra, serves={"gpu-1": "new"})


@LOOPS
@pytest.mark.parametrize("answer", [True, False], ids=["ok", "fails"])
def test_several_choices_leave_nothing(loop: Any, answer: bool) -> None:
    script = always(taped(CHATGLM3, stream=False)) if answer else reset_at_once
    extra = limits() + UNPROBED + '[[models]]\nname = "m"\nmax_n = 4\n'
    run(loop, ask, CHATGLM3, script, stream=False, extra=extra, slots=2, fields={"n": 3})


@ONE_LOOP
@BOTH
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_leaving_the_queue_leaves_nothing(loop: Any, stream: bool, server: Server) -> None:
    run(loop, leave_queue, server, stay_silent, stream=stream, occupied=True, slots=1)


@LOOPS
@pytest.mark.parametrize("kept", ["", "events = true\n"], ids=["comments", "events"])
def test_leaving_the_queue_after_news_leaves_nothing(loop: Any, kept: str) -> None:
    async def leave(scene: Scene) -> None:
        visitor = await Visitor.to(scene.here, scene.body)
        await visitor.reader.readuntil(b"\r\n\r\n")
        await visitor.leave()

    extra = "[queue]\nkeepalive = 1\n" + kept + limits() + UNPROBED
    run(loop, leave, OPENAI, stay_silent, stream=True, occupied=True, slots=1, extra=extra, head_wait=0.01)


@LOOPS
@BOTH
@pytest.mark.parametrize("queue", ["timeout = 0.3", "length = 0"], ids=["timeout", "full"])
def test_what_the_queue_refuses_leaves_nothing(loop: Any, stream: bool, queue: str) -> None:
    extra = f"[queue]\n{queue}\n" + limits() + UNPROBED
    run(loop, ask, OPENAI, stay_silent, stream=stream, occupied=True, slots=1, extra=extra)


@ONE_LOOP
@BOTH
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_leaving_before_the_first_token_leaves_nothing(loop: Any, stream: bool, server: Server) -> None:
    async def once(talk: Talk) -> None:
        if (await talk.wait_request()).startswith(b"GET "):  # a probe that tells the card is free
            await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await asyncio.wait_for(talk.wait_left(), HASTE) if stream else await asyncio.sleep(HASTE)

    haste = limits(first_token=HASTE, total=1) + UNPROBED
    run(loop, leave_backend, server, _forgiving(once), stream=stream, extra=haste)


def _forgiving(script: Script) -> Script:
    async def tried(talk: Talk) -> None:
        with contextlib.suppress(TimeoutError):
            await script(talk)

    return tried


@ONE_LOOP
@pytest.mark.parametrize("server", STREAMING, ids=lambda server: server.id)
def test_leaving_a_stream_leaves_nothing(loop: Any, server: Server) -> None:
    async def leave(scene: Scene) -> None:
        visitor = await Visitor.to(scene.here, scene.body)
        await visitor.reader.readuntil(b'"content"')
        await visitor.leave()
        await wait_until(lambda: scene.busy == 0)

    async def slow(talk: Talk) -> None:
        await asyncio.sleep(HASTE)

    script = always(taped(server, stream=True, part=0.6), slow)
    run(loop, leave, server, script, stream=True)


@LOOPS
@BOTH
@pytest.mark.parametrize("queued", [True, False], ids=["queued", "served"])
def test_a_shutdown_leaves_nothing(loop: Any, stream: bool, queued: bool) -> None:
    async def end(scene: Scene) -> None:
        visitor = await Visitor.to(scene.here, scene.body)
        if not queued:
            await wait_until(lambda: scene.busy == scene.visitors == 1)
            scene.here.gateway.lifecycle.end()
        elif not ended:  # the second time it is refused at once
            await wait_until(lambda: scene.waiting == 1)
            scene.here.gateway.dispatcher.drain()
        ended.append(scene)
        await visitor.wait_answer()

    ended: list[Scene] = []
    run(loop, end, OPENAI, stay_silent, stream=stream, occupied=queued, slots=1)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@LOOPS
@pytest.mark.parametrize(
    ("raw", "answered"),
    [
        (b"", False),
        (b"\x16\x03\r\n\r\n", True),
        (HEAD + b"Host: y\r\n\r\n", True),
        (HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000, False),
        (HEAD + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 500_000, True),
        (HEAD + b"Content-Length: 300000\r\n\r\n" + b"[" * 300_000, True),
        (HEAD + b"Content-Length: 300000\r\n\r\n" + b'"' * 300_000, True),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx", True),
        (HEAD + b"Expect: more\r\nContent-Length: 5\r\n\r\nxxxxx", True),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b'"' * 300_000, True),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b'"' * 300_000, True),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3, True),
        (b"PUT /livez HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
    ids=[
        "silent", "tls", "two-hosts", "half-a-body", "too-large", "deep", "no-json", "gzip", "expectation",
        "no-path", "native", "pipelined", "method",
    ],
)  # fmt: skip
def test_what_is_refused_at_the_door_leaves_nothing(loop: Any, raw: bytes, answered: bool) -> None:
    run(loop, lambda scene: scene.send(raw, answered=answered), OPENAI, stay_silent, stream=False)


@LOOPS
@pytest.mark.parametrize(
    "fields", [{"temperature": 99}, {"messages": []}, {"n": 50}, {"model": "none"}], ids=json.dumps
)
def test_what_cannot_be_honoured_leaves_nothing(loop: Any, fields: Any) -> None:
    run(loop, ask, OPENAI, playing(), stream=False, fields={"padding": TEXT} | fields)
