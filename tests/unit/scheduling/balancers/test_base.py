"""The invariants of all balancers, and the default choice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.model import Balance
from gateway.scheduling.balancers import BALANCERS, Balancer, balancer
from gateway.scheduling.balancers.base import CLEARLY_SLOWER, emptiest
from gateway.scheduling.slot_request import SlotRequest


@dataclass
class Card:
    """A candidate whose values the test sets."""

    name: str = "a"
    place: int = 0
    busy: int = 0
    slots: int = 1
    weight: int = 1
    share: float = 1.0
    usable: bool = True
    granted: int = 0
    pace: float = 0.0


class Cards:
    """Backends with a balancer; requests end when the test says so."""

    def __init__(self, policy: Balancer, *cards: Card) -> None:
        self.policy = policy
        self.cards = list(cards) or [Card(name, place) for place, name in enumerate("abcd")]
        self.grants = 0

    def take(self, slot_request: SlotRequest | None = None) -> Card | None:
        """Assign the next request to a backend as the scheduler does; None if it would have to wait."""
        slot_request = slot_request or self.slot_request()
        free = [card for card in self.cards if card.usable and card.busy < card.slots]
        if not free:
            return None
        chosen = self.policy.choose(free, slot_request, self.cards) if len(free) > 1 else free[0]
        assert chosen in free
        chosen.busy += 1
        self.grants = chosen.granted = self.grants + 1
        if self.policy.learns:
            self.policy.took(slot_request, chosen)
        return chosen

    def slot_request(self, affinity: str = "", prefix: tuple[bytes, ...] = ()) -> SlotRequest:
        names = tuple(card.name for card in self.cards)
        return SlotRequest("m", names, affinity=affinity, prefix=prefix)

    def one_by_one(self, count: int, claims: Callable[[int], SlotRequest] | None = None) -> list[str]:
        """Run `count` requests one after the other. Return the names of the backends they used."""
        names = []
        for number in range(count):
            card = self.take(claims(number) if claims else None)
            assert card is not None
            card.busy -= 1
            names.append(card.name)
        return names


every_balancer = pytest.mark.parametrize("name", BALANCERS)


def chance() -> Callable[[], float]:
    return random.Random(7).random


@every_balancer
def test_it_takes_a_free_card_as_long_as_there_is_one(name: str) -> None:
    cards = Cards(balancer(name, chance()), *[Card(str(n), n, slots=1 + n % 3) for n in range(6)])
    for number in range(12):
        assert cards.take(cards.slot_request("same", (b"same", str(number).encode()))) is not None
    assert cards.take() is None
    assert [card.busy for card in cards.cards] == [card.slots for card in cards.cards]


@every_balancer
@settings(max_examples=50, deadline=None)
@given(events=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=60))
def test_whatever_happens_it_chooses_among_the_free(name: str, events: list[tuple[int, int]]) -> None:
    cards = Cards(balancer(name, chance()), *[Card(str(n), n, slots=1 + n % 2) for n in range(4)])
    for kind, which in events:
        card = cards.cards[which % 4]
        if kind < 6:
            cards.take(cards.slot_request(f"s{which}", (b"x", str(which).encode())))
        elif kind < 9:
            card.busy = max(0, card.busy - 1)
        else:
            card.usable = not card.usable


@every_balancer
def test_requests_without_affinity_reach_every_card(name: str) -> None:
    cards = Cards(balancer(name, chance()))
    counts = Counter(cards.one_by_one(400))
    assert set(counts) == {"a", "b", "c", "d"}
    assert max(counts.values()) <= 2 * min(counts.values())


@every_balancer
def test_a_card_that_cannot_be_asked_gets_nothing(name: str) -> None:
    cards = Cards(balancer(name, chance()))
    cards.cards[1].usable = False
    taken = cards.one_by_one(40, lambda number: cards.slot_request(f"s{number}", (str(number).encode(),)))
    assert "b" not in taken


def test_the_configuration_knows_every_balancer() -> None:
    assert get_args(Balance) == tuple(BALANCERS)


# --- the least busy backend ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        pytest.param([Card()], 0, id="only-one"),
        pytest.param([Card(), Card()], 0, id="all-new-takes-the-first"),
        pytest.param([Card(granted=3), Card(granted=1), Card(granted=2)], 1, id="longest-idle-of-equals"),
        pytest.param([Card(granted=1), Card()], 1, id="never-used-before-used"),
        pytest.param([Card(busy=2, slots=8), Card(busy=1, slots=8)], 1, id="fewer-in-flight"),
        pytest.param([Card(busy=1, slots=2), Card(busy=3, slots=8)], 1, id="smaller-share-not-number"),
        pytest.param([Card(busy=1, slots=8, granted=1), Card(granted=9)], 1, id="empty-beats-idle-for-long"),
        pytest.param([Card(pace=4, granted=1), Card(pace=1, granted=2)], 1, id="fast-before-idle-for-long"),
        pytest.param([Card(pace=1.4, granted=1), Card(pace=1, granted=2)], 0, id="a-little-slower-is-equal"),
        pytest.param([Card(pace=9, granted=1), Card(granted=2)], 0, id="an-unknown-pace-makes-none-slow"),
        pytest.param(
            [Card(pace=9, granted=1), Card(granted=2), Card(pace=1, granted=3)], 1, id="unknown-is-not-slow"
        ),
        pytest.param(
            [Card(pace=1, busy=1, slots=2), Card(pace=9, busy=0, slots=2)], 1, id="empty-before-fast"
        ),
        pytest.param([Card(share=0.5), Card(busy=1, slots=2)], 1, id="warming-up-comes-last"),
    ],
)
def test_the_emptiest_is_chosen_then_the_fast_then_the_longest_idle(free: list[Card], chosen: int) -> None:
    assert emptiest(free) is free[chosen]


def test_clearly_slower_leaves_room_for_luck() -> None:
    assert 1.2 < CLEARLY_SLOWER < 2
