"""`python -m tests.bench.memory`: the gateway in containers of the shipped sizes, under clients that fill it.

In a memory cgroup of 192, 256 and 512 MiB, each in a gateway of its own:

    bodies    200 clients at once, each with a body of 4 MiB
    waiting   2,000 clients that wait for one busy card, leave and come again, for MINUTES (10)
    leaving   500 clients with 1 MB each that leave, again and again: in the queue and in the middle of a body

Printed are the peak and the end of the group's memory, how many were refused, and how long `/livez` took for
another process. The exit status is 1 when the gateway was killed, when memory grew after the first tenth of
the time, or when `/livez` took longer than LIMIT; 2 where there are no cgroups to be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.__main__ import say
from tests.bench.own import number
from tests.bench.process import end, free_port, wait_listening

MIB = 2**20
SIZES = (192, 256, 512)
LIMIT = 0.1
"""Seconds that `/livez` may take."""
GROWTH = 1.1
"""How much more than after the first tenth may be held at the end, and `SLACK` besides."""
SLACK = 16 * MIB
ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Load:
    """How many clients come, with how large bodies, and for how many seconds."""

    bodies: int = 200
    waiting: int = 2_000
    leaving: int = 500
    size: int = 4 * MIB
    large: int = 1_000_000
    seconds: float = 600.0


@dataclass
class Found:
    """What was seen of one gateway."""

    case: str
    peak: int = 0
    killed: bool = False
    slowest: float = 0.0
    held: list[int] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def faults(self) -> list[str]:
        """What is wrong with it."""
        faults = ["the gateway was killed"] if self.killed else []
        first = self.held[: max(1, len(self.held) // 10)]
        if self.held and self.held[-1] > max(first) * GROWTH + SLACK:
            faults.append(f"memory grew from {max(first) // MIB} to {self.held[-1] // MIB} MiB")
        if self.slowest > LIMIT:
            faults.append(f"/livez took {self.slowest * 1000:.0f} ms")
        return [f"{self.case}: {fault}" for fault in faults]

    def __str__(self) -> str:
        told = ", ".join(f"{count} x {what}" for what, count in sorted(self.answers.items()))
        last = self.held[-1] // MIB if self.held else 0
        return (
            f"{self.case}: peak {self.peak // MIB} MiB, at the end {last} MiB,"
            f" /livez {self.slowest * 1000:.0f} ms at most; {told}"
        )


class Group:
    """A memory cgroup, of version 1 or 2."""

    def __init__(self, name: str, limit: int) -> None:
        self.old = (ROOT / "memory" / "memory.limit_in_bytes").exists()
        self.path = (ROOT / "memory" if self.old else ROOT) / name
        self.path.mkdir()
        file = "memory.limit_in_bytes" if self.old else "memory.max"
        (self.path / file).write_text(str(limit))
        if not self.old:
            with contextlib.suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")

    def enter(self) -> None:
        """Move the calling process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def used(self) -> int:
        """Bytes of the group's own pages, without those of files."""
        name = "rss" if self.old else "anon"
        for line in (self.path / "memory.stat").read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
        return 0

    @property
    def killed(self) -> bool:
        """Whether the kernel has killed a process of it."""
        file = "memory.oom_control" if self.old else "memory.events"
        lines = (self.path / file).read_text().splitlines()
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def possible() -> bool:
    """Whether a memory cgroup can be made here."""
    try:
        group = Group(f"gateway-bench-{os.getpid()}", 64 * MIB)
    except OSError:
        return False
    group.remove()
    return True


@contextlib.contextmanager
def probing(port: int) -> Iterator[Callable[[], float]]:
    """Ask for `/livez` from another process; gives the slowest answer so far, in seconds."""
    command = [sys.executable, "-m", "tests.bench.memory", "probe", str(port)]
    with tempfile.TemporaryFile("w+") as output:
        program = subprocess.Popen(command, stdout=output)

        def slowest() -> float:
            output.seek(0)
            return max((float(line) for line in output.read().splitlines()), default=0.0)

        try:
            yield slowest
        finally:
            end(program)


def probe(port: int) -> None:
    """Print how long `/livez` takes, ten times a second, whenever it is slower than before."""
    slowest = 0.0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while True:
        began = time.perf_counter()
        connection.request("GET", "/livez")
        connection.getresponse().read()
        took = time.perf_counter() - began
        if took > slowest:
            slowest = took
            sys.stdout.write(f"{took}\n")
            sys.stdout.flush()
        time.sleep(0.1)


CONFIG = """
[server]
listen = "127.0.0.1:{port}"
max_connections = 4096
max_connections_per_peer = 4096
[admin]
listen = "127.0.0.1:{admin}"
[log]
access = false
[queue]
length = 4096
[health]
probes = false
[[backends]]
name = "gpu-0"
url = "http://127.0.0.1:{backend}"
dialect = "openai"
models = ["m"]
slots = 1
"""
ANSWER = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()  # fmt: skip


