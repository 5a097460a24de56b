"""Writes the log's lines beside the event loop: a reader that stops must not stop the gateway.

Lines go into a bounded queue, and one thread writes them to the file descriptor. Only that thread ever waits
for the reader. Lines that find the queue full are dropped and counted, as are those that the system does not
take (the reader has gone, the disk is full); once lines are written again, one of them says how many.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, Protocol, TextIO, TypeAlias, cast

Loss: TypeAlias = Literal["queue_full", "unwritable"]
"""Why a line is lost: the queue was full, or the system did not take the line."""

MOST_BYTES = 4_194_304
"""Bytes of lines that may wait to be written."""
NOTHING_LOST: Mapping[Loss, int] = MappingProxyType({"queue_full": 0, "unwritable": 0})


class Sink(Protocol):
    """What lines are written to. Neither method waits for a reader, where that is a `Writer`."""

    def write(self, text: str, /) -> object:
        """Take some whole lines."""

    def flush(self) -> object:
        """See to it that what has been taken is written soon."""


class _Gap:
    """A place in the queue where lines are missing."""

    __slots__ = ("lines",)

    def __init__(self, lines: int) -> None:
        self.lines = lines


class LogWriter:
    """A bounded queue of lines, and the thread that writes them. A `Sink`; one for each file descriptor.

    `descriptor` is None where the process was started without the stream: every line is lost then. `notice`
    makes the line that tells how many are missing. The thread starts with the first line, never keeps the
    process from ending, and holds no lock while it writes.
    """

    def __init__(
        self,
        descriptor: int | None,
        *,
        encoding: str = "utf-8",
        most: int = MOST_BYTES,
        notice: Callable[[int], str] | None = None,
    ) -> None:
        self.notice = notice or _notice
        self._descriptor = descriptor
        self._encoding = encoding
        self._most = most
        self._state = threading.Condition(threading.Lock())
        self._queue: deque[bytes | _Gap] = deque()
        self._waiting = 0
        self._writing = False
        self._torn = False
        self._lost: dict[Loss, int] = dict(NOTHING_LOST)
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> Mapping[Loss, int]:
        """Lines lost so far, by why."""
        return self._lost

    def write(self, text: str, /) -> None:
        """Take some whole lines; drop them where the queue is full."""
        raw = text.encode(self._encoding, "backslashreplace")
        with self._state:
            if self._descriptor is None:
                self._lost["unwritable"] += raw.count(b"\n")
                return
            if self._waiting + len(raw) > self._most:
                self._drop(raw.count(b"\n"))
            else:
                self._queue.append(raw)
                self._waiting += len(raw)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def flush(self) -> None:
        """Nothing: what waits is written as soon as the reader takes it."""

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, for so long at most; tell whether it is."""
        with self._state:
            return self._state.wait_for(lambda: not self._queue and not self._writing, seconds)

    def _drop(self, lines: int) -> None:
        self._lost["queue_full"] += lines
        if self._queue and isinstance(last := self._queue[-1], _Gap):
            last.lines += lines
        else:
            self._queue.append(_Gap(lines))

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        missing = 0
        while True:
            piece = self._next()
            if isinstance(piece, _Gap):
                missing += piece.lines
            if missing and self._put(self.notice(missing).encode(self._encoding, "backslashreplace")):
                missing = 0
            if isinstance(piece, bytes) and not self._put(piece):
                lines = piece.count(b"\n")
                missing += lines
                self._lost["unwritable"] += lines

    def _next(self) -> bytes | _Gap:
        with self._state:
            self._writing = False
            self._state.notify_all()
            self._state.wait_for(lambda: self._queue)
            self._writing = True
            piece = self._queue.popleft()
            if isinstance(piece, bytes):
                self._waiting -= len(piece)
            return piece

    def _put(self, raw: bytes) -> bool:
        """Write it all; tell whether that was possible. What follows a torn line begins a new one."""
        rest = memoryview(b"\n" + raw if self._torn else raw)
        whole = len(rest)
        try:
            while rest:
                rest = rest[self._write(rest) :]
        except OSError:
            self._torn = self._torn or 0 < len(rest) < whole
            return False
        self._torn = False
        return True

    def _write(self, rest: memoryview) -> int:
        descriptor = self._descriptor
        if descriptor is None:
            return len(rest)
        try:
            return os.write(descriptor, rest)
        except BlockingIOError:  # another program that has the same file open has asked for this
            select.select((), (descriptor,), (), 1.0)
            return 0


def _notice(lines: int) -> str:
    return f"{lines} lines are missing here: they could not be written in time\n"


def writer_to(stream: TextIO | None) -> LogWriter:
    """A writer to the descriptor below a stream; the stream itself is not used any more.

    A thread that waits inside a stream holds the lock of its buffer, which the end of the process needs.
    """
    try:
        descriptor = None if stream is None else stream.fileno()
    except (OSError, ValueError):  # closed, or without a descriptor
        descriptor = None
    return LogWriter(descriptor, encoding=getattr(stream, "encoding", None) or "utf-8")


class WriterThread:
    """What `sys.stderr` is while the gateway serves: prints of others go through a `Writer`, line by line.

    Warnings, tracebacks of threads and of finalisers are printed there by Python itself, in the event loop.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._begun = ""

    def write(self, text: str) -> int:
        """Take some text; whole lines go on."""
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._writer.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Pass on what has no line end yet."""
        begun, self._begun = self._begun, ""
        if begun:
            self._writer.write(begun + "\n")

    def isatty(self) -> bool:
        """No."""
        return False


@contextlib.contextmanager
def errors_aside(seconds: float) -> Iterator[None]:
    """Let nothing that Python prints to `sys.stderr` inside wait for its reader.

    An exception that nobody catches is printed in the same way and ends the process with status 1. The end
    waits for the reader for `seconds` at most.
    """
    before, writer = sys.stderr, writer_to(sys.stderr)
    sys.stderr = aside = cast("TextIO", WriterThread(writer))
    try:
        yield
    except Exception:  # noqa: BLE001 - the end of the process: told here, as Python would tell it
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        aside.flush()
        writer.drain(seconds)
        sys.stderr = before


def hold_standard_descriptors() -> None:
    """Open the null device in the place of standard streams that the process was started without.

    Else a socket would get their numbers, which libuv refuses to close: it aborts the process.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
