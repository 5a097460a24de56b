"""The demo as a user sees it: a program of its own whose printed examples work when they are pasted."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.cli.demo import MODELS, QUESTIONS

ROOT = Path(__file__).parents[2]
DIRECT = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


@contextmanager
def demo(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the demo until it waits for its user; yields the process and what it has printed."""
    command = [sys.executable, "-u", "-m", "gateway", "demo", "--port", "0", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=DIRECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, printed_until(process, "Your turn")
        finally:
            process.kill()


def printed_until(process: subprocess.Popen[str], mark: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if mark in line:
            break
    return text


def program_in(text: str) -> str:
    """The printed Python program for the official SDK."""
    found = re.search(r"^from openai import.*?^print\(\)$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[0]


def run(command: list[str] | str) -> str:
    shell = isinstance(command, str)
    return subprocess.run(
        command, shell=shell, env=DIRECT, capture_output=True, text=True, check=True, timeout=30
    ).stdout


def test_the_printed_examples_work_as_printed_and_ctrl_c_ends_it_cleanly() -> None:
    with demo() as (process, text):
        assert "Hello! I am a simulated" in text
        assert "模拟的" in run([sys.executable, "-c", program_in(text)])
        if shutil.which("curl"):
            command = next(line for line in text.splitlines() if line.startswith("curl "))
            assert '"finish_reason":"stop"' in run(command).replace(" ", "")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert rest.strip().endswith("The demo has ended.")
    assert re.search(r"  200  chatglm3-6b \(stream\)  sim-4  ", rest), "requests are shown"


def test_once_asks_every_model_and_ends_by_itself() -> None:
    command = [sys.executable, "-m", "gateway", "demo", "--port", "0", "--once"]
    done = subprocess.run(
        command, cwd=ROOT, env=DIRECT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(done.stdout.count(f"\n{model}\n") == 1 for model in MODELS)
    assert all(done.stdout.count(f"> {question}") == len(MODELS) for question in QUESTIONS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_time_leaves_no_traceback(number: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "gateway", "demo", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=DIRECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        printed_until(process, "Asked through")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
