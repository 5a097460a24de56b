"""How much memory the process takes itself to have, in containers of both kinds and without one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gateway import memory_limits
from gateway.memory_limits import LEAST, MOST

MIB = 2**20


def cgroup(root: Path, path: str, name: str, limit: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(limit + "\n")


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {"": ("memory.max", "268435456")}, [268435456]),
        ("0::/a/b\n", {"a": ("memory.max", "1000"), "a/b": ("memory.max", "max")}, [1000]),
        ("0::/host/path\n", {"": ("memory.max", "2000")}, [2000]),
        ("5:memory:/pod\n", {"memory/pod": ("memory.limit_in_bytes", "3000")}, [3000]),
        ("5:cpu,memory:/\n", {"memory": ("memory.limit_in_bytes", "9223372036854771712")}, []),
        ("5:cpu:/\n", {}, []),
        ("0::/\n", {}, []),
        ("", {}, []),
    ],
    ids=["v2", "v2-parent", "v2-namespace", "v1", "v1-unlimited", "no-memory", "no-file", "nothing"],
)
def test_the_limits_of_all_groups_around_the_process_are_found(
    tmp_path: Path, own: str, files: dict[str, tuple[str, str]], wanted: list[int]
) -> None:
    (tmp_path / "own").write_text(own)
    root = tmp_path / "cgroup"
    for path, (name, limit) in files.items():
        cgroup(root, path, name, limit)
    assert memory_limits.cgroup_limits(root, tmp_path / "own") == wanted


def test_no_cgroup_at_all_is_no_limit(tmp_path: Path) -> None:
    assert memory_limits.cgroup_limits(tmp_path, tmp_path / "none") == []


@pytest.mark.parametrize(
    ("limits", "space", "wanted"),
    [
        ([], resource.RLIM_INFINITY, MOST),
        ([256 * MIB], resource.RLIM_INFINITY, 100 * MIB),
        ([256 * MIB, 192 * MIB], resource.RLIM_INFINITY, 68 * MIB),
        ([], 256 * MIB, 28 * MIB),
        ([60 * MIB], resource.RLIM_INFINITY, LEAST),
    ],
    ids=["none", "cgroup", "two-cgroups", "address-space", "tiny"],
)
def test_requests_may_take_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, limits: list[int], space: int, wanted: int
) -> None:
    monkeypatch.setattr(memory_limits, "cgroup_limits", lambda: limits)
    monkeypatch.setattr(memory_limits, "_taken", lambda: (200 * MIB, 56 * MIB))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (space, space))
    assert memory_limits.for_requests() == wanted


def test_what_is_taken_now_is_known() -> None:
    size, resident = memory_limits._taken()
    assert size >= resident > MIB


def test_memory_is_given_back_without_a_word() -> None:
    memory_limits.tune()
    memory_limits.trim()
