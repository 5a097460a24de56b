"""The healths of the fleet: who is told what, and when."""

from __future__ import annotations

import pytest

from gateway.errors import ConnectFailed, UpstreamError
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.telemetry.receipt import Receipt
from gateway.upstream.health_monitor import HealthMonitor

REFUSED = ConnectFailed("", refused=True)


class House:
    """A ward of two backends with a clock of the test's own; it is its hook and its listener too."""

    def __init__(self, rules: HealthRules | None = None) -> None:
        rules = rules or HealthRules(slow_start=0)
        self.now = 0.0
        self.changes: list[tuple[str, bool, str]] = []
        self.heard: list[str] = []
        self.health_monitor = HealthMonitor(
            {"a": BackendHealth(2, rules), "b": BackendHealth(1, rules)},
            clock=lambda: self.now,
            chance=lambda: 0.0,
            hook=self,
        )
        self.health_monitor.listen(self.heard.append)

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        self.changes.append((backend, up, reason))

    def settled(self, receipt: Receipt) -> None:
        raise AssertionError("a ward settles nothing")

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        raise AssertionError("nobody waits in a ward")

    def auth_failed(self, reason: str) -> None:
        raise AssertionError("a ward knows no keys")


def test_everybody_is_told_once_that_a_backend_went_out_and_once_that_it_is_back() -> None:
    house = House()
    house.health_monitor.tried("a", REFUSED)
    house.health_monitor.tried("a", REFUSED)
    assert house.changes == [("a", False, "refused")]
    assert house.heard == ["a"]
    house.health_monitor.probed("a", "ok")
    house.health_monitor.probed("a", "ok")
    assert house.changes == [("a", False, "refused"), ("a", True, "probed")]
    assert house.heard == ["a", "a", "a"]


def test_a_good_answer_of_a_well_backend_is_told_to_nobody() -> None:
    house = House()
    house.health_monitor.tried("a", None)
    assert (house.heard, house.changes, house.health_monitor.healths["a"].tries) == ([], [], 1)


def test_what_is_only_counted_is_told_to_nobody() -> None:
    house = House()
    house.health_monitor.tried("a", UpstreamError(""))
    assert (house.heard, house.changes) == ([], [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [pytest.param(None, "trial", id="answered"), pytest.param(UpstreamError(""), None, id="failed")],
)
def test_a_trial_brings_a_sick_backend_back_or_not(error: UpstreamError | None, reason: str | None) -> None:
    house = House(HealthRules(fall=1))
    house.health_monitor.tried("a", UpstreamError(""))
    assert (house.changes, house.heard) == ([], ["a"])
    house.health_monitor.trialled("a", UpstreamError(""))
    assert house.changes == [("a", False, "upstream_5xx")]
    house.health_monitor.trialled("a", error)
    assert house.changes[1:] == ([("a", True, reason)] if reason else [])
    assert house.health_monitor.up("a") == (error is None)


def test_without_probes_the_first_answer_after_a_rest_tells_that_it_is_back() -> None:
    house = House(HealthRules(interval=None))
    house.health_monitor.tried("a", REFUSED)
    house.now = 1.0
    assert house.health_monitor.up("a")
    house.health_monitor.tried("a", None)
    assert house.changes == [("a", False, "refused"), ("a", True, "answered")]


def test_one_request_sent_again_is_one() -> None:
    house = House()
    for _ in range(4):
        house.health_monitor.tried("a", UpstreamError(""), 4711)
    assert house.health_monitor.state("a") == "up"


def test_a_backend_left_alone_is_looked_at_later() -> None:
    house = House()
    house.health_monitor.skipped("a")
    assert house.health_monitor.healths["a"].errand_at == 2.0
    assert house.heard == []


def test_a_server_that_hangs_up_is_worth_a_look() -> None:
    house = House()
    house.health_monitor.probed("a", "ok")
    house.heard.clear()
    house.now = 1.0
    house.health_monitor.deserted("a")
    assert (house.heard, house.health_monitor.healths["a"].errand_at) == (["a"], 1.0)


def test_who_stays_over_a_reload_keeps_its_health_and_gets_its_new_slots() -> None:
    house = House()
    house.health_monitor.tried("a", REFUSED)
    rules = HealthRules(slow_start=0, rise=1)
    house.health_monitor.reconfigure({"a": (7, rules), "c": (1, rules)})
    assert house.health_monitor.usable() == {"a": False, "c": True}
    house.health_monitor.probed("a", "ok")
    assert house.health_monitor.healths["a"].slots_now(0.0) == 7
    house.health_monitor.tried("b", REFUSED)  # it is not there any more
    house.health_monitor.deserted("b")
    assert house.changes == [("a", False, "refused"), ("a", True, "probed")]


def test_views_name_every_backend() -> None:
    house = House()
    house.health_monitor.tried("b", REFUSED)
    assert house.health_monitor.usable() == {"a": True, "b": False}
    assert [house.health_monitor.state(name) for name in ("a", "b")] == ["up", "down"]
    assert repr(house.health_monitor) == "<HealthMonitor a up, b down>"


def test_a_repeated_sending_is_a_reason_to_look_and_of_unknown_backends_nothing() -> None:
    house = House()
    house.health_monitor.probed("a", "ok")
    house.heard.clear()
    assert house.health_monitor.repeated("a")
    assert house.health_monitor.healths["a"].suspected
    assert house.heard == ["a"]
    assert house.health_monitor.repeated("gone")
