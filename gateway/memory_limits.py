"""How much memory the process may take, and how the C library gives back what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

MOST = 256 * 1024 * 1024
"""Bytes for requests where nothing limits the process, and the most that is taken without being told to."""
LEAST = 8 * 1024 * 1024
"""Bytes for requests in the smallest container."""
_PAGE = resource.getpagesize()
_UNLIMITED = 2**60
_CGROUPS = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BLOCK = 256 * 1024
_SPARE = 4 * 1024 * 1024


def for_requests() -> int:
    """Bytes that requests may hold: half of what the limit of the cgroup or the process leaves free now.

    The other half is for what cannot be counted: sockets, answers, fragmentation, the parsing of a body.
    """
    size, resident = _taken()
    rooms = [limit - resident for limit in cgroup_limits()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1):
        rooms.append(limit - size)
    return max(LEAST, min([MOST, *(room // 2 for room in rooms)]))


def _taken() -> tuple[int, int]:
    """The address space and the memory in use, in bytes."""
    try:
        size, resident = Path("/proc/self/statm").read_text().split()[:2]
    except OSError:
        return 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(size) * _PAGE, int(resident) * _PAGE


def cgroup_limits(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The limits of the process's cgroup and of all around it, in bytes; empty where there is none."""
    found: list[int] = []
    for line in _text(own).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path may be the host's: then only the root is there.
        for folder in (group, *group.parents):
            text = _text(folder / name).strip()
            if text.isdigit() and int(text) < _UNLIMITED:
                found.append(int(text))
            if folder == base:
                break
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def tune() -> None:
    """Have the C library give large blocks back as soon as they are free; where it is not glibc, nothing.

    By itself glibc raises its threshold for such blocks with each that is freed, and keeps an arena of 64 MiB
    for each thread: both turn a burst of large bodies into memory that stays taken.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - raises where it is another library
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, _SPARE)
        library.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give back the pages that are free inside the heap; where that cannot be, nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
