"""Around every request of a plane: its id and standing headers, its receipt, and errors nobody caught."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import replies
from gateway.api.body import header
from gateway.errors import ClientGone, Draining, ExpectationFailed, GatewayError, InternalError
from gateway.telemetry.receipt import Hook, Receipt

OPENAI_VERSION = b"2020-10-01"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class CrashLog(Protocol):
    """Who is told of our own bugs."""

    def crash(self, request_id: str, error: Exception) -> None:
        """Take note of an exception that should not have been."""


@dataclass(slots=True)
class Visit:
    """One request on its way through the doors. Lies in the scope as `visit`.

    `error_body` writes an error as the door's clients read it; a `quiet` visit is not accounted for.
    """

    receipt: Receipt
    error_body: Callable[[GatewayError], bytes] = replies.error_body
    quiet: bool = False
    began: bool = False


class Reception:
    """Plain ASGI middleware: opens a `Visit` and settles it, whatever happens."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hook: Hook,
        crash_log: CrashLog,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._hook = hook
        self._crash_log = crash_log
        self._clock = clock
        self._new_id = new_id
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of scope pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = scope["visit"] = self._open(scope)
        try:
            await self._guarded(visit, scope, receive, self._sender(visit, send))
        finally:
            visit.receipt.finished = self._clock()
            if not visit.quiet:
                self._hook.settled(visit.receipt)

    def _open(self, scope: Scope) -> Visit:
        given = header(scope["headers"], b"x-request-id")
        request_id = given.decode() if given and _REQUEST_ID.fullmatch(given) else self._new_id()
        return Visit(
            Receipt(request_id, "other", self._clock(), method=scope["method"], path=scope["path"][:256])
        )

    async def _guarded(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._require_expectation(scope)
            await self._app(scope, receive, send)
        except ClientGone as error:
            self._note_leaving(visit, scope.get("fault"), error)
        except GatewayError as error:
            await self._refuse(visit, error, send)
        except Exception as error:  # noqa: BLE001 - a bug of ours: told whole to the log, as 500 to the client
            self._crash_log.crash(visit.receipt.request_id, error)
            await self._refuse(visit, InternalError("The gateway failed. Its log knows more."), send)

    def _note_leaving(self, visit: Visit, fault: GatewayError | None, error: ClientGone) -> None:
        """Some were sent away: the server has answered them, and left the reason in the scope as `fault`."""
        if fault is None:
            visit.receipt.left_while = visit.receipt.phase
        note_error(visit.receipt, fault or error)

    async def _refuse(self, visit: Visit, error: GatewayError, send: Send) -> None:
        note_error(visit.receipt, error)
        if not visit.began:
            extra = gateway_headers(visit.receipt)
            await replies.send_error(send, error, visit.error_body(error), extra)

    def _require_expectation(self, scope: Scope) -> None:
        expect = header(scope["headers"], b"expect")
        if expect is not None and expect.strip().lower() != b"100-continue":
            raise ExpectationFailed("Only `Expect: 100-continue` is understood.")

    def _sender(self, visit: Visit, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(visit, message)
            await send(message)

        return send_with_headers

    def _dress(self, visit: Visit, message: Message) -> None:
        receipt = visit.receipt
        visit.began = True
        receipt.status = message["status"]
        if receipt.outcome == "internal":
            receipt.outcome = _outcome_of(message["status"])
        headers = message["headers"] = list(message.get("headers", ()))
        names = {name for name, _ in headers}
        if b"cache-control" not in names:
            headers.append((b"cache-control", b"no-store"))
        if self._draining():
            headers.append((b"connection", b"close"))
        elapsed = str(int((self._clock() - receipt.received) * 1000)).encode()
        headers += [
            (b"x-request-id", receipt.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"openai-version", OPENAI_VERSION),
            (b"openai-processing-ms", elapsed),
        ]


def note_error(receipt: Receipt, error: GatewayError) -> None:
    """Write on the receipt how the request failed; a status that was sent stays the status."""
    receipt.outcome = "shutdown" if isinstance(error, Draining) else error.row.outcome
    receipt.error = error.code or ""
    if receipt.status == 0:
        receipt.status = error.row.status


def gateway_headers(receipt: Receipt, *, counted: bool = True) -> replies.Pairs:
    """What is known of the request's way so far: backend, tries, wait, losses, and if `counted` by whom."""
    headers: replies.Pairs = []
    if receipt.backend:
        headers.append((b"x-gateway-backend", receipt.backend.encode()))
        attempts = max(1, len(receipt.attempts), len(receipt.retries) + 1)
        headers.append((b"x-gateway-attempts", str(attempts).encode()))
        headers.append((b"x-gateway-queue-ms", str(int(receipt.queue_seconds * 1000)).encode()))
    if receipt.ignored:
        headers.append((b"x-gateway-ignored", ",".join(receipt.ignored).encode()))
    if counted and receipt.usage is not None:
        headers.append((b"x-gateway-usage", receipt.usage.source.encode()))
    return headers


def _outcome_of(status: int) -> str:
    if status < 400:
        return "ok"
    return "client_error" if status < 500 else "internal"
