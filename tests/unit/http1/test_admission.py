from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.config import ServerSettings
from gateway.errors import OutOfDescriptors, TooManyConnections
from gateway.http1.admission import ConnectionAdmission


class Guest:
    """Notes when it was looked at; leaves by itself at the first look, if it is told to."""

    def __init__(self, leaving: ConnectionAdmission | None = None) -> None:
        self.looks: list[float] = []
        self.leaving = leaving

    def check(self, now: float) -> None:
        self.looks.append(now)
        if self.leaving is not None:
            self.leaving.leave(self)


def admission(**limits: Any) -> ConnectionAdmission:
    return ConnectionAdmission(ServerSettings(**limits), lambda _: None)


def refused(one: ConnectionAdmission, peer: str | None) -> bool:
    return isinstance(one.enter(Guest(), peer), TooManyConnections)


def test_one_more_than_the_cap_is_refused_and_told_when_to_come_again() -> None:
    one = admission(max_connections=2)
    assert [refused(one, peer) for peer in ("a", "b", "c")] == [False, False, True]
    error = one.enter(Guest(), "d")
    assert error is not None
    assert error.retry_after == 1


def test_an_address_has_a_cap_of_its_own_and_a_unix_socket_has_none() -> None:
    one = admission(max_connections_per_peer=1)
    assert [refused(one, peer) for peer in ("a", "b", "a")] == [False, False, True]
    assert [refused(one, None) for _ in range(3)] == [False] * 3


def test_zero_is_no_limit() -> None:
    one = admission(max_connections=0, max_connections_per_peer=0)
    assert not any(refused(one, "a") for _ in range(3000))


@pytest.mark.parametrize("cap", ["max_connections", "max_connections_per_peer"])
def test_whoever_leaves_makes_room(cap: str) -> None:
    one = admission(**{cap: 1})
    first = Guest()
    assert one.enter(first, "a") is None
    one.leave(first)
    one.leave(first)  # twice is once
    assert not refused(one, "a")
    assert refused(one, "a")


def test_the_sweep_looks_at_everybody_once_a_second() -> None:
    one = admission()
    guests = [Guest(), Guest()]
    for guest in guests:
        one.enter(guest, "a")
    for now in (10.0, 10.1, 10.9, 11.0, 11.5, 12.0):
        one.sweep(now)
    assert [guest.looks for guest in guests] == [[10.0, 11.0, 12.0]] * 2


def test_the_sweep_is_faster_where_a_limit_is_short() -> None:
    one = admission(body_timeout=0.2)
    guest = Guest()
    one.enter(guest, "a")
    for now in (10.0, 10.04, 10.06):
        one.sweep(now)
    assert guest.looks == [10.0, 10.06]


def test_a_guest_may_leave_while_the_sweep_looks_at_it() -> None:
    one = admission()
    guests = [Guest(leaving=one), Guest(leaving=one)]
    for guest in guests:
        one.enter(guest, "a")
    one.sweep(1.0)
    one.sweep(2.0)
    assert [guest.looks for guest in guests] == [[1.0]] * 2


def test_the_refused_take_no_room_but_are_looked_at() -> None:
    one = admission(max_connections=1)
    first, second = Guest(), Guest()
    assert one.enter(first, "a") is None
    assert one.enter(second, "a") is not None
    one.sweep(1.0)
    assert second.looks == [1.0]
    one.leave(first)
    assert not refused(one, "a")


def test_very_many_refused_are_a_crowd_until_they_leave() -> None:
    one = admission(max_connections=1)
    crowd = [Guest() for _ in range(258)]
    for guest in crowd:
        one.enter(guest, "a")
    assert one.crowded
    one.leave(crowd[-1])
    assert not one.crowded


def test_who_is_confined_refuses_for_want_of_descriptors_and_may_be_let_out_again() -> None:
    one = admission(max_connections=10)
    one.confine(2, 1)
    assert [one.enter(Guest(), "a") for _ in range(2)] == [None, None]
    first = one.enter(Guest(), "a")
    assert isinstance(first, OutOfDescriptors)
    assert (first.code, first.retry_after, first.row.status) == ("out_of_descriptors", 1, 503)
    crowded = [one.crowded]
    one.enter(Guest(), "a")
    crowded.append(one.crowded)
    one.confine(math.inf)
    assert one.enter(Guest(), "a") is None
    assert [*crowded, one.crowded] == [False, True, False]
