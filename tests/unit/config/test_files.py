from pathlib import Path
from typing import Any

import pytest

from gateway.config.fault import ValueProblem
from gateway.config.files import with_files


def read(data: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[ValueProblem]]:
    complaints: list[ValueProblem] = []
    return with_files(data, folder, complaints), complaints


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_is_read_without_its_trailing_newline(tmp_path: Path, ending: str) -> None:
    (tmp_path / "team.key").write_bytes(f"abcdefgh{ending}".encode())
    data, complaints = read({"keys": [{"key_file": "team.key"}]}, tmp_path)
    assert data["keys"][0] == {"key_file": str(tmp_path / "team.key"), "key": "abcdefgh"}
    assert complaints == []


def test_a_backend_key_is_read_too_and_absolute_paths_stay(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("s.3cret")
    data, _ = read({"backends": [{"api_key_file": str(tmp_path / "x")}]}, Path("/elsewhere"))
    assert data["backends"][0]["api_key"] == "s.3cret"


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b" \n", "is empty", id="blank"),
        pytest.param(b"\xff\xfe", "holds no text", id="not-utf-8"),
        pytest.param(b"x" * 70_000, "too large", id="large"),
        pytest.param(None, "cannot be read: no such file", id="missing"),
    ],
)
def test_a_useless_secret_file_is_reported(tmp_path: Path, content: bytes | None, mend: str) -> None:
    if content is not None:
        (tmp_path / "k").write_bytes(content)
    _, complaints = read({"keys": [{"key_file": "k"}]}, tmp_path)
    assert complaints[0].path == ("keys", 0, "key_file")
    assert mend in complaints[0].message


def test_a_secret_beside_its_file_is_one_too_many(tmp_path: Path) -> None:
    _, complaints = read({"backends": [{"api_key": "a", "api_key_file": "k"}]}, tmp_path)
    assert complaints == [
        ValueProblem(("backends", 0, "api_key_file"), "api_key is given too; keep one of them")
    ]


def test_certificates_are_looked_for_beside_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    tls = {"ca_file": "ca.pem", "cert_file": "missing.pem"}
    data, complaints = read({"backends": [{"tls": tls}]}, tmp_path)
    assert data["backends"][0]["tls"]["ca_file"] == str(tmp_path / "ca.pem")
    assert [complaint.path for complaint in complaints] == [("backends", 0, "tls", "cert_file")]


@pytest.mark.parametrize(
    "data",
    [
        {"keys": "x"},
        {"keys": [1, {"key_file": 2}]},
        {"backends": {"tls": 1}},
        {"backends": [{"tls": 1}, {"tls": {"ca_file": 1}}]},
    ],
)
def test_wrong_types_are_left_to_later_checks(tmp_path: Path, data: dict[str, Any]) -> None:
    assert read(data, tmp_path) == (data, [])
