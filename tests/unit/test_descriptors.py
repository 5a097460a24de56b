"""Descriptors are shared out so that clients never take the last ones."""

from __future__ import annotations

import sys

import pytest

from gateway.config import Config
from gateway.descriptors import ADMIN, BESIDES, BURST, LEAST, DescriptorLimits, raised, room, wanted
from tests.support.stack import configured

resource = pytest.importorskip("resource", reason="the system has no limits of this kind")


def settings(most: int = 2048, backends: int = 1, slots: int = 8) -> Config:
    urls = {f"gpu-{place}": (f"http://127.0.0.1:{place + 1}", "openai") for place in range(backends)}
    made = configured(urls, slots=slots)
    return made.model_copy(update={"server": made.server.model_copy(update={"max_connections": most})})


@pytest.mark.parametrize(
    ("most", "backends", "slots", "needed"),
    [(2048, 1, 8, 2058), (100, 3, 1, 109), (0, 1, 8, 65_546)],
    ids=["usual", "several-backends", "no-limit"],
)
def test_what_is_wanted_is_enough_for_clients_backends_and_the_rest(
    most: int, backends: int, slots: int, needed: int
) -> None:
    assert wanted(settings(most, backends, slots)) == needed + ADMIN + 2 * BURST + BESIDES


def test_where_there_are_enough_nobody_is_confined() -> None:
    usual = settings()
    assert room(usual, wanted(usual)) is None
    assert room(usual, None) is None


@pytest.mark.parametrize("limit", [64, 100, 128, 256, 1024, 2047])
@pytest.mark.parametrize("backends", [1, 20])
def test_where_they_are_scarce_all_together_fit_the_limit(limit: int, backends: int) -> None:
    found = room(settings(backends=backends), limit)
    assert found is not None
    reserved = min(10 * backends, (limit - BESIDES - ADMIN) // 2)
    both_rushed = 2 * found.backlog + found.turned_away
    if limit > 64:
        assert found.data + found.admin + both_rushed + reserved + BESIDES <= limit
    assert found.data >= LEAST
    assert found.limit == limit


def test_few_clients_are_not_more_because_there_are_descriptors() -> None:
    few = settings(most=50)
    found = room(few, wanted(few) - 1)
    assert found is not None
    assert found.data == 50


class Limits:
    """The system's limits; `fixed` ones cannot be changed."""

    RLIM_INFINITY = -1
    RLIMIT_NOFILE = 7

    def __init__(self, soft: int, hard: int, *, fixed: bool = False) -> None:
        self.values = soft, hard
        self._fixed = fixed

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == self.RLIMIT_NOFILE
        return self.values

    def setrlimit(self, kind: int, values: tuple[int, int]) -> None:
        assert kind == self.RLIMIT_NOFILE
        if self._fixed:
            raise ValueError("not allowed")
        self.values = values


@pytest.mark.parametrize(
    ("soft", "hard", "fixed", "found"),
    [
        (1024, 4096, False, 2618),
        (1024, -1, False, 2618),
        (1024, 2000, False, 2000),
        (4096, 8192, False, 4096),
        (-1, -1, False, None),
        (256, -1, True, 256),
    ],
    ids=["as-needed", "no-hard-limit", "up-to-the-hard-limit", "enough", "none", "refused"],
)
def test_the_soft_limit_is_raised_as_far_as_needed_and_allowed(
    soft: int, hard: int, fixed: bool, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resource", Limits(soft, hard, fixed=fixed))
    assert raised(settings()) == found


def test_windows_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert raised(settings()) is None


def test_a_room_is_a_value() -> None:
    assert DescriptorLimits(1, 2, 3, 4, 5) == DescriptorLimits(1, 2, 3, 4, 5)
