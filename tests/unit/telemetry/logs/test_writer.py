"""Log lines are written outside the event loop, so no reader and no disk can block the gateway."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.telemetry.logs.writer import MOST_BYTES, LogWriter, WriterThread, errors_aside, writer_to

LINE = "x" * 1023 + "\n"
BOUND = 20.0
"""An upper limit in seconds that is only reached if something hangs."""


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe and close them at the end."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with suppress(OSError):
                os.close(end)


def reading(end: int) -> Callable[[], bytes]:
    """Read a pipe to its end in a thread. Calling the result waits for the thread."""
    got: list[bytes] = []

    def read() -> None:
        while piece := os.read(end, 65_536):
            got.append(piece)

    thread = threading.Thread(target=read)
    thread.start()

    def result() -> bytes:
        thread.join(BOUND)
        assert not thread.is_alive()
        return b"".join(got)

    return result


def test_lines_are_written_in_their_order() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start)
        for number in range(100):
            writer.write(f"line {number}\n")
        assert writer.drain(BOUND)
        assert os.read(end, 65_536).decode().splitlines() == [f"line {number}" for number in range(100)]
        assert dict(writer.lost) == {"queue_full": 0, "unwritable": 0}


def test_a_reader_that_stops_holds_up_nobody_and_what_is_too_much_is_dropped_and_counted() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start, most=100 * len(LINE))
        for _ in range(1000):  # far more than the pipe and the queue can hold
            writer.write(LINE)
        dropped = writer.lost["queue_full"]
        assert 1000 - 100 - 64 - 1 <= dropped < 1000
        assert not writer.drain(0.01)
        result = reading(end)
        assert writer.drain(BOUND)
        os.close(start)
        lines = result().decode().splitlines(keepends=True)
        assert lines.count(LINE) == 1000 - dropped
        missing = [line for line in lines if line != LINE]
        assert sum(int(line.split()[0]) for line in missing) == dropped


def test_the_line_that_tells_of_a_gap_stands_where_the_gap_is() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start, most=100_000, notice=lambda lines: f"{lines} lost\n")
        writer.write("a" * 99_000 + "\n")  # more than the pipe can hold
        while writer._waiting:  # until the thread has taken the line
            time.sleep(0)
        writer.write("b" * 99_998 + "\n")
        writer.write("dropped\ndropped\n")
        writer.write("dropped\n")
        result = reading(end)
        assert writer.drain(BOUND)
        writer.write("c\n")
        assert writer.drain(BOUND)
        os.close(start)
        assert [line[:6] for line in result().decode().splitlines()] == ["aaaaaa", "bbbbbb", "3 lost", "c"]


def test_a_text_larger_than_the_queue_is_dropped_and_told() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start, most=10, notice=lambda lines: f"{lines} lost\n")
        writer.write("x" * 11 + "\n")
        assert writer.drain(BOUND)
        assert os.read(end, 100) == b"1 lost\n"


def test_a_reader_that_has_gone_costs_the_lines_and_nothing_else() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start)
        os.close(end)
        writer.write("one\ntwo\n")
        assert writer.drain(BOUND)
        writer.write("three\n")
        assert writer.drain(BOUND)
        assert dict(writer.lost) == {"queue_full": 0, "unwritable": 3}


def test_a_disk_that_was_full_is_told_of_once_it_takes_lines_again(monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if full[0] and len(data) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) - 2] if full[0] else data)

    with pipe() as (end, start):
        writer = LogWriter(start, notice=lambda lines: f"{lines} lost\n")
        monkeypatch.setattr(os, "write", write)
        writer.write("torn\n")
        assert writer.drain(BOUND)
        full[0] = False
        writer.write("good\n")
        assert writer.drain(BOUND)
        assert os.read(end, 100) == b"tor\n1 lost\ngood\n"


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    with pipe() as (end, start):
        os.set_blocking(start, False)
        writer = LogWriter(start)
        for _ in range(200):
            writer.write(LINE)
        result = reading(end)
        assert writer.drain(BOUND)
        os.close(start)
        assert result().decode() == LINE * 200


def test_without_a_stream_every_line_is_lost_and_no_descriptor_is_touched() -> None:
    writer = writer_to(None)
    writer.write("one\n")
    assert writer.drain(0)
    assert writer.lost["unwritable"] == 1


def test_a_closed_stream_is_like_none() -> None:
    with pipe() as (_, start):
        stream = os.fdopen(start, "w")
        stream.close()
        writer = writer_to(stream)
        writer.write("one\n")
        assert writer.lost["unwritable"] == 1


def test_characters_that_the_stream_cannot_have_are_escaped() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start, encoding="ascii")
        writer.write("\u4f60\ud800\n")
        assert writer.drain(BOUND)
        assert os.read(end, 100) == b"\\u4f60\\ud800\n"


def test_the_bound_is_what_the_docs_say() -> None:
    assert MOST_BYTES == 4 * 1024 * 1024


def test_what_is_printed_aside_goes_on_line_by_line() -> None:
    with pipe() as (end, start):
        writer = LogWriter(start)
        aside = WriterThread(writer)
        print("a", 1, file=aside)
        aside.write("begun")
        assert writer.drain(BOUND)
        assert os.read(end, 100) == b"a 1\n"
        aside.flush()
        assert writer.drain(BOUND)
        assert os.read(end, 100) == b"begun\n"
        assert not aside.isatty()


def test_errors_on_a_full_pipe_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (end, start):
        os.set_blocking(start, False)
        with suppress(BlockingIOError):
            while True:
                os.write(start, b"x" * 4096)
        os.set_blocking(start, True)
        stream = os.fdopen(start, "w", closefd=False)
        monkeypatch.setattr(sys, "stderr", stream)
        began = time.monotonic()
        with errors_aside(0.01):
            for _ in range(100):
                sys.stderr.write(LINE)
            sys.stderr.write("odd")
        assert sys.stderr is stream
        assert time.monotonic() - began < BOUND
        got = b""  # read everything, so that the thread does not write to another file with the same number
        while not got.endswith(b"\nodd\n"):
            got += os.read(end, 65_536)
        assert got.count(b"\n") == 101


def test_an_exception_that_nobody_catches_is_printed_aside_and_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pipe() as (end, start):
        monkeypatch.setattr(sys, "stderr", os.fdopen(start, "w", closefd=False))
        with pytest.raises(SystemExit) as ended, errors_aside(BOUND):
            raise RuntimeError("odd")
        assert ended.value.code == 1
        assert os.read(end, 65_536).decode().endswith("RuntimeError: odd\n")
