"""`RequestContext`: everything about one HTTP request that its door and the code around it share.

The gateway adds one entry to an ASGI scope, `exchange`: the connection's view of the request, which is a
`ClientChannel` here (`http1/exchange.py`). `RequestMiddleware` stores the `RequestContext` on it, and
`request_context` returns it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast, get_args

from starlette.types import Message, Scope, Send

from gateway.api import responses
from gateway.api.client_guard import ClientChannel
from gateway.api.lifecycle import Lifecycle
from gateway.errors import Draining, GatewayError
from gateway.formats.events import UsageSource
from gateway.formats.headers import Lines, pairs
from gateway.telemetry.receipt import Receipt

_JSON = b"content-type: application/json"
_NO_STORE = b"cache-control: no-store"
_NOSNIFF = b"x-content-type-options: nosniff"
_VERSION = b"openai-version: 2020-10-01"
_CLOSE = (b"connection", b"close")
_FIRST_ATTEMPT = b"x-gateway-attempts: 1"
_NOT_QUEUED = b"x-gateway-queue-ms: 0"
_USAGE_SOURCES: Mapping[UsageSource, bytes] = {
    source: b"x-gateway-usage: " + source.encode() for source in get_args(UsageSource)
}


class MemoryAccount(Protocol):
    """Counts the memory that requests hold."""

    def give(self, size: int) -> None:
        """Return `size` bytes to the budget."""


class RequestContext:
    """One HTTP request from its head to its receipt. Used by the task of the request alone.

    Attributes:
        receipt: the record of the request.
        headers: the request's headers by lower-case name; the first value of a repeated header.
        client: the channel to the client.
        error_body: writes an error in the format of the door's API. OpenAI's format unless the door sets it.
        quiet: True for requests without a receipt, such as probes. Set by the door.
        began: True once the head of the response has been handed to the connection.
        held: bytes taken from `memory`; the middleware returns them when the request ends.
        memory: the memory budget; None until bytes have been taken.
    """

    __slots__ = (
        "_cors", "_lifecycle", "_now", "_send", "began", "client", "error_body", "headers", "held", "memory",
        "quiet", "receipt",
    )  # fmt: skip

    def __init__(
        self,
        receipt: Receipt,
        headers: Mapping[bytes, bytes],
        client: ClientChannel,
        lifecycle: Lifecycle,
        now: Callable[[], float],
        send: Send,
        cors: Lines,
    ) -> None:
        self.receipt = receipt
        self.headers = headers
        self.client = client
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
        """Send an ASGI message; the standard headers are added to the head of the response."""
        if message["type"] == "http.response.start":
            self._add_headers(message)
        return self._send(message)

    def answer(self, body: bytes) -> Awaitable[None]:
        """Send a complete JSON response with status 200 and the gateway's headers."""
        lines = [_JSON, *gateway_lines(self.receipt), *self._begin(200), _NO_STORE]
        if self._lifecycle.leaving:
            return responses.send_whole(self._send, 200, body, [*pairs(lines), _CLOSE])
        return self.client.answer(lines, body)

    def _add_headers(self, message: Message) -> None:
        given = message.get("headers", ())
        lines = self._begin(message["status"])
        if b"cache-control" not in dict(given):
            lines.append(_NO_STORE)
        message["headers"] = headers = [*given, *pairs(lines)]
        if self._lifecycle.leaving:
            headers.append(_CLOSE)

    def _begin(self, status: int) -> Lines:
        """Record that the response begins with `status`; return the headers that every response has."""
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


def request_context(scope: Scope) -> RequestContext:
    """Return the context of a request. Inside `RequestMiddleware` only."""
    return cast("RequestContext", scope["exchange"].context)


def note_error(receipt: Receipt, error: GatewayError) -> None:
    """Record on the receipt how the request failed. A status that was already sent is kept."""
    receipt.outcome = "shutdown" if isinstance(error, Draining) else error.row.outcome
    receipt.error = error.code or ""
    if receipt.status == 0:
        receipt.status = error.row.status


def gateway_lines(receipt: Receipt, *, counted: bool = True) -> Lines:
    """Return the `x-gateway-*` headers known so far, as `name: value` lines.

    They name the backend, the number of attempts, the time in the queue in milliseconds, and the parameters
    that were not sent on; with `counted` also the source of the token counts, which is known only once the
    answer is complete.
    """
    lines: Lines = []
    if receipt.backend:
        lines += (b"x-gateway-backend: " + receipt.backend.encode(), _FIRST_ATTEMPT, _NOT_QUEUED)
        if receipt.retries or len(receipt.attempts) > 1:
            lines[1] = b"x-gateway-attempts: %d" % max(len(receipt.attempts), len(receipt.retries) + 1)
        if receipt.queue_seconds:
            lines[2] = b"x-gateway-queue-ms: %d" % (receipt.queue_seconds * 1000)
    if receipt.ignored:
        lines.append(b"x-gateway-ignored: " + ",".join(receipt.ignored).encode())
    if counted and receipt.usage is not None:
        lines.append(_USAGE_SOURCES[receipt.usage.source])
    return lines