@contextlib.asynccontextmanager
async def backend(seconds: float) -> AsyncIterator[int]:
    """A card that takes so long for each answer; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(
                    int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                )
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=64 * 1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def chat(size: int) -> bytes:
    """A request with a body of about so many bytes."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]}).encode()


async def ask(port: int, body: bytes, *, leave_after: float = 0.0, part: float = 1.0) -> str:
    """Ask once; gives the status, or how it ended. Leaves after so many seconds, if any."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer = None
    try:
        async with asyncio.timeout(leave_after or 300):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for start in range(0, int(len(body) * part) or 1, 262_144):
                writer.write(head + body[start : min(start + 262_144, int(len(body) * part))])
                head = b""
                await writer.drain()
            answer = await reader.read()
        return answer[9:12].decode() or "closed"
    except TimeoutError:
        return "left" if leave_after else "no answer"
    except OSError:
        return "cut"
    finally:
        if writer is not None:
            writer.transport.abort()


async def bodies(port: int, load: Load, found: Found) -> None:
    """Many large bodies at once."""
    body = chat(load.size)
    found.answers.update(await asyncio.gather(*(ask(port, body) for _ in range(load.bodies))))


async def waiting(port: int, load: Load, found: Found) -> None:
    """Many small requests that wait, leave, and come again."""
    until = time.monotonic() + load.seconds

    async def client(place: int) -> None:
        turn = place
        while time.monotonic() < until:
            turn += 7
            found.answers[await ask(port, chat(500), leave_after=5 + turn % 20)] += 1

    await asyncio.gather(*(client(place) for place in range(load.waiting)))


async def leaving(port: int, load: Load, found: Found) -> None:
    """Clients with large bodies that leave, again and again."""
    body = chat(load.large)
    until = time.monotonic() + load.seconds / 5

    async def client(place: int) -> None:
        turn = place
        while time.monotonic() < until:
            turn += 7
            part = 0.5 if turn % 3 == 0 else 1.0
            found.answers[await ask(port, body, leave_after=3 + turn % 10, part=part)] += 1

    await asyncio.gather(*(client(place) for place in range(load.leaving)))


Case = Callable[[int, Load, Found], Awaitable[None]]
CASES: tuple[Case, ...] = (bodies, waiting, leaving)


async def measured(case: Case, mib: int, load: Load) -> Found:
    """One gateway in a group of this size, under one load."""
    found = Found(f"{case.__name__} in {mib} MiB")
    port, admin = free_port(), free_port()
    group = Group(f"gateway-bench-{os.getpid()}-{port}", mib * MIB)
    with tempfile.TemporaryDirectory() as folder:
        async with backend(0.02) as behind:
            program = _serving(folder, group, CONFIG.format(port=port, admin=admin, backend=behind))
            try:
                await asyncio.to_thread(wait_listening, port, program, 60.0)
                with probing(admin) as slowest:
                    await _watched(case(port, load, found), group, found)
                    found.slowest = slowest()
                found.killed = group.killed or program.poll() is not None
            finally:
                end(program)
                group.remove()
    return found


def _serving(folder: str, group: Group, config: str) -> subprocess.Popen[bytes]:
    """A gateway in the group."""
    path = Path(folder, "config.toml")
    path.write_text(config)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]
    with Path(folder, "log").open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=group.enter)


async def _watched(work: Awaitable[None], group: Group, found: Found) -> None:
    running = asyncio.ensure_future(work)
    period = 0.25
    while not running.done():
        found.held.append(group.used)
        found.peak = max(found.peak, found.held[-1])
        await asyncio.wait({running}, timeout=period)
    await running
    await asyncio.sleep(6)  # the gateway cleans up every five seconds
    found.held.append(group.used)


async def course(load: Load, sizes: tuple[int, ...], tell: Callable[[str], None]) -> list[str]:
    """Everything; gives what is wrong."""
    faults = []
    for mib in sizes:
        for case in CASES:
            found = await measured(case, mib, load)
            tell(str(found))
            faults += found.faults()
    return faults


def main() -> int:
    """The program; gives its exit status."""
    if sys.argv[1:2] == ["probe"]:
        probe(int(sys.argv[2]))
    if not possible():
        say("No memory cgroup can be made here: that needs root and /sys/fs/cgroup, of version 1 or 2.")
        return 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    load = Load(seconds=60 * number(os.environ, "MINUTES", 10))
    faults = asyncio.run(course(load, SIZES, say))
    say("\n".join(faults) if faults else "kept: all of it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
