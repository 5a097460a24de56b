"""The middleware of both planes: opens the `RequestContext`, writes errors, settles the receipt."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import responses
from gateway.api.browsers import BrowserRules
from gateway.api.client_guard import ClientChannel, ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.api.request_context import RequestContext, gateway_lines, note_error
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
from gateway.formats.headers import CONTINUE, Pairs, members, pairs
from gateway.telemetry.receipt import Hook, Receipt

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Untried(Exception):
    """A valid key from a client address that has sent wrong keys lately and has not used this key before.

    The middleware waits `delay` seconds, calls `accept`, and serves the request. Without the delay, a valid
    key could be told from a wrong one by the time of its response.
    """

    def __init__(self, delay: float, accept: Callable[[], None]) -> None:
        super().__init__()
        self.delay = delay
        self.accept = accept


class CrashLog(Protocol):
    """Logs exceptions that are bugs of the gateway."""

    def crash(self, request_id: str, error: Exception) -> None:
        """Log an unexpected exception with its traceback."""


class RequestMiddleware:
    """Plain ASGI middleware: opens the `RequestContext` of each request and always settles its receipt."""

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
        """Serve one request; pass other kinds of scope on unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client: ClientChannel = scope["exchange"]
        client.context = context = self._open(scope, client, send)
        try:
            if b"expect" in context.headers:
                _require_expectation(scope["headers"])
            if scope["method"] == "OPTIONS" and self._browsers is not None:
                await self._answer_preflight(self._browsers, context, scope, receive)
            else:
                trial = None
                try:
                    await self._app(scope, receive, context.send)
                except Untried as untried:
                    trial = untried.delay, untried.accept
                if trial is not None:
                    await self._wait_trial(*trial, context)
                    await self._app(scope, receive, context.send)
        except ClientGone as error:
            self._note_client_gone(context, error)
            forget_trace(error)
        except GatewayError as error:
            if isinstance(error, Unauthorized) and error.delay:
                with (
                    contextlib.suppress(ClientGone, Draining),
                    ClientGuard(context.client, self._lifecycle),
                ):
                    await asyncio.sleep(error.delay)
            await self._refuse(context, error)
            forget_trace(error)
        except MemoryError as error:
            forget_trace(error)  # its frames refer to the request
            await self._refuse(context, NoMemory("The gateway is out of memory. Try again.", retry_after=1))
        except Exception as error:  # noqa: BLE001 - a bug: logged with its traceback, answered with 500
            self._crash_log.crash(context.receipt.request_id, error)
            await self._refuse(context, InternalError("The gateway failed. Its log knows more."))
            forget_trace(error)
        finally:
            client.context = None  # the context refers to the client: together they would be a cycle
            context.receipt.finished = self._clock()
            if context.memory is not None:
                context.memory.give(context.held)
            if not context.quiet:
                self._hook.settled(context.receipt)

    async def _answer_preflight(
        self, rules: BrowserRules, context: RequestContext, scope: Scope, receive: Receive
    ) -> None:
        """Answer a CORS preflight, which needs no key; pass other OPTIONS requests on."""
        leave = rules.preflight(scope["method"], context.headers)
        if leave is None:
            await self._app(scope, receive, context.send)
            return
        context.quiet = True
        await context.send({"type": "http.response.start", "status": 204, "headers": leave})
        await context.send({"type": "http.response.body", "body": b""})

    async def _wait_trial(self, delay: float, accept: Callable[[], None], context: RequestContext) -> None:
        with ClientGuard(context.client, self._lifecycle):
            await asyncio.sleep(delay)
        accept()

    def _open(self, scope: Scope, client: ClientChannel, send: Send) -> RequestContext:
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
        return RequestContext(receipt, headers, client, self._lifecycle, self._clock, send, cors)

    def _note_client_gone(self, context: RequestContext, error: ClientGone) -> None:
        """Record that the client left, or why the connection itself refused the rest of the request."""
        fault = context.client.fault
        if fault is None:
            context.receipt.left_while = context.receipt.phase
        note_error(context.receipt, fault or error)

    async def _refuse(self, context: RequestContext, error: GatewayError) -> None:
        note_error(context.receipt, error)
        if not context.began:
            extra = pairs(gateway_lines(context.receipt))
            await responses.send_error(context.send, error, context.error_body(error), extra)


def _require_expectation(headers: Pairs) -> None:
    if any(set(members(value)) - {CONTINUE} for name, value in headers if name == b"expect"):
        raise ExpectationFailed("Only `Expect: 100-continue` is understood.")
