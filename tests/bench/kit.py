"""The mock and the load client: C programs where sources and a compiler are there, else this folder's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kit:
    """How both are started. The C programs and ours take the same options and print the same."""

    name: str
    mock: tuple[str, ...]
    load: tuple[str, ...]


OWN = Kit("Python", (sys.executable, "-m", "tests.bench.mock"), (sys.executable, "-m", "tests.bench.load"))


def sources() -> Path:
    """Where `mock.c` and `load.c` may lie: beside the checkout, or where BENCH_SOURCES says."""
    return Path(os.environ.get("BENCH_SOURCES") or ROOT.parent / "shared" / "bench")


def kit(work: Path) -> Kit:
    """The kit to use; what is compiled goes to `work`. BENCH_KIT=python takes ours in any case."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    files = [sources() / name for name in ("mock.c", "load.c")]
    if (
        os.environ.get("BENCH_KIT") == "python"
        or compiler is None
        or not all(file.exists() for file in files)
    ):
        return OWN
    mock, load = (_compiled(compiler, file, work) for file in files)
    return Kit("C", (str(mock),), (str(load),))


def _compiled(compiler: str, source: Path, work: Path) -> Path:
    program = work / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program
