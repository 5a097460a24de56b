"""The less busy of two different random backends is chosen."""

import random
from collections import Counter

import pytest

from gateway.scheduling.balancers.random_two import RandomTwo
from gateway.scheduling.slot_request import SlotRequest
from tests.unit.scheduling.balancers.test_base import Card, Cards


@pytest.mark.parametrize(
    ("numbers", "chosen"),
    [
        pytest.param((0.0, 0.0), "b", id="first-and-its-neighbour"),
        pytest.param((0.99, 0.99), "c", id="last-and-the-one-before"),
        pytest.param((0.3, 0.99), "a", id="second-and-first"),
    ],
)
def test_chance_names_two_and_the_emptier_wins(numbers: tuple[float, float], chosen: str) -> None:
    row = iter(numbers)
    cards = [Card(name, busy=busy, slots=8) for name, busy in zip("abcd", (3, 2, 5, 6), strict=True)]
    cards[0].busy = 1 if chosen == "a" else 3
    assert RandomTwo(lambda: next(row)).choose(cards, SlotRequest("m", ()), cards).name == chosen


def test_the_fullest_card_is_never_chosen() -> None:
    policy = RandomTwo(random.Random(3).random)
    cards = [Card(name, busy=busy, slots=8) for name, busy in zip("abcd", (0, 0, 0, 7), strict=True)]
    counts = Counter(policy.choose(cards, SlotRequest("m", ()), cards).name for _ in range(300))
    assert set(counts) == {"a", "b", "c"}


def test_load_is_spread() -> None:
    counts = Counter(Cards(RandomTwo(random.Random(3).random)).one_by_one(1000))
    assert min(counts.values()) > 200
