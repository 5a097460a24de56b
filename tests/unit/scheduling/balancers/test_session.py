"""A session stays on one backend while that backend is free, and sessions do not move without need."""

from collections import Counter

from gateway.scheduling.balancers.session import MOST_RINGS, Ring, Session
from gateway.scheduling.slot_request import SlotRequest
from tests.unit.scheduling.balancers.test_base import Card, Cards

SESSIONS = [f"session-{number}" for number in range(2000)]


def test_a_session_stays_on_its_card() -> None:
    cards = Cards(Session())
    for session in SESSIONS[:20]:
        assert len(set(cards.one_by_one(5, lambda _, key=session: cards.slot_request(key)))) == 1  # type: ignore[misc] # mypy does not count the default as a parameter


def test_every_gateway_finds_the_same_card() -> None:
    def homes(cards: Cards) -> list[str]:
        return cards.one_by_one(100, lambda number: cards.slot_request(SESSIONS[number]))

    assert homes(Cards(Session())) == homes(Cards(Session()))


def test_cards_are_home_to_about_as_many_sessions() -> None:
    ring = Ring(["a", "b", "c", "d"])
    counts = Counter(ring.order(session)[0] for session in SESSIONS)
    assert max(counts.values()) < 1.6 * min(counts.values())


def test_a_card_less_moves_only_its_own_sessions() -> None:
    before, after = Ring(["a", "b", "c", "d"]), Ring(["a", "b", "c"])
    for session in SESSIONS[:300]:
        home = before.order(session)[0]
        assert after.order(session)[0] == home or home == "d"


def test_while_its_card_is_busy_a_session_goes_to_the_emptiest() -> None:
    cards = Cards(Session())
    home = cards.one_by_one(1, lambda _: cards.slot_request("s"))[0]
    next(card for card in cards.cards if card.name == home).busy = 1
    elsewhere = cards.one_by_one(6, lambda _: cards.slot_request("s"))
    assert home not in elsewhere
    assert len(set(elsewhere)) == 3


def test_while_its_card_cannot_be_asked_a_session_has_another() -> None:
    cards = Cards(Session())
    home = cards.one_by_one(1, lambda _: cards.slot_request("s"))[0]
    next(card for card in cards.cards if card.name == home).usable = False
    second = set(cards.one_by_one(6, lambda _: cards.slot_request("s")))
    assert len(second) == 1
    assert second != {home}
    assert Ring(["a", "b", "c", "d"]).order("s")[:2] == [home, *second]


def test_without_a_session_the_emptiest_is_taken() -> None:
    assert Cards(Session()).one_by_one(4) == ["a", "b", "c", "d"]


def test_rings_are_few_however_many_sets_of_backends_come() -> None:
    policy = Session()
    cards = [Card("a", 0), Card("b", 1)]
    for number in range(3 * MOST_RINGS):
        policy.choose(cards, SlotRequest("m", ("a", "b", str(number)), affinity="s"), cards)
    assert len(policy._rings) <= MOST_RINGS
