"""Backends are chosen in order, starting after the last one used."""

from gateway.scheduling.balancers.round_robin import RoundRobin
from tests.unit.scheduling.balancers.test_base import Cards


def test_cards_are_used_in_order() -> None:
    assert Cards(RoundRobin()).one_by_one(6) == ["a", "b", "c", "d", "a", "b"]


def test_busy_cards_are_left_out_of_the_round() -> None:
    cards = Cards(RoundRobin())
    cards.cards[1].busy = 1
    assert cards.one_by_one(4) == ["a", "c", "d", "a"]


def test_a_request_without_a_choice_moves_the_round_on() -> None:
    cards = Cards(RoundRobin())
    for card in cards.cards[:2] + cards.cards[3:]:
        card.busy = 1
    assert cards.one_by_one(1) == ["c"]
    for card in cards.cards:
        card.busy = 0
    assert cards.one_by_one(2) == ["d", "a"]
