"""Programs: started on one core, their CPU and memory read, ended for certain."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ENDING = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0))
"""What a program and its descendants are sent, and how long each may take to work (seconds)."""
NOT_GIVEN = range(20_000, 30_000)
"""Ports below those that systems choose from, for servers and for the near ends of connections alike."""


@contextlib.contextmanager
def started(
    command: Sequence[str], *, core: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core, its output in a file; at the end it and all its descendants are gone."""
    with log.open("wb") as output:
        program = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        yield program
    finally:
        end(program)


def end(program: subprocess.Popen[bytes]) -> None:
    """End the program and every descendant that it has now, by their ids."""
    pids = family(program.pid)
    for number, deadlines in ENDING:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + deadlines
        while time.monotonic() < deadline:
            program.poll()
            if not any(Path(f"/proc/{pid}").exists() for pid in pids):
                return
            time.sleep(0.02)


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                parent = int(stat[stat.rindex(")") + 2 :].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pid: int) -> dict[int, float]:
    """What the process and its descendants have used, by their own clocks.

    The clocks count nanoseconds, where `/proc/PID/stat` counts ticks of 10 ms. The id of another process's
    clock is made as the kernel's `CPUCLOCK_SCHED` demands; Python has a function for threads only.
    """
    used = {}
    for one in family(pid):
        with contextlib.suppress(OSError):
            used[one] = time.clock_gettime((~one << 3) | 2)
    return used


def pss_mib(pid: int) -> float:
    """Memory of the process and its descendants in MiB, shared pages split between their users."""
    kib = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def count(pid: int, what: str) -> int:
    """How many entries `/proc/PID/what` has: `fd` for open files, `task` for threads."""
    return len(list(Path(f"/proc/{pid}/{what}").iterdir()))


def listens(port: int) -> bool:
    """Whether somebody takes connections there, on loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port of loopback that nobody uses now, and that the system gives to nobody who lets it choose."""
    for port in random.sample(NOT_GIVEN, len(NOT_GIVEN)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port is free")


def wait_listening(port: int, program: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until the program listens. Raises `RuntimeError` when it has ended or is too slow."""
    deadline = time.monotonic() + seconds
    while not listens(port):
        if program.poll() is not None:
            raise RuntimeError(f"it ended with status {program.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"it does not listen after {seconds:.0f} s")
        time.sleep(0.05)
