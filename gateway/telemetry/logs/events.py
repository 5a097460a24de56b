"""The log: one line for each request, and the events of the gateway itself.

`EventLog` is a `Hook`. It logs the contents of a `Receipt`, which never contains a key, a credential, a
prompt or an answer. All lines go through one `Handler`. Events use the loggers of the standard library;
JSON lines of requests go to the handler directly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from gateway.errors import TABLE, Row
from gateway.telemetry.comparison import Comparison, Skip
from gateway.telemetry.logs.handler import LOGGER, Handler
from gateway.telemetry.logs.lines import ConsoleLines, Fields, JsonLines, describe
from gateway.telemetry.logs.request_lines import access_fields, shadow_fields
from gateway.telemetry.logs.terminal import BANNER, TerminalLines
from gateway.telemetry.logs.writer import NOTHING_LOST, LogWriter, Loss, Sink
from gateway.telemetry.receipt import Receipt

Format: TypeAlias = Literal["json", "console", "terminal"]
Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

# Both libraries log for the operator. Without this handler their lines would have another format and would
# not be escaped.
_FOREIGN = ("uvicorn", "asyncio")


def _level(row: Row) -> int:
    if row.outcome == "internal":
        return logging.ERROR
    return logging.WARNING if row.status >= 500 else logging.INFO


_LEVELS = MappingProxyType({"ok": logging.INFO, **{row.outcome: _level(row) for row in TABLE.values()}})


_NAMES = MappingProxyType(
    {number: name.lower() for name, number in logging.getLevelNamesMapping().items() if name != "WARN"}
)


class EventLog:
    """The gateway's log. A `Hook`; created by `configure`.

    If `access` is false, requests get no lines; crashes and events of backends are still logged. `now` is
    the wall clock in Unix seconds.
    """

    def __init__(
        self,
        logger: logging.Logger,
        handler: Handler,
        *,
        access: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._logger = logger
        self.handler = handler
        self._access = access
        self._now = now

    # --- Hook --------------------------------------------------------------------------------------

    def settled(self, receipt: Receipt) -> None:
        """Write the line of one request, at the level of its outcome."""
        level = _LEVELS.get(receipt.outcome, logging.WARNING)
        if not self._access or level < self._logger.level:
            return
        if self.handler.json:
            self.handler.put((receipt, _NAMES[level], self._now()), urgent=level > logging.INFO)
            return
        fields = access_fields(receipt)
        if receipt.asked and isinstance(self.handler.formatter, TerminalLines):
            fields["asked"] = receipt.asked  # may be any text, even a key: shown on terminals only
        self._write(level, fields)

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Do nothing: the line of the request contains the waiting time and its outcome."""

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Log that a backend returned or went out of service."""
        if up:
            self._write(logging.INFO, {"event": "backend_up", "backend": backend, "reason": reason})
        else:
            self._write(logging.WARNING, {"event": "backend_down", "backend": backend, "reason": reason})

    def auth_failed(self, reason: str) -> None:
        """Log why a key was refused, at level debug because anybody can cause any number of these lines."""
        self._write(logging.DEBUG, {"event": "auth_failed", "reason": reason})

    # --- Observer ----------------------------------------------------------------------------------

    def shadowed(self, comparison: Comparison) -> None:
        """Write the line of one shadow copy, if requests have lines."""
        if self._access:
            self._write(logging.INFO, shadow_fields(comparison))

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Do nothing: on a busy backend this would be a line for every request."""

    # --- life --------------------------------------------------------------------------------------

    def started(self, version: str, **fields: Any) -> None:
        """Log that the gateway accepts requests. `fields` contain addresses and counts."""
        self._write(logging.INFO, {"event": "start", "version": version, **fields})

    def welcomed(self, lines: Sequence[str]) -> None:
        """Print the lines of the banner. Only the terminal format shows them."""
        self._write(logging.INFO, {"event": BANNER, "lines": lines})

    def stopped(self, reason: str, **fields: Any) -> None:
        """Log that the gateway stops, and why (the name of a signal)."""
        self._write(logging.INFO, {"event": "stop", "reason": reason, **fields})

    def reloaded(self, result: str, cause: str, digest: str, faults: Sequence[str] = ()) -> None:
        """Log the result of a reload. `digest` is that of the configuration that is now in force."""
        level = logging.WARNING if faults else logging.INFO
        told = {"event": "reload", "result": result, "cause": cause, "config": digest}
        self._write(level, told | ({"faults": list(faults)} if faults else {}))

    def discovered(
        self,
        backend: str,
        result: str,
        *,
        members: int,
        left_out: int,
        added: Mapping[str, str],
        removed: Mapping[str, str],
    ) -> None:
        """Log a change of the servers that DNS lists for a backend with `discover`.

        `added` and `removed` map names of backends to their addresses or targets.
        """
        level = logging.INFO if result == "ok" and not left_out else logging.WARNING
        told = {"event": "discovery", "backend": backend, "result": result, "members": members}
        self._write(level, told | {"left_out": left_out, "added": dict(added), "removed": dict(removed)})

    def note(self, message: str, *, level: Level = "info", **fields: Any) -> None:
        """Log another message for the operator.

        `message` must be a constant text of the gateway; variable data goes into `fields`.
        """
        number = logging.getLevelNamesMapping()[level.upper()]
        self._write(number, {"event": "note", "message": message, **fields})

    def crash(self, request_id: str, error: BaseException) -> None:
        """Log an unexpected error: its type, its stack frames and its causes.

        The error's message is logged only if it is a `GatewayError`. Messages of other errors quote the
        values that caused them, which may be part of a prompt or a key (see `lines.describe`).
        """
        self._write(logging.ERROR, {"event": "crash", "request_id": request_id, **describe(error)})

    def _write(self, level: int, fields: Fields) -> None:
        if self._logger.isEnabledFor(level):
            # `Logger.log` would walk the stack to find the caller, which no line shows.
            record = self._logger.makeRecord(
                LOGGER, level, "", 0, fields["event"], (), None, extra={"fields": fields}
            )
            self._logger.handle(record)

    def flush(self, seconds: float = 0.0) -> None:
        """Write the waiting lines. With a `LogWriter`, wait up to `seconds` until it has written them."""
        self.handler.flush()
        if isinstance(self.handler.stream, LogWriter):
            self.handler.stream.drain(seconds)

    @property
    def lost(self) -> Mapping[Loss, int]:
        """How many lines could not be written, by reason."""
        sink = self.handler.stream
        return sink.lost if isinstance(sink, LogWriter) else NOTHING_LOST

    def __repr__(self) -> str:
        return f"<Logs {logging.getLevelName(self._logger.level).lower()} access={self._access}>"


