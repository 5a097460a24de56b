"""A real gateway whose log nobody reads: both planes answer, both signals work, and the loss is told."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

CONFIG = """\
[server]
listen = "127.0.0.1:{data}"
[admin]
listen = "127.0.0.1:{admin}"
[health]
probes = false
[[backends]]
name = "gpu-0"
url = "http://127.0.0.1:9"
dialect = "openai"
models = ["m"]
"""
SMALLEST_PIPE = 4096


@dataclass
class Served:
    """A gateway in a process of its own."""

    process: subprocess.Popen[bytes]
    data: str
    admin: str

    def get(self, url: str) -> tuple[int, bytes]:
        """Ask, with a bound against hangs."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def lost(self) -> float:
        """How many lines the log has lost, as the metrics say."""
        text = self.get(f"{self.admin}/metrics")[1].decode()
        return sum(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith("gateway_log_lines_lost_total{")
        )

    def make_noise(self, requests: int) -> None:
        """Ask for what does not exist: a line of the log each."""
        for _ in range(requests):
            assert self.get(f"{self.data}/{'x' * 250}")[0] == 404

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; give the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def served(folder: Path, *, stdout: Any, stderr: Any = subprocess.PIPE, shell: str = "") -> Iterator[Served]:
    """Run `gateway serve`, below a shell that `shell` is for if given, and wait until it answers."""
    data, admin = free_port(), free_port()
    (folder / "config.toml").write_text(CONFIG.format(data=data, admin=admin), encoding="utf-8")
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(folder / "config.toml")]
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *command] if shell else command,
        stdout=stdout,
        stderr=stderr,
        cwd=Path(__file__).parents[2],
    )
    one = Served(process, f"http://127.0.0.1:{data}", f"http://127.0.0.1:{admin}")
    try:
        wait_for_port(process, admin)
        yield one
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(4000):
        assert process.poll() is None, process.stderr and process.stderr.read()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    pytest.fail("the gateway does not listen")


@contextlib.contextmanager
def small_pipe() -> Iterator[tuple[IO[bytes], int]]:
    """A pipe that is full soon: its reading end as a file, and its writing end."""
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    with os.fdopen(reading, "rb") as file:
        try:
            yield file, writing
        finally:
            with contextlib.suppress(OSError):
                os.close(writing)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_log_that_nobody_reads_stops_neither_plane_nor_signals(
    tmp_path: Path, number: signal.Signals
) -> None:
    with small_pipe() as (_, writing), served(tmp_path, stdout=writing, stderr=writing) as one:
        one.make_noise(60)  # some 30 KiB, and the pipe holds 4
        assert one.get(f"{one.data}/livez")[0] == 200
        assert one.get(f"{one.data}/v1/models")[0] == 200
        assert one.get(f"{one.admin}/livez")[0] == 200
        assert one.get(f"{one.admin}/metrics")[0] == 200
        assert one.end(number) == 0


def test_a_second_signal_ends_it_with_status_1_while_nobody_reads(tmp_path: Path) -> None:
    with small_pipe() as (_, writing), served(tmp_path, stdout=writing) as one:
        one.make_noise(60)
        port = int(one.data.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            )
            one.make_noise(1)  # what was sent before has been read
            one.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(1)
            assert one.process.poll() is None, "it did not wait for the request"
            assert one.end(signal.SIGTERM) == 1


def test_a_log_whose_reader_has_gone_costs_lines_and_no_exit_status(tmp_path: Path) -> None:
    with small_pipe() as (file, writing), served(tmp_path, stdout=writing) as one:
        os.close(writing)
        file.close()
        one.make_noise(3)
        assert one.get(f"{one.data}/livez")[0] == 200
        while one.lost() < 3:  # written within a tenth of a second
            pass
        assert one.end() == 0
        assert one.process.stderr is not None
        assert one.process.stderr.read() == b""


def test_without_standard_output_it_serves_and_ends_as_ever(tmp_path: Path) -> None:
    with served(tmp_path, stdout=None, stderr=subprocess.DEVNULL, shell='exec "$@" >&- 2>&- <&-') as one:
        one.make_noise(3)
        assert one.get(f"{one.data}/livez")[0] == 200
        while one.lost() < 4:  # written within a tenth of a second; the start's line is one of them
            pass
        assert one.end() == 0


def test_a_reader_that_goes_on_gets_whole_lines_and_is_told_of_the_gap(tmp_path: Path) -> None:
    with small_pipe() as (file, writing), served(tmp_path, stdout=writing) as one:
        os.close(writing)
        one.make_noise(200)
        assert one.lost() == 0  # 4 MiB wait before a line is dropped
        one.process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in file]
        assert one.process.wait(30) == 0
        events = [line["event"] for line in lines]
        assert events.count("request") == 200
        assert (events[0], events[-1]) == ("start", "stop")
