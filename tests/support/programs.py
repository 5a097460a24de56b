"""Runs the client programs of `tests/e2e/clients`, each with the python of its own environment."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import openai_modern

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "e2e" / "clients"


def seen_here(url: str, *jobs: str, prompt: str = "你好") -> dict[str, Any]:
    """Run jobs of the newest SDK's program in this process: the same calls, without a start for each."""
    arguments = argparse.Namespace(url=url, model="m", key="", prompt=prompt, timeout=30.0)
    client = openai_modern.Jobs(arguments)
    with client.client:
        return {job: openai_modern.attempt(getattr(client, job)) for job in jobs}


def python_of(environment: str) -> str:
    """Give the interpreter of an environment; skip where it is not there, unless demanded."""
    python = ROOT / ".clients" / environment / "bin" / "python"
    if not python.exists():
        reason = f"the environment {environment} is not there: run `make test-clients`"
        if os.environ.get("GATEWAY_REQUIRE_CLIENTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(python)


def seen(environment: str, program: str, **arguments: str) -> dict[str, Any]:
    """Run a program and give what its client saw."""
    options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    finished = subprocess.run(
        [python_of(environment), str(CLIENTS / f"{program}.py"), *options],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    result: dict[str, Any] = json.loads(finished.stdout)
    return result
