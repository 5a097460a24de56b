"""A chat goes to the backend that received its longest prefix before, if that backend is free."""

from gateway.scheduling.balancers.prefix import Prefix
from tests.unit.scheduling.balancers.test_base import Cards


def test_a_chat_that_grows_stays_on_its_card() -> None:
    cards = Cards(Prefix())
    (first,) = cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1",)))
    cards.one_by_one(2, lambda number: cards.slot_request(prefix=(f"other{number}".encode(),)))
    assert cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1", b"12", b"123"))) == [first]


def test_the_longest_known_beginning_wins() -> None:
    cards = Cards(Prefix())
    chats = [(b"sys", b"one"), (b"sys", b"two")]
    cards.cards[0].busy = 1
    (second,) = cards.one_by_one(1, lambda _: cards.slot_request(prefix=chats[1]))
    cards.cards[0].busy = 0
    next(card for card in cards.cards if card.name == second).busy = 1
    (first,) = cards.one_by_one(1, lambda _: cards.slot_request(prefix=chats[0]))
    next(card for card in cards.cards if card.name == second).busy = 0
    assert first != second
    assert cards.one_by_one(1, lambda _: cards.slot_request(prefix=(*chats[1], b"more"))) == [second]


def test_while_its_card_is_busy_a_chat_moves_and_is_known_there() -> None:
    cards = Cards(Prefix())
    (first,) = cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1",)))
    home = next(card for card in cards.cards if card.name == first)
    home.busy = 1
    (second,) = cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1", b"12")))
    home.busy = 0
    assert second != first
    assert cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1", b"12", b"123"))) == [second]


def test_a_request_without_a_choice_is_remembered_too() -> None:
    cards = Cards(Prefix())
    for card in cards.cards[:3]:
        card.busy = 1
    assert cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1",))) == ["d"]
    for card in cards.cards:
        card.busy = 0
    assert cards.one_by_one(1, lambda _: cards.slot_request(prefix=(b"1", b"12"))) == ["d"]


def test_memory_is_bounded_and_what_was_not_seen_for_longest_is_forgotten() -> None:
    policy = Prefix(most=100)
    cards = Cards(policy)
    for number in range(1000):
        prefix = (b"kept", str(number).encode())
        cards.one_by_one(1, lambda _, prefix=prefix: cards.slot_request(prefix=prefix))  # type: ignore[misc] # mypy does not count the default as a parameter
        assert len(policy) <= 100
    assert b"kept" in policy._seen
    assert b"5" not in policy._seen
