"""Requests are distributed in proportion to the weights, as far as backends are free."""

from collections import Counter

from gateway.scheduling.balancers.weighted import Weighted
from tests.unit.scheduling.balancers.test_base import Card, Cards


def test_each_gets_its_part_spread_out_evenly() -> None:
    cards = Cards(Weighted(), Card("big", 0, weight=3), Card("small", 1, weight=1))
    taken = cards.one_by_one(40)
    assert Counter(taken) == {"big": 30, "small": 10}
    assert all(Counter(taken[at : at + 4])["small"] == 1 for at in range(0, 40, 4))


def test_one_that_was_away_is_not_flooded_to_catch_up() -> None:
    cards = Cards(Weighted(), Card("a", 0), Card("b", 1))
    away = cards.cards[1]
    away.usable = False
    third = Card("c", 2)
    cards.cards.append(third)
    cards.one_by_one(50)
    away.usable = True
    assert Counter(cards.one_by_one(30)) == {"a": 10, "b": 10, "c": 10}


def test_one_that_warms_up_gets_its_share() -> None:
    cards = Cards(Weighted(), Card("a", 0), Card("b", 1, share=0.25))
    assert Counter(cards.one_by_one(50)) == {"a": 40, "b": 10}
