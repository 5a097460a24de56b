"""Writes log lines outside the event loop, so that a reader that stops reading does not block the gateway.

Lines go into a bounded queue, and one thread writes them to the file descriptor. Only this thread waits for
the reader. Lines are dropped and counted if the queue is full or if the system call fails (the reader has
exited, the disk is full). When writing works again, one line reports how many are missing.
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
"""Why a line was lost: the queue was full, or the line could not be written."""

MOST_BYTES = 4_194_304
"""Maximum size of the queue, in bytes."""
NOTHING_LOST: Mapping[Loss, int] = MappingProxyType({"queue_full": 0, "unwritable": 0})


class Sink(Protocol):
    """The target of log lines. If it is a `LogWriter`, neither method waits for a reader."""

    def write(self, text: str, /) -> object:
        """Accept one or more complete lines."""

    def flush(self) -> object:
        """Make sure that accepted lines are written soon."""


class _Gap:
    """A place in the queue where lines were dropped."""

    __slots__ = ("lines",)

    def __init__(self, lines: int) -> None:
        self.lines = lines


class LogWriter:
    """A bounded queue of lines and the thread that writes them. A `Sink`; one per file descriptor.

    `descriptor` is None if the process was started without the stream; every line is then lost. `notice`
    returns the line that reports how many lines are missing. The thread starts with the first line. It is a
    daemon thread, and it holds no lock while it writes.
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
        """How many lines were lost so far, by reason."""
        return self._lost

    def write(self, text: str, /) -> None:
        """Add complete lines to the queue, or drop them if the queue is full."""
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
        """Do nothing: the thread writes the queue as soon as the reader reads."""

    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until everything is written. Return True if it is."""
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
        """Write all bytes. Return False on an error.

        The next text after a partial line starts on a new line.
        """
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
        except BlockingIOError:  # another program made the shared file non-blocking
            select.select((), (descriptor,), (), 1.0)
            return 0


def _notice(lines: int) -> str:
    return f"{lines} lines are missing here: they could not be written in time\n"


def writer_to(stream: TextIO | None) -> LogWriter:
    """Return a writer to the file descriptor of a stream. The stream itself is no longer used.

    A thread that waits inside a stream holds the lock of the stream's buffer, which the exit of the process
    needs.
    """
    try:
        descriptor = None if stream is None else stream.fileno()
    except (OSError, ValueError):  # the stream is closed or has no descriptor
        descriptor = None
    return LogWriter(descriptor, encoding=getattr(stream, "encoding", None) or "utf-8")


class WriterThread:
    """Replaces `sys.stderr` while the gateway serves, and passes complete lines to a `LogWriter`.

    Python itself prints warnings and the tracebacks of threads and finalisers to `sys.stderr`, in the event
    loop.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._begun = ""

    def write(self, text: str) -> int:
        """Accept text; pass on the complete lines."""
        whole, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self._writer.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Pass on an incomplete last line."""
        begun, self._begun = self._begun, ""
        if begun:
            self._writer.write(begun + "\n")

    def isatty(self) -> bool:
        """Return False."""
        return False


@contextlib.contextmanager
def errors_aside(seconds: float) -> Iterator[None]:
    """Run the block with a `sys.stderr` that never waits for its reader.

    An exception from the block is printed in the same way, and the process ends with status 1. At the end,
    the context manager waits up to `seconds` for the reader.
    """
    before, writer = sys.stderr, writer_to(sys.stderr)
    sys.stderr = aside = cast("TextIO", WriterThread(writer))
    try:
        yield
    except Exception:  # noqa: BLE001 - ends the process; printed here as Python would print it
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        aside.flush()
        writer.drain(seconds)
        sys.stderr = before


def hold_standard_descriptors() -> None:
    """Open the null device for each standard stream that the process was started without.

    Otherwise a socket would get the number of the stream. libuv refuses to close such a number and aborts
    the process.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # uses the lowest free number, which is this one
