"""The least busy backend is chosen first; equal backends take turns."""

from gateway.scheduling.balancers.least_busy import LeastBusy
from tests.unit.scheduling.balancers.test_base import Card, Cards


def test_a_fleet_at_rest_is_used_in_turn() -> None:
    assert Cards(LeastBusy()).one_by_one(6) == ["a", "b", "c", "d", "a", "b"]


def test_fast_cards_are_used_before_slow_ones() -> None:
    cards = Cards(
        LeastBusy(), Card("slow", 0, pace=4.0), Card("fast", 1, pace=1.0), Card("also", 2, pace=1.1)
    )
    assert cards.one_by_one(4) == ["fast", "also", "fast", "also"]
