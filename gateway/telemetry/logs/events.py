"""The log: one line for each request, and the few events in the gateway's life.

`EventLog` is a `Hook`. It writes what a `Receipt` holds, so no key, credential, prompt or answer can get
here. Everything goes through one handler of our own, and through the standard library's loggers, but for
the lines of requests: those are too many. As JSON they are made and written some milliseconds later, many
at once.
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
"""Seconds that the line of a request may wait for others."""
MOST = 128
"""Requests whose lines may wait."""
Settled: TypeAlias = tuple[Receipt, str, float]
"""A request that is over, how loud its line is, and when it came."""

# Both write for the operator of the gateway; without a handler theirs would be other, unescaped lines.
_FOREIGN = ("uvicorn", "asyncio")


def _level(row: Row) -> int:
    if row.outcome == "internal":
        return logging.ERROR
    return logging.WARNING if row.status >= 500 else logging.INFO


_LEVELS = MappingProxyType({"ok": logging.INFO, **{row.outcome: _level(row) for row in TABLE.values()}})


MOST_FRAMES = 256
"""Kinds of request whose frame of a line is kept."""

_NAMES = MappingProxyType(
    {number: name.lower() for name, number in logging.getLevelNamesMapping().items() if name != "WARN"}
)


class EventLog:
    """The gateway's log. A `Hook`; made by `configure`.

    `access` tells whether requests get lines at all; crashes and the life of backends always do. `now` is the
    wall clock, in Unix seconds.
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
        """Write the line of one request, as loud as its outcome."""
        level = _LEVELS.get(receipt.outcome, logging.WARNING)
        if not self._access or level < self._logger.level:
            return
        if self.handler.json:
            self.handler.put((receipt, _NAMES[level], self._now()), urgent=level > logging.INFO)
            return
        fields = access_fields(receipt)
        if receipt.asked and isinstance(self.handler.formatter, TerminalLines):
            fields["asked"] = receipt.asked  # a name may be anything, also a key: no log keeps it
        self._write(level, fields)

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

    # --- Observer ----------------------------------------------------------------------------------

    def shadowed(self, comparison: Comparison) -> None:
        """Write the line of one copy, where requests have lines."""
        if self._access:
            self._write(logging.INFO, shadow_fields(comparison))

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Nothing: on a busy card it would be a line for every request."""

    # --- life --------------------------------------------------------------------------------------

    def started(self, version: str, **fields: Any) -> None:
        """Tell that the gateway takes requests; `fields` say where and how (addresses, counts)."""
        self._write(logging.INFO, {"event": "start", "version": version, **fields})

    def welcomed(self, lines: Sequence[str]) -> None:
        """Print the lines of a banner, where the log is for a terminal; nothing else shows them."""
        self._write(logging.INFO, {"event": BANNER, "lines": lines})

    def stopped(self, reason: str, **fields: Any) -> None:
        """Tell that the gateway ends, and why (a signal's name)."""
        self._write(logging.INFO, {"event": "stop", "reason": reason, **fields})

    def reloaded(self, result: str, cause: str, digest: str, faults: Sequence[str] = ()) -> None:
        """Tell how reading config.toml again ended. `digest` is of the configuration that is in force now."""
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
        """Tell what is new about the servers that DNS names for a backend with `discover`.

        `added` and `removed` are names of backends with the address or target of each.
        """
        level = logging.INFO if result == "ok" and not left_out else logging.WARNING
        told = {"event": "discovery", "backend": backend, "result": result, "members": members}
        self._write(level, told | {"left_out": left_out, "added": dict(added), "removed": dict(removed)})

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

    def flush(self, seconds: float = 0.0) -> None:
        """Write what has not been written yet; wait for a `Writer` for so many seconds at most."""
        self.handler.flush()
        if isinstance(self.handler.stream, LogWriter):
            self.handler.stream.drain(seconds)

    @property
    def lost(self) -> Mapping[Loss, int]:
        """Lines that could not be written, by why."""
        sink = self.handler.stream
        return sink.lost if isinstance(sink, LogWriter) else NOTHING_LOST

    def __repr__(self) -> str:
        return f"<Logs {logging.getLevelName(self._logger.level).lower()} access={self._access}>"


class Frames:
    """Makes the lines of requests: what `JsonLines` makes of `access_fields`, for a sixth of the time.

    Requests are alike. What they have in common is made JSON once, with all its escapes, and kept as a frame
    that the rest (an id, times, counts) is put into.
    """

    def __init__(self) -> None:
        self._frames: dict[tuple[object, ...], str] = {}

    def line(self, r: Receipt, level: str, stamp: str) -> str | None:
        """One line; None if the request's id is not plain text, or a count is nonsense."""
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
"""The fields of a line that a frame leaves open, and how they are put in."""


def _fixed(value: object) -> str:
    return to_json(value).replace("%", "%%")


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
    """Give the fields of a copy's line: its own, and those of the caller's answer."""
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
    """Writes times as `lines.timestamp` does; most fall into the same second as the one before."""

    def __init__(self) -> None:
        self._second = -1
        self._head = ""

    def text(self, now: float) -> str:
        """The Unix time `now` as ISO 8601 in UTC with milliseconds."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._head = timestamp(second)[: -len("000Z")]
        return f"{self._head}{int((now - second) * 1000):03d}Z"


class Handler(logging.StreamHandler[Any]):
    """Writes to one sink: the lines of loggers at once, those that are `put` in one go a little later.

    The order is kept. A line that cannot be written is lost: no request fails for its log. What waits is
    written at the latest at the end of the process, as `logging` then flushes its handlers.
    """

    def __init__(self, stream: Sink, *, json: bool) -> None:
        super().__init__(stream)
        self.json = json
        self._waiting: list[Settled] = []
        self._frames = Frames()
        self._stamps = Stamps()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, settled: Settled, *, urgent: bool) -> None:
        """Take a request that is over; write its line `LATER`, or at once if it is `urgent`."""
        with self.lock or contextlib.nullcontext():
            self._waiting.append(settled)
            if urgent or len(self._waiting) >= MOST or (self._timer is None and not self._is_timed()):
                self.flush()

    def _is_timed(self) -> bool:
        """See to it that somebody writes soon what waits; tell whether anybody will."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._timer = loop.call_later(LATER, self.flush)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Write what waits, and then the record."""
        self._write_waiting()
        super().emit(record)

    def flush(self) -> None:
        """Write what waits."""
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
        with contextlib.suppress(OSError, ValueError):  # a stream that is full, or closed
            self.stream.write("\n".join([*lines, ""]))

    def _line(self, receipt: Receipt, level: str, now: float) -> str:
        stamp = self._stamps.text(now)
        line = self._frames.line(receipt, level, stamp)
        return line or to_json({"ts": stamp, "level": level} | access_fields(receipt))

    def notice(self, lines: int) -> str:
        """The line that stands for so many that were lost."""
        fields = {"event": "log_lost", "lines": lines}
        record = logging.makeLogRecord({"name": LOGGER, "levelno": logging.WARNING, "levelname": "WARNING"})
        record.fields = fields
        return self.format(record) + "\n"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: the default prints the record, whose arguments are not meant for anybody's eyes."""


def configure(
    format: Format,  # noqa: A002 - the name it has in config.toml
    level: Level,
    stream: Sink,
    *,
    access: bool = True,
    colour: bool = False,
) -> EventLog:
    """Set up logging to `stream` and give the gateway's log; a second call replaces the first.

    `colour` is for the format `terminal` alone. Where a reader may stop reading, `stream` is a `Writer`. The
    server's own lines (uvicorn, asyncio) take the same form and level; uvicorn's access log is off.
    uvicorn must be started with `log_config=None`, or it puts its own handlers back.
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
    """Take a logger's own handlers away; what it still writes goes to its parent, if `propagate`."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = propagate
    logger.setLevel(logging.NOTSET)
