"""The systemd unit: understood by systemd, locked down, and at one with the config beside it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "chatglm-gateway.service"
CONFIG = tomllib.loads((FOLDER / "config.toml").read_text())
PROGRAM = "/opt/chatglm-gateway/bin/gateway"
EXPOSURE = 20  # tenths: systemd's own rating of the sandbox, 0 = closed, 100 = open

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: nobody can judge the unit"
)


def settings(name: str) -> list[str]:
    """All values of a setting, in file order."""
    pairs = [line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    return [value for key, _, value in pairs if key == name]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], check=False, capture_output=True, text=True)


@needs_systemd
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    result = analyze("verify", "--man=no", str(unit))
    ours = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert (result.returncode, ours) == (0, [])


@needs_systemd
def test_systemd_rates_the_sandbox_as_tight() -> None:
    result = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("CapabilityBoundingSet", ""),
        ("Restart", "on-failure"),
        ("ExecStart", f"{PROGRAM} serve --config /etc/chatglm-gateway/config.toml"),
    ],
)
def test_the_unit_has_its_setting(setting: str, value: str) -> None:
    assert settings(setting) == [value]


def test_systemd_waits_longer_than_the_gateway_drains() -> None:
    server = CONFIG["server"]
    assert int(settings("TimeoutStopSec")[0]) > server["drain"] + server.get("drain_delay", 0)


def test_every_key_file_of_the_config_is_handed_over_as_a_credential() -> None:
    handed_over = [value.partition(":")[0] for value in settings("LoadCredential")]
    assert [key["key_file"] for key in CONFIG["keys"]] == [
        f"${{CREDENTIALS_DIRECTORY}}/{name}" for name in handed_over
    ]


def test_the_admin_plane_stays_on_this_machine() -> None:
    assert CONFIG["admin"]["listen"].startswith("127.0.0.1:")


# --- the socket ------------------------------------------------------------------------------------

SOCKET = FOLDER / "chatglm-gateway.socket"


@needs_systemd
def test_systemd_understands_the_socket(tmp_path: Path) -> None:
    for unit in (UNIT, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))
    result = analyze("verify", "--man=no", str(tmp_path / SOCKET.name))
    ours = [line for line in result.stderr.splitlines() if SOCKET.name in line or UNIT.name in line]
    assert (result.returncode, ours) == (0, [])


def test_the_socket_listens_where_the_config_says_the_data_plane_first() -> None:
    lines = SOCKET.read_text().splitlines()
    streams = [line.partition("=")[2] for line in lines if line.startswith("ListenStream=")]
    assert streams == [CONFIG["server"]["listen"], CONFIG["admin"]["listen"]]


def test_everything_is_installed_by_hash_the_build_tools_too() -> None:
    comments = [line for line in UNIT.read_text().splitlines() if line.startswith("#")]
    installs = [line.partition("pip install ")[2] for line in comments if "pip install" in line]
    assert installs == [
        "--require-hashes -r requirements/build.txt -r requirements/core.txt",
        "--no-deps --no-build-isolation .",
    ]
