"""`gateway serve` and `gateway demo` on a real terminal, and where standard output is none."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.stack import threaded

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.lower().endswith("_proxy") and name not in ("NO_COLOR", "TERM")
}

CONFIG = """
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
{log}
[[backends]]
name = "gpu-0"
url = "{url}"
dialect = "openai"
models = ["m"]
[[backends]]
name = "gpu-1"
url = "http://127.0.0.1:1"
dialect = "chatglm2"
models = ["m"]
"""


class Screen:
    """What a program has written on its terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def read_until(self, pattern: str) -> str:
        """Read on until a pattern is there; give what its first group matched."""
        while (found := re.search(pattern, self.text)) is None:
            self.text += os.read(self._descriptor, 4096).decode()
        return found[1] if found.re.groups else found[0]

    def read_to_end(self) -> None:
        try:
            while piece := os.read(self._descriptor, 4096):
                self.text += piece.decode()
        except OSError:  # Linux says so when the last who could write has gone
            return


@contextmanager
def on_a_terminal(*words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway", *words]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        try:
            yield process, Screen(ours)
        finally:
            process.kill()
            os.close(ours)


def post(url: str, model: str = "m") -> int:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "你好 secret"}]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(answer.status)


def config_file(folder: Path, url: str, log: str = "") -> str:
    path = folder / "gateway.toml"
    path.write_text(CONFIG.format(url=url, log=log))
    return str(path)


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    """The address of a simulated server."""
    with threaded("openai") as one:
        yield one.only.url


def test_serve_on_a_terminal_prints_a_banner_and_a_line_for_each_request(
    tmp_path: Path, backend: str
) -> None:
    path = config_file(tmp_path, backend)
    with on_a_terminal("serve", "--config", path, TERM="xterm") as (process, screen):
        url = screen.read_until(r"ChatGLM API  (http://127\.0\.0\.1:\d+)/")
        screen.read_until("Ctrl-C")
        assert "Backends     1 up, 1 down (gpu-1)" in screen.text
        assert "  m: gpu-0, gpu-1" in screen.text
        assert path in screen.text
        assert post(f"{url}/v1/chat/completions") == 200
        screen.read_until(r"\x1b\[32m200\x1b\[0m  m  gpu-0  \d+\+\d+ tokens  .*\d\.\d\d s\r?\n")
        process.send_signal(signal.SIGINT)
        screen.read_to_end()
        assert process.wait(30) == 0
    assert "secret" not in screen.text
    assert '{"ts"' not in screen.text


def test_no_color_is_obeyed_on_a_terminal(tmp_path: Path, backend: str) -> None:
    path = config_file(tmp_path, backend)
    with on_a_terminal("serve", "--config", path, TERM="xterm", NO_COLOR="1") as (_, screen):
        url = screen.read_until(r"ChatGLM API  (http://127\.0\.0\.1:\d+)/")
        assert post(f"{url}/v1/chat/completions") == 200
        screen.read_until(r"200  m  gpu-0")
    assert "\x1b" not in screen.text


def test_a_terminal_gets_json_when_configured(tmp_path: Path, backend: str) -> None:
    path = config_file(tmp_path, backend, '[log]\nformat = "json"')
    with on_a_terminal("serve", "--config", path, TERM="xterm") as (_, screen):
        screen.read_until(r'"event":"start"')
    assert json.loads(screen.text.splitlines()[0])


def test_serve_writes_json_where_standard_output_is_no_terminal(tmp_path: Path, backend: str) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--config", config_file(tmp_path, backend)]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        process.terminate()
        lines = process.stdout.read().splitlines()
        assert process.wait(30) == 0
    assert started["event"] == "start"
    assert all(json.loads(line) for line in lines)


def test_the_demo_shows_requests_as_they_come() -> None:
    with on_a_terminal("demo", "--port", "0", NO_COLOR="1") as (process, screen):
        url = screen.read_until(r"The gateway listens on (\S+)")
        screen.read_until("Your turn")
        assert post(f"{url}/v1/chat/completions", "chatglm3-6b") == 200
        screen.read_until(r"Your turn(?s:.*)200  chatglm3-6b  sim-4  ")
        process.send_signal(signal.SIGINT)
        screen.read_to_end()
        assert process.wait(30) == 0


ALONE = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a shell, even where these tests run under nohup
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[1:]])
"""
"""A program that makes its standard input the terminal of its session, and becomes the gateway."""


@contextmanager
def on_a_terminal_of_its_own(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the program as a shell would, and give the other end of its terminal: who closes it hangs up."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, *words],
        cwd=ROOT,
        env=ENVIRONMENT | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()


@pytest.mark.parametrize("file", [True, False], ids=["config-file", "command-line"])
def test_serve_ends_with_the_terminal_that_it_runs_on(tmp_path: Path, backend: str, file: bool) -> None:
    words = ["--config", config_file(tmp_path, backend)] if file else ["--backend", backend, "--model", "m"]
    words += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with on_a_terminal_of_its_own("serve", *words) as (process, ours):
        Screen(ours).read_until("Ctrl-C ends it")
        os.close(ours)
        assert process.wait() == 0


def test_a_hangup_on_a_terminal_that_is_there_has_the_file_read_again(tmp_path: Path, backend: str) -> None:
    path = config_file(tmp_path, backend)
    with on_a_terminal("serve", "--config", path, TERM="xterm") as (process, screen):
        screen.read_until("Ctrl-C ends it")
        process.send_signal(signal.SIGHUP)
        screen.read_until("result=unchanged")
        process.send_signal(signal.SIGINT)
        screen.read_to_end()
        assert process.wait() == 0
