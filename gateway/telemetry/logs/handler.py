"""The handler of all log lines: keeps their order, and joins the lines of requests.

There are too many requests for the loggers of the standard library. In the JSON format their lines are
collected for some milliseconds, then made and written together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, TypeAlias

from gateway.telemetry.logs.lines import to_json
from gateway.telemetry.logs.request_lines import Frames, Stamps, access_fields
from gateway.telemetry.logs.writer import Sink
from gateway.telemetry.receipt import Receipt

LOGGER = "gateway"
"""The name of the gateway's logger."""

LATER = 0.1
"""Seconds for which the line of a request may wait for others."""
MOST = 128
"""Maximum number of requests whose lines may wait."""
Settled: TypeAlias = tuple[Receipt, str, float]
"""A finished request, the level of its line, and the time at which it finished (Unix seconds)."""


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
