"""What can go wrong with a request: one exception tree, one table.

    GatewayError
    ├── BadRequest                  the client's body or a value in it
    │   ├── UnsupportedParameter    understood, but this backend cannot honour it
    │   ├── UpstreamRejected        a backend's own refusal of the request, in our words
    │   │   └── UpstreamTooLarge    the same for its size
    │   └── ContextExceeded         prompt and answer do not fit the model's context
    ├── Unauthorized                no key, or one we do not know
    ├── HostNotAllowed, OriginNotAllowed    what web pages may not do
    ├── ModelNotAllowed             the key may not use this model
    ├── ModelNotFound
    ├── NotFound, MethodNotAllowed  path and method
    ├── BodyTooLarge, UnsupportedMediaType, ExpectationFailed
    ├── RequestTimeout, TargetTooLong, HeadersTooLarge, UnsupportedTransferCoding
    ├── Unavailable                 not now; carries Retry-After
    │   ├── QueueFull, QueueTimeout, NoBackend, Draining, UpstreamBusy, TooManyConnections, NoMemory
    │   ├── OutOfDescriptors        our own system has none left, or no port
    │   └── ConnectFailed           the backend did not take the connection
    ├── UpstreamError               the backend failed
    │   ├── UpstreamMisconfigured   it refused the gateway: key, account
    │   │   └── UpstreamNotFound    nothing at the path that is asked: dialect, url or name is wrong
    │   ├── UpstreamReset           the connection ended before the head of an answer
    │   ├── UpstreamTruncated       the answer broke off
    │   ├── UpstreamGarbled         the answer is not what its dialect promises
    │   ├── UpstreamEmpty           200 without an answer, not even one that is said to be complete
    │   └── UpstreamTLS
    ├── StructuredOutputFailed, ToolCallFailed    the model's answer is not what was asked for
    ├── UpstreamTimeout             FirstTokenTimeout, StallTimeout, TotalTimeout
    ├── InternalError               our bug
    └── ClientGone                  nobody is left to answer; blames nobody

Everything that a handler, log or metric wants to know of an error stands in its row of `TABLE`;
messages never hold a backend's body, a prompt or a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class GatewayError(Exception):
    """A failure with a place in `TABLE`.

    `message` tells the client what is wrong and how to correct it; `param` names the field of the
    request body; `retry_after` is in seconds; `code` overrides the table's. `no_tool_streams` tells that a
    backend refused a request because it does not stream where tools are offered.
    """

    no_tool_streams: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self._code = code
        self.retry_after = retry_after

    @property
    def row(self) -> Row:
        """The table's row for this kind of error."""
        return TABLE[type(self)]

    @property
    def code(self) -> str | None:
        """The machine-readable word of the error envelope, or None."""
        return self._code or self.row.code


def forget_trace(error: BaseException) -> None:
    """Drop the traceback of an error that has been handled, and of those that led to it.

    A traceback holds every frame that the error passed, and often one of them holds the error: a reference
    cycle, which keeps a whole request in memory until the garbage collector finds it.
    """
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None:
            left += (one.__cause__, one.__context__)
            one.__traceback__ = one.__cause__ = one.__context__ = None


class BadRequest(GatewayError):
    """The body, or a value in it, is not what the API takes."""


class UnsupportedParameter(BadRequest):
    """A parameter that is understood but cannot be honoured by this model's backends."""


class ContextExceeded(BadRequest):
    """Prompt and answer do not fit into the model's context."""

    @classmethod
    def told(
        cls, context: int | None = None, tokens: int | None = None, *, estimated: bool = False
    ) -> ContextExceeded:
        """The error in the words by which clients know it.

        `context` is the most tokens the model takes, `tokens` what the messages need; either may be unknown,
        and `estimated` tells that the second is no exact count.
        """
        length = f"{context} tokens" if context else "shorter than the messages and the answer asked for"
        needed = ""
        if tokens and (context is None or tokens >= context or estimated):
            needed = f" However, your messages resulted in {tokens} tokens"
            needed += ", as the gateway estimates." if estimated else "."
        return cls(
            f"This model's maximum context length is {length}.{needed} The prompt is too long. "
            "Please reduce the length of the messages (context_length_exceeded).",
            param="messages",
        )


class UpstreamRejected(BadRequest):
    """A backend refused the request itself: the request is at fault, not the backend."""


class UpstreamTooLarge(UpstreamRejected):
    """A backend refused the request as too large for its server."""