def configure(
    format: Format,  # noqa: A002 - the name of the key in config.toml
    level: Level,
    stream: Sink,
    *,
    access: bool = True,
    colour: bool = False,
) -> EventLog:
    """Configure logging to `stream` and return the gateway's log. A second call replaces the first.

    `colour` applies to the format `terminal` only. If the reader of `stream` may stop reading, `stream`
    must be a `LogWriter`. Lines of uvicorn and asyncio get the same format and level; uvicorn's access log
    is off. uvicorn must be started with `log_config=None`, otherwise it installs its own handlers again.
    """
    handler = Handler(stream, json=format == "json")
    handler.setFormatter(_formatter(format, colour=colour))
    if isinstance(stream, LogWriter):
        stream.notice = handler.notice
    logger = logging.getLogger(LOGGER)
    for one in (logger, *map(logging.getLogger, _FOREIGN)):
        one.handlers[:] = [handler]
        one.setLevel(level.upper())
    logger.propagate = logging.getLogger("uvicorn").propagate = False
    _silence("uvicorn.access", propagate=False)
    _silence("uvicorn.error", propagate=True)
    return EventLog(logger, handler, access=access)


def _formatter(format: Format, *, colour: bool) -> logging.Formatter:  # noqa: A002 - as in `configure`
    if format == "json":
        return JsonLines()
    return TerminalLines(colour=colour) if format == "terminal" else ConsoleLines()


def _silence(name: str, *, propagate: bool) -> None:
    """Remove the handlers of a logger. If `propagate` is true, its records go to its parent logger."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = propagate
    logger.setLevel(logging.NOTSET)
