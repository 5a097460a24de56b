"""The healths of the fleet: who is told what, and when."""

from __future__ import annotations

import pytest

from gateway.errors import ConnectFailed, UpstreamError
from gateway.scheduling.health import Health, Rules
from gateway.telemetry.receipt import Receipt
from gateway.upstream.ward import Ward

REFUSED = ConnectFailed("", refused=True)


class House:
    """A ward of two backends with a clock of the test's own; it is its hook and its listener too."""

    def __init__(self, rules: Rules | None = None) -> None:
        rules = rules or Rules(slow_start=0)
        self.now = 0.0
        self.changes: list[tuple[str, bool, str]] = []
        self.heard: list[str] = []
        self.ward = Ward(
            {"a": Health(2, rules), "b": Health(1, rules)},
            clock=lambda: self.now,
            chance=lambda: 0.0,
            hook=self,
        )
        self.ward.listen(self.heard.append)

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
    house.ward.tried("a", REFUSED)
    house.ward.tried("a", REFUSED)
    assert house.changes == [("a", False, "refused")]
    assert house.heard == ["a"]
    house.ward.probed("a", "ok")
    house.ward.probed("a", "ok")
    assert house.changes == [("a", False, "refused"), ("a", True, "probed")]
    assert house.heard == ["a", "a", "a"]


def test_a_good_answer_of_a_well_backend_is_told_to_nobody() -> None:
    house = House()
    house.ward.tried("a", None)
    assert (house.heard, house.changes, house.ward.healths["a"].tries) == ([], [], 1)


def test_what_is_only_counted_is_told_to_nobody() -> None:
    house = House()
    house.ward.tried("a", UpstreamError(""))
    assert (house.heard, house.changes) == ([], [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [pytest.param(None, "trial", id="answered"), pytest.param(UpstreamError(""), None, id="failed")],
)
def test_a_trial_brings_a_sick_backend_back_or_not(error: UpstreamError | None, reason: str | None) -> None:
    house = House(Rules(fall=1))
    house.ward.tried("a", UpstreamError(""))
    assert (house.changes, house.heard) == ([], ["a"])
    house.ward.trialled("a", UpstreamError(""))
    assert house.changes == [("a", False, "upstream_5xx")]
    house.ward.trialled("a", error)
    assert house.changes[1:] == ([("a", True, reason)] if reason else [])
    assert house.ward.up("a") == (error is None)


def test_without_probes_the_first_answer_after_a_rest_tells_that_it_is_back() -> None:
    house = House(Rules(interval=None))
    house.ward.tried("a", REFUSED)
    house.now = 1.0
    assert house.ward.up("a")
    house.ward.tried("a", None)
    assert house.changes == [("a", False, "refused"), ("a", True, "answered")]


def test_one_request_sent_again_is_one() -> None:
    house = House()
    for _ in range(4):
        house.ward.tried("a", UpstreamError(""), 4711)
    assert house.ward.state("a") == "up"


def test_a_backend_left_alone_is_looked_at_later() -> None:
    house = House()
    house.ward.skipped("a")
    assert house.ward.healths["a"].errand_at == 2.0
    assert house.heard == []


def test_a_server_that_hangs_up_is_worth_a_look() -> None:
    house = House()
    house.ward.probed("a", "ok")
    house.heard.clear()
    house.now = 1.0
    house.ward.deserted("a")
    assert (house.heard, house.ward.healths["a"].errand_at) == (["a"], 1.0)


def test_who_stays_over_a_reload_keeps_its_health_and_gets_its_new_slots() -> None:
    house = House()
    house.ward.tried("a", REFUSED)
    rules = Rules(slow_start=0, rise=1)
    house.ward.reconfigure({"a": (7, rules), "c": (1, rules)})
    assert house.ward.usable() == {"a": False, "c": True}
    house.ward.probed("a", "ok")
    assert house.ward.healths["a"].slots_now(0.0) == 7
    house.ward.tried("b", REFUSED)  # it is not there any more
    house.ward.deserted("b")
    assert house.changes == [("a", False, "refused"), ("a", True, "probed")]


def test_views_name_every_backend() -> None:
    house = House()
    house.ward.tried("b", REFUSED)
    assert house.ward.usable() == {"a": True, "b": False}
    assert [house.ward.state(name) for name in ("a", "b")] == ["up", "down"]
    assert repr(house.ward) == "<Ward a up, b down>"


def test_a_repeated_sending_is_a_reason_to_look_and_of_unknown_backends_nothing() -> None:
    house = House()
    house.ward.probed("a", "ok")
    house.heard.clear()
    assert house.ward.repeated("a")
    assert house.ward.healths["a"].suspected
    assert house.heard == ["a"]
    assert house.ward.repeated("gone")
