"""The programs that are measured: the gateway, no proxy at all, and others as anchors where they are."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway import __version__

HERE = Path(__file__).parent
KEY = "sk-bench-0000000000000000000000000000000000000000"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Target:
    """One program. In `command` and `config` the @NAMES@ PORT, PORT2, MOCK, RUN and CONF are filled in.

    `relays`: passes any path on, so it gets native bodies. `translates`: knows the native model.
    """

    name: str
    version: str
    command: tuple[str, ...] = ()
    config: Path | None = None
    relays: bool = False
    translates: bool = False

    def takes(self, native: bool) -> bool:
        """Whether it can be asked such work."""
        return not native or self.relays or self.translates


@dataclass(frozen=True)
class Ports:
    """Where a target listens, its second port (metrics), and the mock's port."""

    own: int
    second: int
    mock: int


def filled(text: str, ports: Ports, run: Path, conf: str = "") -> str:
    """The text with every @NAME@ replaced."""
    values = {"PORT": ports.own, "PORT2": ports.second, "MOCK": ports.mock, "RUN": run, "CONF": conf}
    return re.sub(r"@([A-Z0-9]+)@", lambda found: str(values.get(found[1], found[0])), text)


def command_of(target: Target, ports: Ports, run: Path) -> list[str]:
    """Write the target's configuration and give the command that starts it."""
    conf = ""
    if target.config is not None:
        file = run / target.config.name
        file.write_text(filled(target.config.read_text(encoding="utf-8"), ports, run), encoding="utf-8")
        conf = str(file)
    return [filled(word, ports, run, conf) for word in target.command]


def targets() -> dict[str, Target]:
    """Those that are here, `direct` (no proxy) first and the gateway last."""
    found = [Target("direct", "", relays=True), _nginx(), *map(_router, ROUTERS), _gateway()]
    return {one.name: one for one in found if one is not None}


def _gateway() -> Target:
    command = (sys.executable, "-m", "gateway", "serve", "--config", "@CONF@")
    version = f"{__version__}, Python {platform.python_version()}"
    return Target("gateway", version, command, HERE / "gateway.toml", translates=True)


def _nginx() -> Target | None:
    program = _found("NGINX", "nginx")
    if program is None:
        return None
    return Target(
        "nginx", _version(program, "-v"), (program, "-c", "@CONF@"), HERE / "nginx.conf", relays=True
    )


ROUTERS = {
    "vllm-router": ("VLLM_ROUTER", "vllm-router", (), ("--log-level", "warning")),
    "smg": ("SMG", "smg", ("launch",), ("--log-level", "warn", "--max-concurrent-requests", "8192")),
}
"""Variable and name of the program, what comes before the common options, and what comes after."""


def _router(name: str) -> Target | None:
    variable, called, before, after = ROUTERS[name]
    program = _found(variable, called)
    if program is None:
        return None
    options = (
        "--worker-urls", "http://127.0.0.1:@MOCK@", "--policy", "round_robin", "--host", "127.0.0.1",
        "--port", "@PORT@", "--prometheus-port", "@PORT2@",
    )  # fmt: skip
    return Target(name, _packaged(Path(program), name), (program, *before, *options, *after))


def _found(variable: str, name: str) -> str | None:
    return os.environ.get(variable) or shutil.which(name) or shutil.which(name, path=ENVIRONMENT["PATH"])


def _version(program: str, option: str) -> str:
    told = subprocess.run([program, option], capture_output=True, text=True, timeout=10)
    found = re.search(r"\d+\.\d+[.\d]*", told.stdout + told.stderr)
    return found[0] if found else ""


def _packaged(program: Path, name: str) -> str:
    """The version of the package that brought a program, from the environment it lies in."""
    pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
    for folder in program.resolve().parents[1].glob(pattern):
        return folder.name.removesuffix(".dist-info").partition("-")[2]
    return ""
