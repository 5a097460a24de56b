"""Fake model servers without sockets: a transport under the gateway that plays prepared replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

from tests.support.memory import MemoryTransport

Reply: TypeAlias = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
"""Answers one request, or raises what httpx would."""


@dataclass
class Asked:
    """One request as a server got it."""

    server: str
    method: str
    path: str
    body: Any


@dataclass
class Servers:
    """The servers by host name. Each plays its replies in turn, the last of them for ever."""

    replies: dict[str, Sequence[Reply]]
    asked: list[Asked] = field(default_factory=list)

    def __init__(self, **replies: Reply | Sequence[Reply]) -> None:
        self.replies = {name: [one] if callable(one) else list(one) for name, one in replies.items()}
        self.asked = []

    @property
    def transport(self) -> MemoryTransport:
        """What the gateway gets in place of real connections."""
        return MemoryTransport(self._answer, self._refusal)

    async def _refusal(self, server: str, probe: bool) -> Exception | None:
        """What opening a connection raises, where the reply that is next says so."""
        reply = probed if probe else self._next(server)
        error: Exception | None = getattr(reply, "refusal", None)
        if error is not None and not probe:
            self.asked.append(Asked(server, "POST", "", None))
            until: asyncio.Event | None = getattr(reply, "until", None)
            if until is not None:
                await until.wait()
        return error

    def _next(self, server: str) -> Reply:
        before = sum(asked.server == server and asked.method == "POST" for asked in self.asked)
        replies = self.replies[server]
        return replies[min(before, len(replies) - 1)]

    @property
    def order(self) -> list[str]:
        """Who was asked for a generation, in order."""
        return [asked.server for asked in self.asked if asked.method == "POST"]

    def urls(self, dialect: str | dict[str, str]) -> dict[str, tuple[str, str]]:
        """The servers as `tests.support.stack.configured` takes them."""
        dialects = dict.fromkeys(self.replies, dialect) if isinstance(dialect, str) else dialect
        return {name: (f"http://{name}:80", dialects[name]) for name in self.replies}

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        server = request.url.host
        body = json.loads(request.content) if request.content else None
        reply = self._next(server)
        self.asked.append(Asked(server, request.method, request.url.path, body))
        if request.method == "GET":  # a probe sees what a POST at this moment would, without using it up
            reply = probed
        response = await reply(request)
        if getattr(self._next(server), "refusal", None) is not None:  # the next needs a connection of its own
            response.headers["connection"] = "close"
        return response


async def probed(request: httpx.Request) -> httpx.Response:
    """The reply to a probe."""
    return httpx.Response(200, json={}, request=request)


# --- replies ---------------------------------------------------------------------------------------


def native(text: str = "hello") -> Reply:
    """A whole answer of the `POST /` servers."""
    return answering({"response": text, "history": [], "status": 200, "time": "2023-01-01 00:00:00"})


def whole(text: str = "hello", *, usage: tuple[int, int] | None = (3, 2), count: int = 1) -> Reply:
    """A whole answer of an OpenAI-like server, with `count` equal choices."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": index, "message": message, "finish_reason": "stop"} for index in range(count)]
    body: dict[str, Any] = {"object": "chat.completion", "choices": choices}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return answering(body)


def answering(body: Any, status: int = 200, **headers: str) -> Reply:
    """Any JSON answer; names of headers have `_` for `-`."""
    return refusing(status, json.dumps(body).encode(), **headers)


def refusing(status: int, body: bytes = b"secret words of the server", **headers: str) -> Reply:
    """Any answer at once."""

    async def reply(request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = httpx.Response(status, content=body, request=request)
        response.headers.update(named)  # not before: httpx would decode the body
        return response

    return reply


def failing(error: type[httpx.TransportError], cause: OSError | None = None) -> Reply:
    """No answer: what httpx raises instead; a `ConnectError` as for a port where nobody listens.

    `cause` is what opening a connection raises instead.
    """

    async def reply(request: httpx.Request) -> httpx.Response:
        raise error("no answer", request=request)

    refusals: dict[type[httpx.TransportError], OSError] = {
        httpx.ConnectError: ConnectionRefusedError(),
        httpx.ConnectTimeout: TimeoutError(),
    }
    vars(reply)["refusal"] = cause or refusals.get(error)
    return reply


def streaming(
    *chunks: bytes, error: Exception | None = None, until: asyncio.Event | None = None, at: int = 0
) -> Reply:
    """An event stream of these bytes; it pauses before chunk `at` for `until`, and ends with `error`."""

    async def body() -> AsyncIterator[bytes]:
        for place, chunk in enumerate(chunks):
            if until is not None and place == at:
                await until.wait()
            yield chunk
        if until is not None and at >= len(chunks):
            await until.wait()
        if error is not None:
            raise error

    async def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, content=body(), headers={"content-type": "text/event-stream"}, request=request
        )

    return reply


def held(until: asyncio.Event, reply: Reply) -> Reply:
    """The reply, but not before the event."""

    async def wait(request: httpx.Request) -> httpx.Response:
        await until.wait()
        return await reply(request)

    vars(wait).update(refusal=getattr(reply, "refusal", None), until=until)
    return wait


def chunk(text: str | None = None, *, finish: str | None = None, role: bool = False, **more: Any) -> bytes:
    """One chunk of an OpenAI-like stream."""
    delta: dict[str, Any] = ({"role": "assistant"} if role else {}) | ({"content": text} if text else {})
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def talk(*texts: str) -> tuple[bytes, ...]:
    """A good OpenAI-like stream of these pieces."""
    return chunk("", role=True), *map(chunk, texts), chunk(finish="stop"), DONE
