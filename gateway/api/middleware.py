"""Around every request of a plane: its id and standing headers, its receipt, and errors nobody caught."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, get_args

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import responses
from gateway.api.browsers import BrowserRules
from gateway.api.client_guard import ClientChannel, ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.errors import (
    ClientGone,
    Draining,
    ExpectationFailed,
    GatewayError,
    InternalError,
    NoMemory,
    Unauthorized,
    forget_trace,
)
from gateway.formats.events import UsageSource
from gateway.formats.headers import CONTINUE, Lines, Pairs, members, pairs
from gateway.telemetry.receipt import Hook, Receipt

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_JSON = b"content-type: application/json"
_NO_STORE = b"cache-control: no-store"
_NOSNIFF = b"x-content-type-options: nosniff"
_VERSION = b"openai-version: 2020-10-01"
_CLOSE = (b"connection", b"close")
_FIRST_TRY = b"x-gateway-attempts: 1"
_AT_ONCE = b"x-gateway-queue-ms: 0"
_COUNTED: Mapping[UsageSource, bytes] = {
    source: b"x-gateway-usage: " + source.encode() for source in get_args(UsageSource)
}


class Untried(Exception):
    """A good key that its address has not used before, while wrong ones come from there.

    After `delay` seconds `accept` lets it in, and the same application serves the request.
    """

    def __init__(self, delay: float, accept: Callable[[], None]) -> None:
        super().__init__()
        self.delay = delay
        self.accept = accept


class CrashLog(Protocol):
    """Who is told of our own bugs."""

    def crash(self, request_id: str, error: Exception) -> None:
        """Take note of an exception that should not have been."""


class MemoryAccount(Protocol):
    """Where the memory of requests is counted."""

    def give(self, size: int) -> None:
        """Take bytes back."""


class RequestContext:
    """One request on its way through the doors. Lies in the scope as `visit`.

    `headers` are the request's, the first of each name; `error_body` writes an error as the door's clients
    read it; a `quiet` visit is not accounted for; `began` tells that the answer has; `held` bytes are given
    back to `memory` at its end.
    """

    __slots__ = (
        "_cors", "_lifecycle", "_now", "_send", "began", "error_body", "headers", "held", "memory", "quiet",
        "receipt",
    )  # fmt: skip

    def __init__(
        self,
        receipt: Receipt,
        headers: Mapping[bytes, bytes],
        lifecycle: Lifecycle,
        now: Callable[[], float],
        send: Send,
        cors: Lines,
    ) -> None:
        self.receipt = receipt
        self.headers = headers
        self.error_body: Callable[[GatewayError], bytes] = responses.error_body
        self.quiet = False
        self.began = False
        self.held = 0
        self.memory: MemoryAccount | None = None
        self._lifecycle = lifecycle
        self._now = now
        self._send = send
        self._cors = cors

    def send(self, message: Message) -> Awaitable[None]:
        """What the doors send with: adds the standing headers."""
        if message["type"] == "http.response.start":
            self._dress(message)
        return self._send(message)

    def answer(self, client: ClientChannel, body: bytes) -> Awaitable[None]:
        """Send a whole answer of status 200, with all that is known of its way."""
        said = [_JSON, *gateway_lines(self.receipt), *self._begin(200), _NO_STORE]
        if self._lifecycle.leaving:
            return responses.send_whole(self._send, 200, body, [*pairs(said), _CLOSE])
        return client.answer(said, body)

    def _dress(self, message: Message) -> None:
        given = message.get("headers", ())
        said = self._begin(message["status"])
        if b"cache-control" not in dict(given):
            said.append(_NO_STORE)
        message["headers"] = headers = [*given, *pairs(said)]
        if self._lifecycle.leaving:
            headers.append(_CLOSE)

    def _begin(self, status: int) -> Lines:
        """Note that the answer begins, and how; give the headers that every answer has."""
        self.began = True
        receipt = self.receipt
        receipt.status = status
        if receipt.outcome == "internal":
            receipt.outcome = "ok" if status < 400 else "client_error" if status < 500 else "internal"
        return [
            b"x-request-id: " + receipt.request_id.encode(),
            _NOSNIFF,
            _VERSION,
            b"openai-processing-ms: %d" % ((self._now() - receipt.received) * 1000),
            *self._cors,
        ]


class RequestMiddleware:
    """Plain ASGI middleware: opens a `RequestContext` and settles it, whatever happens."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hook: Hook,
        crash_log: CrashLog,
        clock: Callable[[], float],
        new_id: Callable[[str], str],
        lifecycle: Lifecycle,
        browsers: BrowserRules | None = None,
    ) -> None:
        self._app = app
        self._hook = hook
        self._crash_log = crash_log
        self._clock = clock
        self._new_id = new_id
        self._lifecycle = lifecycle
        self._browsers = browsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of scope pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = scope["visit"] = self._open(scope, send)
        try:
            if b"expect" in context.headers:
                _require_expectation(scope["headers"])
            if scope["method"] == "OPTIONS" and self._browsers is not None:
                await self._ask_leave(self._browsers, context, scope, receive)
            else:
                trial = None
                try:
                    await self._app(scope, receive, context.send)
                except Untried as untried:
                    trial = untried.delay, untried.accept
                if trial is not None:
                    await self._wait_trial(*trial, scope)
                    await self._app(scope, receive, context.send)
        except ClientGone as error:
            self._note_leaving(context, scope["presence"], error)
            forget_trace(error)
        except GatewayError as error:
            if isinstance(error, Unauthorized) and error.delay:
                with (
                    contextlib.suppress(ClientGone, Draining),
                    ClientGuard(scope["presence"], self._lifecycle),
                ):
                    await asyncio.sleep(error.delay)
            await self._refuse(context, error)
            forget_trace(error)
        except MemoryError as error:
            forget_trace(error)  # its frames hold the request
            await self._refuse(context, NoMemory("The gateway is out of memory. Try again.", retry_after=1))
        except Exception as error:  # noqa: BLE001 - a bug of ours: told whole to the log, as 500 to the client
            self._crash_log.crash(context.receipt.request_id, error)
            await self._refuse(context, InternalError("The gateway failed. Its log knows more."))
            forget_trace(error)
        finally:
            context.receipt.finished = self._clock()
            if context.memory is not None:
                context.memory.give(context.held)
            if not context.quiet:
                self._hook.settled(context.receipt)

    async def _ask_leave(
        self, rules: BrowserRules, context: RequestContext, scope: Scope, receive: Receive
    ) -> None:
        """Answer a browser that asks whether a page may send a request; nobody needs a key to ask."""
        leave = rules.preflight(scope["method"], context.headers)
        if leave is None:
            await self._app(scope, receive, context.send)
            return
        context.quiet = True
        await context.send({"type": "http.response.start", "status": 204, "headers": leave})
        await context.send({"type": "http.response.body", "body": b""})

    async def _wait_trial(self, delay: float, accept: Callable[[], None], scope: Scope) -> None:
        with ClientGuard(scope["presence"], self._lifecycle):
            await asyncio.sleep(delay)
        accept()

    def _open(self, scope: Scope, send: Send) -> RequestContext:
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        given = headers.get(b"x-request-id")
        known = given is not None and _REQUEST_ID.fullmatch(given)
        receipt = Receipt(
            known[0].decode() if known else self._new_id("req_"),
            "other",
            self._clock(),
            scope["method"],
            scope["path"][:256],
        )
        rules = self._browsers
        cors = rules.lines(headers) if rules is not None and rules.on else []
        return RequestContext(receipt, headers, self._lifecycle, self._clock, send, cors)

    def _note_leaving(self, context: RequestContext, client: ClientChannel, error: ClientGone) -> None:
        """Some were sent away: the server has answered them, and left the reason as `fault`."""
        if client.fault is None:
            context.receipt.left_while = context.receipt.phase
        note_error(context.receipt, client.fault or error)

    async def _refuse(self, context: RequestContext, error: GatewayError) -> None:
        note_error(context.receipt, error)
        if not context.began:
            extra = pairs(gateway_lines(context.receipt))
            await responses.send_error(context.send, error, context.error_body(error), extra)


