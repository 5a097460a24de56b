"""One bench: the mock, the load client, and a target measured alone on its core."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import process
from tests.bench.kit import Kit
from tests.bench.record import Record, Sample, sample_of
from tests.bench.target import ENVIRONMENT, KEY, Ports, Target, command_of
from tests.bench.workload import EVENTS, PATH, WORKLOADS, Workload, body

STARTING = 60.0
"""Seconds that a target may take until it answers."""
SETTLING = 0.3
"""Seconds between a target's first answer and the look at its idle memory."""
SLACK = 40.0
"""Seconds that a load client may take longer than its workload, before it is ended."""
WARM = (
    replace(WORKLOADS["c32"], clients=16, seconds=1.0),
    replace(WORKLOADS["s100"], clients=16, seconds=0.4, gap_us=0),
)
"""Done before anything is counted: the first requests of a program cost many times the later ones."""


class Served(NamedTuple):
    """A target that answers: its port, its second port, its process (0 where there is no proxy)."""

    port: int
    second: int = 0
    pid: int = 0

    def cpu_seconds(self) -> dict[int, float]:
        """See `process.cpu_seconds`."""
        return process.cpu_seconds(self.pid) if self.pid else {}

    def pss_mib(self) -> float:
        """See `process.pss_mib`."""
        return process.pss_mib(self.pid) if self.pid else 0.0


@dataclass
class Bench:
    """A running mock. `run` is the folder of what is made; the cores are the proxy's and everybody else's."""

    kit: Kit
    run: Path
    cores: tuple[int, int]
    mock_port: int
    scale: float = 1.0
    """What the seconds of every workload are multiplied with."""

    def measure(self, target: Target, turn: int, workloads: Mapping[str, Workload]) -> Record:
        """Start the target, do all workloads it can do, end it."""
        record = Record(target.name, turn, target.version)
        try:
            with self.serving(target) as served:
                self._fill(record, target, served, workloads)
        except (RuntimeError, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            record.failed = str(error) or type(error).__name__
        record.load_average = os.getloadavg()[0]
        return record

    @contextlib.contextmanager
    def serving(self, target: Target) -> Iterator[Served]:
        """The target, answering. Raises `RuntimeError` when it never does."""
        if not target.command:
            yield Served(self.mock_port)
            return
        ports = Ports(process.free_port(), process.free_port(), self.mock_port)
        command = command_of(target, ports, self.run)
        environment = {**(os.environ if target.name == "gateway" else ENVIRONMENT), "HOME": str(self.run)}
        log = self.run / f"{target.name}.log"
        with process.started(command, core=self.cores[0], log=log, environment=environment) as program:
            process.wait_listening(ports.own, program, STARTING)
            self._wait_answer(ports.own)
            yield Served(ports.own, ports.second, program.pid)

    def _wait_answer(self, port: int) -> None:
        """Wait for the first 200; routers look at their backends before they send anything there."""
        deadline = time.monotonic() + STARTING
        request = body(WORKLOADS["c32"], relayed=False)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("POST", PATH, request, headers)
                answer = connection.getresponse()
                if answer.status == 200:
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"it answers {answer.status}: {answer.read(200)!r}")
            if time.monotonic() > deadline:
                raise RuntimeError("it gives no answer")
            time.sleep(0.1)

    def _fill(
        self, record: Record, target: Target, served: Served, workloads: Mapping[str, Workload]
    ) -> None:
        time.sleep(SETTLING)
        record.pss_idle = served.pss_mib()
        for warm in WARM:
            self.steer(warm)
            self.load(target, served.port, warm)
        for name, workload in workloads.items():
            if target.takes(workload.native):
                record.samples[name] = self._sample(target, served, workload)
        record.pss_after = served.pss_mib()

    def _sample(self, target: Target, served: Served, workload: Workload) -> Sample:
        if workload.native:
            self.load(target, served.port, replace(workload, seconds=0.5))
        self.steer(workload)
        before = served.cpu_seconds()
        report = self.load(target, served.port, workload)
        after = served.cpu_seconds()
        return sample_of(report, sum(used - before.get(one, 0.0) for one, used in after.items()))

    def steer(self, workload: Workload) -> None:
        """Tell the mock how its next streams go."""
        connection = http.client.HTTPConnection("127.0.0.1", self.mock_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", f"/_ctl?n={EVENTS}&us={workload.gap_us}")
            connection.getresponse().read()

    def load(self, target: Target, port: int, workload: Workload) -> dict[str, Any]:
        """Run the clients of one workload; what they printed. Raises `RuntimeError` when they failed."""
        native = workload.native and target.relays
        file = self.run / f"body-{workload.name}-{'native' if native else 'chat'}.json"
        file.write_bytes(body(workload, relayed=target.relays))
        seconds = workload.seconds * self.scale
        options = {
            "-p": port,
            "-b": file,
            "-u": "/" if native else PATH,
            "-k": KEY,
            "-c": workload.clients,
            "-s": seconds,
            "-r": workload.rate,
            "-e": workload.expects,
        }
        words = [str(word) for pair in options.items() for word in pair]
        told = subprocess.run(
            [*self.kit.load, *words],
            capture_output=True,
            text=True,
            timeout=seconds + SLACK,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.cores[1]}),
        )
        if told.returncode:
            raise RuntimeError(f"the clients failed: {told.stderr[-300:]}")
        report: dict[str, Any] = json.loads(told.stdout)
        return report


@contextlib.contextmanager
def bench(kit: Kit, run: Path, scale: float = 1.0) -> Iterator[Bench]:
    """A bench with its mock running. One core is enough, but then the figures mean little."""
    cores = sorted(os.sched_getaffinity(0))
    pair = (cores[0], cores[-1])
    port = process.free_port()
    with process.started([*kit.mock, "-p", str(port)], core=pair[1], log=run / "mock.log") as mock:
        process.wait_listening(port, mock, 20)
        yield Bench(kit, run, pair, port, scale)
