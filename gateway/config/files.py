"""Files that a config file names: secrets are read, certificates are looked for.

Paths are relative to the config file's folder, so that a mounted folder works wherever it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config.fault import KeyPath, ValueProblem

_SECRETS = {"backends": ("api_key_file", "api_key"), "keys": ("key_file", "key")}
"""List of tables: (key that names a file, key that its text becomes)."""

_TLS_FILES = ("ca_file", "cert_file", "key_file")

_MAX_SECRET = 65_536
"""No key is longer (bytes); a larger file was named by mistake."""


def with_files(data: dict[str, Any], folder: Path, complaints: list[ValueProblem]) -> dict[str, Any]:
    """Make the paths in `data` absolute and read the secrets; what fails is added to `complaints`."""
    for section, (file_key, key) in _SECRETS.items():
        for index, table in _tables(data, section):
            path: KeyPath = (section, index, file_key)
            if isinstance(table.get(file_key), str):
                _read_secret(table, file_key, key, folder, path, complaints)
    for index, table in _tables(data, "backends"):
        if isinstance(table.get("tls"), dict):
            _find_certificates(table["tls"], folder, ("backends", index, "tls"), complaints)
    return data


def _tables(data: dict[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the tables of a list that may not be a list: types are checked later."""
    items = data.get(section)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield index, item


def _read_secret(
    table: dict[str, Any],
    file_key: str,
    key: str,
    folder: Path,
    path: KeyPath,
    complaints: list[ValueProblem],
) -> None:
    if key in table:
        complaints.append(ValueProblem(path, f"{key} is given too; keep one of them"))
        return
    file = folder / table[file_key]
    table[file_key] = str(file.absolute())
    try:
        table[key] = _secret(file)
    except ValueError as error:
        complaints.append(ValueProblem(path, str(error)))


def _secret(file: Path) -> str:
    """Read a secret without its trailing newline; ValueErrors name the file, never what it holds."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ValueError(_unreadable(file, error)) from error
    if len(raw) > _MAX_SECRET:
        raise ValueError(f"{file} is too large to be a key; name the file that holds the key alone")
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} holds no text") from error
    if not text.strip():
        raise ValueError(f"{file} is empty; write the key into it")
    return text


def _find_certificates(
    tls: dict[str, Any], folder: Path, path: KeyPath, complaints: list[ValueProblem]
) -> None:
    for key in _TLS_FILES:
        if not isinstance(tls.get(key), str):
            continue
        file = folder / tls[key]
        tls[key] = str(file.absolute())
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            complaints.append(ValueProblem((*path, key), _unreadable(file, error)))


def _unreadable(file: Path, error: OSError) -> str:
    reason = (error.strerror or "no reason given").lower()
    return (
        f"{file} cannot be read: {reason}; check the path (relative to the config file) and its permissions"
    )