def _require_expectation(headers: Pairs) -> None:
    if any(set(members(value)) - {CONTINUE} for name, value in headers if name == b"expect"):
        raise ExpectationFailed("Only `Expect: 100-continue` is understood.")


def note_error(receipt: Receipt, error: GatewayError) -> None:
    """Write on the receipt how the request failed; a status that was sent stays the status."""
    receipt.outcome = "shutdown" if isinstance(error, Draining) else error.row.outcome
    receipt.error = error.code or ""
    if receipt.status == 0:
        receipt.status = error.row.status


def gateway_lines(receipt: Receipt, *, counted: bool = True) -> Lines:
    """What is known of the request's way so far: backend, tries, wait, losses, and if `counted` by whom."""
    lines: Lines = []
    if receipt.backend:
        lines += (b"x-gateway-backend: " + receipt.backend.encode(), _FIRST_TRY, _AT_ONCE)
        if receipt.retries or len(receipt.attempts) > 1:
            lines[1] = b"x-gateway-attempts: %d" % max(len(receipt.attempts), len(receipt.retries) + 1)
        if receipt.queue_seconds:
            lines[2] = b"x-gateway-queue-ms: %d" % (receipt.queue_seconds * 1000)
    if receipt.ignored:
        lines.append(b"x-gateway-ignored: " + ",".join(receipt.ignored).encode())
    if counted and receipt.usage is not None:
        lines.append(_COUNTED[receipt.usage.source])
    return lines
