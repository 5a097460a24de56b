"""Answers to wrong keys are delayed by address, and the tables are bounded."""

from __future__ import annotations

import pytest

from gateway.tenancy.failures import FREE, LONGEST, MOST, PACE, TRIAL, AuthFailures


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_failures_wait_for_nothing_and_the_rest_longer_and_longer_up_to_a_limit() -> None:
    failures = AuthFailures(Clock())
    waits = [failures.delay("10.0.0.1") for _ in range(FREE + 100)]
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE : FREE + 3] == pytest.approx([PACE, 2 * PACE, 3 * PACE])
    assert waits[-1] == LONGEST
    assert failures.delay("10.0.0.2") == 0.0


def test_time_gives_failures_back() -> None:
    clock = Clock()
    failures = AuthFailures(clock)
    for _ in range(1000):
        failures.delay("10.0.0.1")
    clock.now += LONGEST + FREE * PACE
    assert [failures.delay("10.0.0.1") for _ in range(FREE)] == [0.0] * FREE


def test_a_good_key_that_its_address_has_not_used_waits_as_long_as_a_wrong_one() -> None:
    clock = Clock()
    failures = AuthFailures(clock)
    assert failures.trial("10.0.0.1", "old") == 0.0
    for _ in range(FREE + round(TRIAL / PACE) - 1):
        failures.delay("10.0.0.1")
    assert failures.trial("10.0.0.1", "in-time") == 0.0
    wrong = failures.delay("10.0.0.1")
    assert failures.trial("10.0.0.1", "new") == failures.trial("10.0.0.1", "new") == wrong >= TRIAL
    for _ in range(1000):
        failures.delay("10.0.0.1")
    assert failures.trial("10.0.0.1", "new") == LONGEST
    assert [failures.trial("10.0.0.1", name) for name in ("old", "in-time")] == [0.0, 0.0]
    assert failures.trial("10.0.0.2", "new") == 0.0
    failures.trust("10.0.0.1", "new")
    assert failures.trial("10.0.0.1", "new") == 0.0
    clock.now += LONGEST
    assert failures.trial("10.0.0.1", "newer") == 0.0


def test_the_table_of_used_keys_is_bounded() -> None:
    failures = AuthFailures(Clock())
    for number in range(2 * MOST):
        failures.trial(f"10.1.{number // 256}.{number % 256}", "team")
    assert len(failures._used) == MOST


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "", True),
    ],
)
def test_addresses_of_one_network_count_together(one: str, other: str, same: bool) -> None:
    failures = AuthFailures(Clock())
    for _ in range(FREE):
        failures.delay(one)
    assert (failures.delay(other) > 0) is same


def test_the_table_is_bounded() -> None:
    failures = AuthFailures(Clock())
    for number in range(2 * MOST):
        failures.delay(f"10.1.{number // 256}.{number % 256}")
    assert len(failures) == MOST
