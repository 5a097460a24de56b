"""The log: one line for each request, and the events of the gateway itself.

`EventLog` is a `Hook`. It logs the contents of a `Receipt`, which never contains a key, a credential, a
prompt or an answer. All lines go through one handler. Events use the loggers of the standard library. Lines
of requests do not, because there are too many: in the JSON format they are collected for some milliseconds
and written together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from gateway.errors import TABLE, Row
from gateway.formats import token_counts
from gateway.telemetry.comparison import ComparedAnswer, Comparison, Skip
from gateway.telemetry.logs.lines import LIMIT, ConsoleLines, Fields, JsonLines, describe, timestamp, to_json
from gateway.telemetry.logs.terminal import BANNER, TerminalLines
from gateway.telemetry.logs.writer import NOTHING_LOST, LogWriter, Loss, Sink
from gateway.telemetry.receipt import Receipt

Format: TypeAlias = Literal["json", "console", "terminal"]
Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

LOGGER = "gateway"

LATER = 0.1
"""Seconds for which the line of a request may wait for others."""
MOST = 128
"""Maximum number of requests whose lines may wait."""
Settled: TypeAlias = tuple[Receipt, str, float]
"""A finished request, the level of its line, and the time at which it finished (Unix seconds)."""

# Both libraries log for the operator. Without this handler their lines would have another format and would
# not be escaped.
_FOREIGN = ("uvicorn", "asyncio")


def _level(row: Row) -> int:
    if row.outcome == "internal":
        return logging.ERROR
    return logging.WARNING if row.status >= 500 else logging.INFO


_LEVELS = MappingProxyType({"ok": logging.INFO, **{row.outcome: _level(row) for row in TABLE.values()}})


MOST_FRAMES = 256
"""Maximum number of cached line templates."""

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


class Frames:
    """Makes the JSON lines of requests from cached templates, in a sixth of the time `JsonLines` needs.

    Many requests differ only in an id, times and counts. The JSON text of the other fields is made once and
    kept as a template. The result is equal to what `JsonLines` makes of `access_fields`.
    """

    def __init__(self) -> None:
        self._frames: dict[tuple[object, ...], str] = {}

    def line(self, r: Receipt, level: str, stamp: str) -> str | None:
        """Return the line of a request; None if the request id is unusual or a token count implausible."""
        request_id, usage = r.request_id, r.usage
        if not (request_id.isascii() and request_id.isprintable()) or len(request_id) > LIMIT:
            return None
        if '"' in request_id or "\\" in request_id:
            return None
        source = None if usage is None else usage.source
        if usage is not None and not token_counts.both_plausible(usage.prompt, usage.completion):
            return None
        group = (
            r.status, r.path, r.model, r.tenant, r.backend, source, r.outcome, r.finish,
            r.stream, r.error, r.door, r.method, r.dialect, r.left_while, r.answered, r.canary, level,
        )  # fmt: skip
        first = r.first_token
        return (self._frames.get(group) or self._frame(group, r, level)) % (
            stamp,
            request_id,
            len(r.attempts),
            to_json(r.retries) if r.retries else "[]",
            r.queue_seconds * 1000,
            r.upstream_seconds * 1000,
            "null" if first is None else "%.1f" % ((first - r.received) * 1000),
            r.seconds * 1000,
            "null" if usage is None else usage.prompt,
            "null" if usage is None else usage.completion,
            to_json(r.ignored) if r.ignored else "[]",
            to_json(r.repairs) if r.repairs else "[]",
        )

    def _frame(self, group: tuple[object, ...], receipt: Receipt, level: str) -> str:
        if len(self._frames) >= MOST_FRAMES:
            self._frames.clear()
        told = {"ts": "", "level": level, **access_fields(receipt)}
        frame = ",".join(f'"{name}":{_VARYING.get(name) or _fixed(value)}' for name, value in told.items())
        self._frames[group] = frame = "{" + frame + "}"
        return frame


_VARYING = MappingProxyType(
    {
        "ts": '"%s"',
        "request_id": '"%s"',
        "attempts": "%d",
        "retries": "%s",
        "queue_ms": "%.1f",
        "upstream_ms": "%.1f",
        "first_token_ms": "%s",
        "duration_ms": "%.1f",
        "prompt_tokens": "%s",
        "completion_tokens": "%s",
        "ignored": "%s",
        "repairs": "%s",
    }
)
"""The fields that a template leaves open, with their format."""


def _fixed(value: object) -> str:
    return to_json(value).replace("%", "%%")


def access_fields(receipt: Receipt) -> dict[str, Any]:
    """Return the fields of a request's line. The value is None for an event that did not happen."""
    usage = receipt.usage
    first = None if receipt.first_token is None else receipt.first_token - receipt.received
    return {
        "event": "request",
        "request_id": receipt.request_id,
        "door": receipt.door,
        "method": receipt.method,
        # The query string may contain a key.
        "path": receipt.path.partition("?")[0],
        "model": receipt.model,
        "answered": receipt.answered or None,
        "canary": receipt.canary and receipt.canary.result,
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


def shadow_fields(comparison: Comparison) -> dict[str, Any]:
    """Return the fields of a shadow copy's line: those of the copy and those of the caller's answer."""
    caller, mine = comparison.caller, comparison.copy
    return {
        "event": "shadow",
        "request_id": comparison.request_id,
        "model": comparison.model,
        "shadow": comparison.shadow,
        "same_text": comparison.same_text,
        **_side_fields("", mine),
        **_side_fields("caller_", caller),
    }


def _side_fields(prefix: str, side: ComparedAnswer) -> dict[str, Any]:
    told = {
        "backend": side.backend or None,
        "outcome": side.outcome,
        "finish": side.finish or None,
        "characters": side.characters,
        "first_token_ms": _milliseconds(side.first_token),
        "duration_ms": _milliseconds(side.seconds),
    }
    return {prefix + name: value for name, value in told.items()}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


class Stamps:
    """Formats times like `lines.timestamp`, with a cache for the current second."""

    def __init__(self) -> None:
        self._second = -1
        self._head = ""

    def text(self, now: float) -> str:
        """Return the Unix time `now` as ISO 8601 in UTC with milliseconds."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._head = timestamp(second)[: -len("000Z")]
        return f"{self._head}{int((now - second) * 1000):03d}Z"


class Handler(logging.StreamHandler[Any]):
    """Writes to one sink: records of loggers at once, lines of requests (`put`) a little later and together.

    The order of lines is kept. If a line cannot be written, it is lost, because a request must not fail
    because of the log. Waiting lines are written at the end of the process at the latest, when `logging`
    flushes its handlers.
    """

    def __init__(self, stream: Sink, *, json: bool) -> None:
        super().__init__(stream)
        self.json = json
        self._waiting: list[Settled] = []
        self._frames = Frames()
        self._stamps = Stamps()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, settled: Settled, *, urgent: bool) -> None:
        """Accept a finished request. Its line is written within `LATER` seconds, or at once if `urgent`."""
        with self.lock or contextlib.nullcontext():
            self._waiting.append(settled)
            if urgent or len(self._waiting) >= MOST or (self._timer is None and not self._is_timed()):
                self.flush()

    def _is_timed(self) -> bool:
        """Schedule a flush. Return False if there is no event loop to run it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._timer = loop.call_later(LATER, self.flush)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write the waiting lines and then the record."""
        self._write_waiting()
        super().emit(record)

    def flush(self) -> None:
        """Write the waiting lines."""
        with self.lock or contextlib.nullcontext():
            self._write_waiting()
            with contextlib.suppress(OSError, ValueError):
                super().flush()

    def _write_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        lines = [self._line(*settled) for settled in waiting]
        with contextlib.suppress(OSError, ValueError):  # the stream is full or closed
            self.stream.write("\n".join([*lines, ""]))

    def _line(self, receipt: Receipt, level: str, now: float) -> str:
        stamp = self._stamps.text(now)
        line = self._frames.line(receipt, level, stamp)
        return line or to_json({"ts": stamp, "level": level} | access_fields(receipt))

    def notice(self, lines: int) -> str:
        """Return the line that reports how many lines were lost."""
        fields = {"event": "log_lost", "lines": lines}
        record = logging.makeLogRecord({"name": LOGGER, "levelno": logging.WARNING, "levelname": "WARNING"})
        record.fields = fields
        return self.format(record) + "\n"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name given by `logging`
        """Do nothing: the default prints the record with its arguments, which may be confidential."""


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