class Unauthorized(GatewayError):
    """No key or a wrong one; one message for every cause.

    `reason` (`missing`, `wrong`, `expired`) is for metrics alone.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            "Incorrect API key provided, or none. Send a valid one as `Authorization: Bearer KEY`, as "
            "`x-api-key: KEY` or `api-key: KEY`, or as the password of the URL (http://user:KEY@host)."
        )
        self.reason = reason
        self.delay = 0.0
        """Seconds that the answer waits, where an address has presented many wrong keys."""


class HostNotAllowed(GatewayError):
    """Nobody needs a key here, and the name in `Host` may be any web page's (DNS rebinding)."""


class OriginNotAllowed(GatewayError):
    """A web page of an origin that is not in `server.cors_origins`."""


class ModelNotAllowed(GatewayError):
    """The key is good but not for this model."""


class ModelNotFound(GatewayError):
    """No model of that name or alias is configured."""


class NotFound(GatewayError):
    """No such path."""


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not."""


class BodyTooLarge(GatewayError):
    """The body is larger than `server.max_body`."""


class UnsupportedMediaType(GatewayError):
    """A content type or content encoding that is not read here."""


class ExpectationFailed(GatewayError):
    """An Expect header other than 100-continue."""


class RequestTimeout(GatewayError):
    """The client took longer to send its request than `server.header_timeout` or `server.body_timeout`."""


class TargetTooLong(GatewayError):
    """The path and query of the request are longer than 8,192 bytes."""


class HeadersTooLarge(GatewayError):
    """The headers are above `server.max_header_bytes` or `server.max_headers`."""


class UnsupportedTransferCoding(GatewayError):
    """A Transfer-Encoding other than chunked."""


class Unavailable(GatewayError):
    """Not now: carries `retry_after` where it can be told."""


class QueueFull(Unavailable):
    """The model's queue is at its length limit."""


class QueueTimeout(Unavailable):
    """The ticket waited longer than `queue.timeout`."""


class NoBackend(Unavailable):
    """No backend of the model can be used at the moment."""


class Draining(Unavailable):
    """The gateway is shutting down."""


class UpstreamBusy(Unavailable):
    """The backend answered 429 or 503."""


class NoMemory(Unavailable):
    """The request does not fit into `server.memory` beside those that are held already."""


class TooManyConnections(Unavailable):
    """The client's connection is above `server.max_connections` or `server.max_connections_per_peer`."""


class OutOfDescriptors(Unavailable):
    """The gateway's own system has no file descriptor, port or buffer left for a connection."""


