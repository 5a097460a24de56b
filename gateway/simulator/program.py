"""What all simulated server programs share: routes, FastAPI's 404 and 405, CORS, and who blocks the loop."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from gateway.simulator.exchange import (
    Headers,
    ModelError,
    RefusedError,
    Reply,
    Request,
    Stream,
    detail,
    json_reply,
    server_error,
)
from gateway.simulator.loop_lock import LoopLock
from gateway.simulator.pacing import PacedSpeaker

Handler = Callable[[Request], Awaitable[Reply | Stream]]


class Program:
    """One server program. A dialect is a subclass: its routes, its model's name, its ways.

    One per simulated server. `blocking` = it generates inside its event loop; nobody else is served then.
    """

    blocking: ClassVar[bool] = True
    cors: ClassVar[bool] = False
    generating: ClassVar[frozenset[str]] = frozenset({"/v1/chat/completions"})
    """The paths whose POST makes the model work."""

    def __init__(self, voice: PacedSpeaker) -> None:
        self.voice = voice
        self.gate = LoopLock(blocking=self.blocking)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """The program's endpoints, by (path, method)."""
        raise NotImplementedError

    def generates(self, method: str, path: str) -> bool:
        """Whether such a request makes the model work."""
        return method == "POST" and path in self.generating

    async def answer(self, request: Request) -> Reply | Stream:
        """Serve one request, as the program would: whatever goes wrong inside is its plain 500.

        A handler that meets what its original would choke on (an absent key, a wrong type, a half that is not
        there) lets the exception fly, as the original does. The loop is its own until it returns; what a
        stream does afterwards is the stream's affair.
        """
        async with self.gate.hold():
            return await self._handle(request)

    async def _handle(self, request: Request) -> Reply | Stream:
        if self.cors and _is_preflight(request):
            return _preflight(request.headers)
        handler = self.routes().get((request.path, request.method))
        if handler is None:
            return self._unrouted(request)
        try:
            return await handler(request)
        except RefusedError as refused:
            return refused.reply
        except (ModelError, ValueError, TypeError, KeyError, AttributeError, IndexError):
            return server_error()

    def headers(self, request: Request) -> Headers:
        """What the program's middleware adds to every reply."""
        if self.cors and "origin" in request.headers and not _is_preflight(request):
            return (("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true"))
        return ()

    def refusal(self, status: int, phrase: str) -> Reply:
        """The program's error body for a status it was made to give."""
        return server_error() if status == 500 else detail(status, phrase)

    def _unrouted(self, request: Request) -> Reply:
        if (request.path, request.method) == ("/openapi.json", "GET"):
            return json_reply(self.schema())
        methods = sorted(method for path, method in self.routes() if path == request.path)
        if methods:
            return detail(405, "Method Not Allowed", (("allow", ", ".join(methods)),))
        return detail(404, "Not Found")

    def schema(self) -> Mapping[str, object]:
        """The OpenAPI page: the only cheap 200 that the oldest servers have."""
        described = {
            "200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}
        }
        paths: dict[str, dict[str, object]] = {}
        for (path, method), handler in self.routes().items():
            name = getattr(handler, "__name__", "endpoint")
            slug = "".join(char if char.isalnum() else "_" for char in path)
            paths.setdefault(path, {})[method.lower()] = {
                "summary": name.replace("_", " ").title(),
                "operationId": f"{name}{slug}_{method.lower()}",
                "responses": described,
            }
        return {"openapi": "3.1.0", "info": {"title": "FastAPI", "version": "0.1.0"}, "paths": paths}


def now() -> int:
    """The `created` of a reply."""
    return int(time.time())


def _is_preflight(request: Request) -> bool:
    return request.method == "OPTIONS" and "access-control-request-method" in request.headers


def _preflight(headers: Mapping[str, str]) -> Reply:
    return Reply(
        200,
        b"OK",
        "text/plain; charset=utf-8",
        (
            ("vary", "Origin"),
            ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
            ("access-control-max-age", "600"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-origin", headers.get("origin", "*")),
            ("access-control-allow-headers", headers.get("access-control-request-headers", "*")),
        ),
    )
