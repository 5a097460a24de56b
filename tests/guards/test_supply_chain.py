"""What comes from others: pinned by hash, of a licence we may use, above the known holes, and not much."""

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").rglob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

WELCOME = (
    "MIT",
    "BSD",
    "0BSD",
    "Apache",
    "ISC",
    "PSF",
    "Python-2.0",
    "Python Software Foundation",
    "Unlicense",
)
"""How the names of licences begin that need no second look."""

NOTED = {"certifi"}
"""Packages under MPL-2.0: used unchanged, and only because httpx needs them."""

FLOORS = {
    "starlette": "1.3.1",  # CVE-2023-30798, CVE-2023-29159, CVE-2026-48710, limits of forms
    "uvicorn": "0.51.0",  # CVE-2020-7694, CVE-2020-7695
    "httpx": "0.23.0",  # CVE-2021-41945
    "h11": "0.16.0",  # CVE-2025-43859
    "httptools": "0.8.0",  # what uvicorn asks for since 0.49
}
"""Oldest versions without a published hole in what we use."""

BANNED = {"litellm"}
"""Never, not even for tests: releases of it carried malicious code, and importing it has side effects."""


class Pin(NamedTuple):
    """One entry of a lock."""

    name: str
    version: Version
    marker: str
    hashes: int


def entries(lock: Path) -> list[str]:
    """Join a lock's continued lines and drop its comments: one text an entry."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def pins(lock: Path) -> list[Pin]:
    return [pin(entry) for entry in entries(lock)]


def pin(entry: str) -> Pin:
    demand, *hashes = entry.split(" --hash=sha256:")
    requirement = Requirement(demand)
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", entry
    name = canonicalize_name(requirement.name)
    return Pin(name, Version(specifier.version), str(requirement.marker or ""), len(hashes))


def by_name(lock: Path) -> dict[tuple[str, str], Version]:
    return {(found.name, found.marker): found.version for found in pins(lock)}


def lock_named(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


def shown(lock: Path) -> str:
    return lock.relative_to(ROOT / "requirements").with_suffix("").as_posix()


def applies(entry: str) -> bool:
    marker = Requirement(entry.split(" --hash=")[0]).marker
    return marker is None or marker.evaluate()


def shipped() -> list[str]:
    """Name the packages that a user of the core or of an extra gets on this platform."""
    extras = PROJECT["project"]["optional-dependencies"]
    locks = [lock_named("core"), *(lock_named(extra) for extra in extras)]
    return sorted({pin(entry).name for lock in locks for entry in entries(lock) if applies(entry)})


def licences(package: str) -> list[str]:
    """List what a package says of its licence: an SPDX expression, else classifiers, else the free field."""

    def told(field: str) -> list[str]:
        return [str(value) for value in metadata.get_all(field, [])]

    metadata = importlib.metadata.metadata(package)
    expressions = [re.split(r"\s+(?:AND|OR)\s+|[()]", text) for text in told("License-Expression")]
    classifiers = [
        text.rpartition(" :: ")[2] for text in told("Classifier") if text.startswith("License :: ")
    ]
    free = [text.partition("\n")[0] for text in told("License")]
    spdx = [part for parts in expressions for part in parts if part]
    return spdx or [name for name in classifiers if name != "OSI Approved"] or free


@pytest.mark.parametrize("lock", LOCKS, ids=shown)
def test_every_entry_of_a_lock_has_an_exact_version_and_hashes(lock: Path) -> None:
    found = pins(lock)
    assert found
    assert [entry.name for entry in found if entry.hashes == 0] == []


@pytest.mark.parametrize("lock", LOCKS, ids=shown)
def test_no_lock_names_an_address(lock: Path) -> None:
    assert (
        re.findall(
            r"https?:|file:|--(?:extra-)?index|--find-links|--trusted|-[if] |-e |git\+", lock.read_text()
        )
        == []
    )


def test_nothing_that_installs_names_an_address() -> None:
    files = [ROOT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", ".ci/run")]
    found = {
        file.name: re.findall(
            r"--(?:extra-)?index-url|--find-links|\[\[tool\.uv\.index\]\]", file.read_text()
        )
        for file in files
    }
    assert not any(found.values()), found


def test_the_locks_are_pip_locks_only() -> None:
    assert not (ROOT / "uv.lock").exists()
    assert not (ROOT / "poetry.lock").exists()


@pytest.mark.parametrize("source", sorted((ROOT / "requirements").rglob("*.in")), ids=shown)
def test_every_source_of_a_lock_has_its_lock(source: Path) -> None:
    asked = [
        Requirement(line) for line in source.read_text().splitlines() if line and not line.startswith("#")
    ]
    locked = {found.name: found.version for found in pins(source.with_suffix(".txt"))}
    assert all(locked[canonicalize_name(demand.name)] in demand.specifier for demand in asked)


@pytest.mark.parametrize("name", ["dev", *PROJECT["project"]["optional-dependencies"]])
def test_other_locks_pin_the_core_as_the_core_lock_does(name: str) -> None:
    core = by_name(lock_named("core"))
    assert core.items() <= by_name(lock_named(name)).items()


def test_the_development_lock_pins_the_build_tools_as_the_image_does() -> None:
    assert by_name(lock_named("build")).items() <= by_name(lock_named("dev")).items()


def test_the_core_lock_holds_every_dependency_of_the_project_and_no_more_than_twenty_five_packages() -> None:
    locked = {found.name: found.version for found in pins(lock_named("core"))}
    asked = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    assert all(locked[canonicalize_name(demand.name)] in demand.specifier for demand in asked)
    assert len(locked) <= 25


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_the_core_lock_is_above_the_advisory_floor(package: str, floor: str) -> None:
    (locked,) = [found.version for found in pins(lock_named("core")) if found.name == package]
    assert locked >= Version(floor)


@pytest.mark.parametrize(
    "package",
    [
        name
        for name in FLOORS
        if any(Requirement(text).name == name for text in PROJECT["project"]["dependencies"])
    ],
)
def test_the_project_admits_nothing_below_the_advisory_floor(package: str) -> None:
    (demand,) = [
        Requirement(text) for text in PROJECT["project"]["dependencies"] if Requirement(text).name == package
    ]
    lower = [Version(bound.version) for bound in demand.specifier if bound.operator in {">=", "==", "~="}]
    assert lower
    assert max(lower) >= Version(FLOORS[package])


@pytest.mark.parametrize("lock", LOCKS, ids=shown)
def test_banned_packages_are_in_no_lock(lock: Path) -> None:
    assert {found.name for found in pins(lock)} & BANNED == set()


def test_the_project_needs_python_3_11_and_every_tool_is_set_to_it() -> None:
    demand = SpecifierSet(PROJECT["project"]["requires-python"])
    assert ("3.11" in demand, "3.13" in demand, "3.10" in demand) == (True, True, False)
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.11"


@pytest.mark.parametrize("package", shipped())
def test_every_shipped_package_has_a_welcome_licence(package: str) -> None:
    try:
        found = licences(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is of an extra that is not installed here")
    strange = [name for name in found if not name.startswith(WELCOME)]
    assert found
    assert not strange or (
        package in NOTED and all("MPL" in name or "Mozilla" in name for name in strange)
    ), found


def test_every_noted_package_is_still_there() -> None:
    assert set(shipped()) >= NOTED


def test_the_project_itself_is_under_the_apache_licence() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