class ConnectFailed(Unavailable):
    """The backend did not take the connection.

    `refused`: its machine said at once that nobody listens there; else it was silent or not to be found.
    """

    def __init__(self, message: str, *, refused: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.refused = refused


class UpstreamError(GatewayError):
    """The backend failed: a 5xx, or an error in the place of an answer."""

    status: int = 0
    """A 5xx where the backend itself said that it failed."""


class UpstreamMisconfigured(UpstreamError):
    """The backend refused the gateway itself: its key, its account, or anything else in its settings.

    `hint` asks the operator what is wrong.
    """

    def __init__(self, message: str, *, hint: str = "", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.hint = hint


class UpstreamReset(UpstreamError):
    """The backend closed the connection before the head of an answer."""


class UpstreamTruncated(UpstreamError):
    """The answer broke off before its end."""


class UpstreamGarbled(UpstreamError):
    """The answer is not what the backend's dialect promises."""


class UpstreamEmpty(UpstreamError):
    """The backend said 200 and gave nothing, nor said that its answer was complete."""


class UpstreamNotFound(UpstreamMisconfigured):
    """The backend does not know the path or the model: the gateway's configuration does not fit it."""


class UpstreamTLS(UpstreamError):
    """The TLS handshake with the backend failed."""


class StructuredOutputFailed(GatewayError):
    """The model's answer does not fit `response_format`, after one corrective request."""


class ToolCallFailed(GatewayError):
    """The model has not made the call that `tool_choice` demands, after one corrective request."""


class UpstreamTimeout(GatewayError):
    """The backend took too long."""


class FirstTokenTimeout(UpstreamTimeout):
    """Nothing came within `timeouts.first_token`."""


class StallTimeout(UpstreamTimeout):
    """The stream paused for longer than `timeouts.between_tokens`."""


class TotalTimeout(UpstreamTimeout):
    """The answer was not complete within `timeouts.total`."""


class InternalError(GatewayError):
    """A bug of the gateway."""


class ClientGone(GatewayError):
    """The client left before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the rest of the gateway does with one kind of error.

    `retryable`: another backend may be tried as long as no content has reached the client.
    `blames`: counts against the backend. `repeat`: the value of `x-should-retry`, where SDKs must
    be told (None: their own rule is right).
    """

    status: int
    type: str
    code: str | None
    outcome: str
    retryable: bool = False
    blames: bool = False
    repeat: bool | None = None


_REQUEST = "invalid_request_error"
_SERVER = "server_error"

TABLE: dict[type[GatewayError], Row] = {
    BadRequest: Row(400, _REQUEST, None, "client_error"),
    UnsupportedParameter: Row(400, _REQUEST, "unsupported_parameter", "client_error"),
    ContextExceeded: Row(400, _REQUEST, "context_length_exceeded", "client_error"),
    UpstreamRejected: Row(400, _REQUEST, None, "upstream_4xx"),
    Unauthorized: Row(401, _REQUEST, "invalid_api_key", "client_error"),
    HostNotAllowed: Row(403, _REQUEST, "host_not_allowed", "client_error"),
    OriginNotAllowed: Row(403, _REQUEST, "origin_not_allowed", "client_error"),
    ModelNotAllowed: Row(403, _REQUEST, "model_not_allowed", "client_error"),
    ModelNotFound: Row(404, _REQUEST, "model_not_found", "client_error"),
    NotFound: Row(404, _REQUEST, "not_found", "client_error"),
    MethodNotAllowed: Row(405, _REQUEST, "method_not_allowed", "client_error"),
    RequestTimeout: Row(408, _REQUEST, "request_timeout", "client_error"),
    UpstreamTooLarge: Row(413, _REQUEST, "body_too_large", "upstream_4xx"),
    BodyTooLarge: Row(413, _REQUEST, "body_too_large", "client_error"),
    TargetTooLong: Row(414, _REQUEST, "target_too_long", "client_error"),
    UnsupportedMediaType: Row(415, _REQUEST, "unsupported_media_type", "client_error"),
    ExpectationFailed: Row(417, _REQUEST, "expectation_failed", "client_error"),
    HeadersTooLarge: Row(431, _REQUEST, "headers_too_large", "client_error"),
    UnsupportedTransferCoding: Row(501, _SERVER, "unsupported_transfer_coding", "shed", repeat=False),
    QueueFull: Row(503, _SERVER, "overloaded", "queue_full"),
    QueueTimeout: Row(503, _SERVER, "queue_timeout", "queue_timeout"),
    NoBackend: Row(503, _SERVER, "no_backend", "no_backend"),
    Draining: Row(503, _SERVER, "draining", "shutdown"),
    TooManyConnections: Row(503, _SERVER, "too_many_connections", "shed"),
    OutOfDescriptors: Row(503, _SERVER, "out_of_descriptors", "out_of_descriptors", retryable=True),
    NoMemory: Row(503, _SERVER, "no_memory", "shed"),
    UpstreamBusy: Row(503, _SERVER, "overloaded", "upstream_5xx", retryable=True),
    ConnectFailed: Row(503, _SERVER, "no_backend", "connect", retryable=True, blames=True),
    UpstreamError: Row(502, _SERVER, "upstream_error", "upstream_5xx", True, True, repeat=False),
    UpstreamMisconfigured: Row(502, _SERVER, "upstream_error", "upstream_5xx", retryable=True, repeat=False),
    UpstreamReset: Row(502, _SERVER, "upstream_error", "connect", True, True, repeat=False),
    UpstreamTruncated: Row(502, _SERVER, "upstream_error", "truncated", True, True, repeat=False),
    UpstreamGarbled: Row(502, _SERVER, "upstream_invalid_response", "bad_payload", True, True, repeat=False),
    UpstreamEmpty: Row(502, _SERVER, "empty_response", "bad_payload", True, True, repeat=False),
    UpstreamNotFound: Row(502, _SERVER, "upstream_not_found", "upstream_5xx", True, repeat=False),
    UpstreamTLS: Row(502, _SERVER, "upstream_tls", "connect", True, True, repeat=False),
    StructuredOutputFailed: Row(502, _SERVER, "structured_output_failed", "not_accepted", repeat=False),
    ToolCallFailed: Row(502, _SERVER, "tool_call_failed", "not_accepted", repeat=False),
    FirstTokenTimeout: Row(504, _SERVER, "upstream_timeout", "first_token_timeout", True, True, repeat=False),
    StallTimeout: Row(504, _SERVER, "upstream_timeout", "stall", blames=True, repeat=False),
    TotalTimeout: Row(504, _SERVER, "upstream_timeout", "total_timeout", blames=True, repeat=False),
    InternalError: Row(500, _SERVER, "internal_error", "internal"),
    ClientGone: Row(499, _REQUEST, None, "client_gone"),
}
"""Every error's row. 499 is for logs and metrics alone: its client is not there to read it."""
