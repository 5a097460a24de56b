"""The log: one line for each request, and the few events in the gateway's life.

`Logs` is a `Hook`. It writes what a `Receipt` holds, so no key, credential, prompt or answer can get here.
Everything goes through the standard library's loggers and one handler of our own.
"""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Any, Literal, TextIO, TypeAlias

from gateway.errors import TABLE, Row
from gateway.telemetry.lines import ConsoleLines, Fields, JsonLines, describe
from gateway.telemetry.receipt import Receipt

Format: TypeAlias = Literal["json", "console"]
Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

LOGGER = "gateway"

# Both write for the operator of the gateway; without a handler theirs would be other, unescaped lines.
_FOREIGN = ("uvicorn", "asyncio")


def _level(row: Row) -> int:
    if row.outcome == "internal":
        return logging.ERROR
    return logging.WARNING if row.status >= 500 else logging.INFO


_LEVELS = MappingProxyType({"ok": logging.INFO, **{row.outcome: _level(row) for row in TABLE.values()}})


class Logs:
    """The gateway's log. A `Hook`; made by `configure`.

    `access` tells whether requests get lines at all; crashes and the life of backends always do.
    """

    def __init__(self, logger: logging.Logger, *, access: bool = True) -> None:
        self._logger = logger
        self._access = access

    # --- Hook --------------------------------------------------------------------------------------

    def settled(self, receipt: Receipt) -> None:
        """Write the line of one request, as loud as its outcome."""
        level = _LEVELS.get(receipt.outcome, logging.WARNING)
        if self._access and self._logger.isEnabledFor(level):
            self._write(level, access_fields(receipt))

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Nothing: the line of the request tells how long it waited and why that ended."""

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Tell that a backend came back or went down."""
        if up:
            self._write(logging.INFO, {"event": "backend_up", "backend": backend, "reason": reason})
        else:
            self._write(logging.WARNING, {"event": "backend_down", "backend": backend, "reason": reason})

    def auth_failed(self, reason: str) -> None:
        """Tell why a key was refused, at debug level: anybody can cause as many as they like."""
        self._write(logging.DEBUG, {"event": "auth_failed", "reason": reason})

    # --- life --------------------------------------------------------------------------------------

    def started(self, version: str, **fields: Any) -> None:
        """Tell that the gateway takes requests; `fields` say where and how (addresses, counts)."""
        self._write(logging.INFO, {"event": "start", "version": version, **fields})

    def stopped(self, reason: str, **fields: Any) -> None:
        """Tell that the gateway ends, and why (a signal's name)."""
        self._write(logging.INFO, {"event": "stop", "reason": reason, **fields})

    def note(self, message: str, *, level: Level = "info", **fields: Any) -> None:
        """Tell the operator something else. `message` is of our own words; what varies goes into `fields`."""
        number = logging.getLevelNamesMapping()[level.upper()]
        self._write(number, {"event": "note", "message": message, **fields})

    def crash(self, request_id: str, error: BaseException) -> None:
        """Tell of an error that nobody expected: type, frames and causes.

        Not its message, unless it is a `GatewayError`: messages of foreign errors quote the values they
        failed on, which may be a piece of a prompt or a key (see `lines.describe`).
        """
        self._write(logging.ERROR, {"event": "crash", "request_id": request_id, **describe(error)})

    def _write(self, level: int, fields: Fields) -> None:
        if self._logger.isEnabledFor(level):
            # Made by hand: `Logger.log` would walk the stack for a place that no line shows.
            record = self._logger.makeRecord(
                LOGGER, level, "", 0, fields["event"], (), None, extra={"fields": fields}
            )
            self._logger.handle(record)

    def __repr__(self) -> str:
        return f"<Logs {logging.getLevelName(self._logger.level).lower()} access={self._access}>"


def access_fields(receipt: Receipt) -> dict[str, Any]:
    """Give the fields of a request's line. What a request never came to is None."""
    usage = receipt.usage
    first = None if receipt.first_token is None else receipt.first_token - receipt.received
    return {
        "event": "request",
        "request_id": receipt.request_id,
        "door": receipt.door,
        "method": receipt.method,
        # A key in a query string must not come with it.
        "path": receipt.path.partition("?")[0],
        "model": receipt.model,
        "tenant": receipt.tenant or None,
        "stream": receipt.stream,
        "status": receipt.status,
        "outcome": receipt.outcome,
        "error": receipt.error or None,
        "backend": receipt.backend or None,
        "dialect": receipt.dialect or None,
        "attempts": len(receipt.attempts),
        "retries": receipt.retries,
        "queue_ms": _milliseconds(receipt.queue_seconds),
        "upstream_ms": _milliseconds(receipt.upstream_seconds),
        "first_token_ms": _milliseconds(first),
        "duration_ms": _milliseconds(receipt.seconds),
        "prompt_tokens": usage and usage.prompt,
        "completion_tokens": usage and usage.completion,
        "usage_source": usage and usage.source,
        "finish": receipt.finish or None,
        "ignored": receipt.ignored,
        "repairs": receipt.repairs,
        "left_while": receipt.left_while,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to one stream. A line that cannot be written is lost: no request fails for its log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: the default prints the record, whose arguments are not meant for anybody's eyes."""


def configure(
    format: Format,  # noqa: A002 - the name it has in config.toml
    level: Level,
    stream: TextIO,
    *,
    access: bool = True,
) -> Logs:
    """Set up logging to `stream` and give the gateway's log; a second call replaces the first.

    The server's own lines (uvicorn, asyncio) take the same form and level; uvicorn's access log is off.
    uvicorn must be started with `log_config=None`, or it puts its own handlers back.
    """
    handler = _Handler(stream)
    handler.setFormatter(JsonLines() if format == "json" else ConsoleLines())
    logger = logging.getLogger(LOGGER)
    for one in (logger, *map(logging.getLogger, _FOREIGN)):
        one.handlers[:] = [handler]
        one.setLevel(level.upper())
    logger.propagate = logging.getLogger("uvicorn").propagate = False
    _silence("uvicorn.access", propagate=False)
    _silence("uvicorn.error", propagate=True)
    return Logs(logger, access=access)


def _silence(name: str, *, propagate: bool) -> None:
    """Take a logger's own handlers away; what it still writes goes to its parent, if `propagate`."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = propagate
    logger.setLevel(logging.NOTSET)
