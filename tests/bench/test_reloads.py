"""What is said of reloads under waiting requests; and some of them."""

from __future__ import annotations

import random
from collections import Counter

from tests.bench.reloads import ASKED, CARDS, Course, drawn, reloads


def course(**changes: object) -> Course:
    made = Course(reloads=2, waiting=Counter(own=3), statuses=Counter({("own", 200): 4, ("falls", 503): 1}))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_answers_and_refusals_of_the_dead_model_are_no_fault() -> None:
    assert course().faults() == []
    assert course().figures() == (
        "2 reloads and 0 discoveries with requests waiting (own 3); 4 of 5 answered; slots leaked: 0"
    )


def test_leaked_slots_failed_requests_and_exceptions_are_faults() -> None:
    bad = course(leaked=Counter(a=1), statuses=Counter({("own", 503): 2}), crashes=1, waiting=Counter())
    assert bad.faults() == [
        "1 slots of a are still taken",
        "2 requests of own ended with 503",
        "1 unexpected exceptions in the log",
        "no request waited during a reload",
    ]


async def test_no_slot_leaks_when_reloads_and_dns_change_the_backends_of_waiting_requests() -> None:
    lines: list[str] = []
    found = await reloads(12, lines.append)
    assert found.faults() == []
    assert found.reloads == 12
    assert found.found > 0
    assert found.statuses.total() == 12 * 3 * len(ASKED)


def test_every_configuration_has_a_card_for_each_model() -> None:
    for seed in range(20):
        cards, _ = drawn(random.Random(seed))
        assert {CARDS[card][0] for card in cards} == {model for model, _ in CARDS.values()}
