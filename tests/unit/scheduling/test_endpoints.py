"""Records become members, and members keep their numbers: tables, and properties of all numberings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ServiceMember
from gateway.scheduling.endpoints import (
    DnsAnswer,
    DnsFinding,
    DnsQuestion,
    DnsTarget,
    Result,
    by_address,
    by_class,
    changes,
    lifecycle,
    numbered,
    of_targets,
    remembered,
)

A, AAAA = DnsQuestion("cards", "A"), DnsQuestion("cards", "AAAA")


def found(*addresses: str, ttl: float = 30) -> DnsAnswer:
    return DnsAnswer("ok", ttl, addresses)


def server(name: str) -> ServiceMember:
    return ServiceMember(name, (name,))


def servers(*names: str) -> list[ServiceMember]:
    return [server(name) for name in names]


# --- answers ---------------------------------------------------------------------------------------

OLD = {A: found("1"), AAAA: found("::1")}
MEMORY = [
    pytest.param(found("2"), found("::2"), ["2", "::2"], "ok", id="both-are-new"),
    pytest.param(found("2"), DnsAnswer("empty"), ["2"], "ok", id="no-records-of-one-type-are-no-fault"),
    pytest.param(found("2"), DnsAnswer("nxdomain"), ["2"], "ok", id="nor-is-a-server-that-denies-the-name"),
    pytest.param(DnsAnswer("empty"), found("::2"), ["::2"], "ok", id="ipv6-alone"),
    pytest.param(found("2"), DnsAnswer("timeout"), ["2", "::1"], "timeout", id="silence-keeps-that-type"),
    pytest.param(found("2"), DnsAnswer("servfail"), ["2", "::1"], "servfail", id="so-does-a-servers-fault"),
    pytest.param(
        DnsAnswer("empty"), DnsAnswer("empty"), ["1", "::1"], "empty", id="nothing-at-all-keeps-all"
    ),
    pytest.param(DnsAnswer("nxdomain"), DnsAnswer("nxdomain"), ["1", "::1"], "nxdomain", id="no-such-name"),
    pytest.param(DnsAnswer("empty"), DnsAnswer("timeout"), ["1", "::1"], "timeout", id="the-worst-is-told"),
    pytest.param(DnsAnswer("failed"), DnsAnswer("timeout"), ["1", "::1"], "failed", id="not-even-asked"),
]


@pytest.mark.parametrize(("ipv4", "ipv6", "known", "result"), MEMORY)
def test_what_cannot_be_learned_is_remembered(
    ipv4: DnsAnswer, ipv6: DnsAnswer, known: list[str], result: Result
) -> None:
    answers, worst = remembered({A: ipv4, AAAA: ipv6}, OLD)
    assert [member.name for member in by_address(answers)] == known
    assert worst == result


def test_what_was_never_known_is_nothing() -> None:
    answers, worst = remembered({A: DnsAnswer("nxdomain"), AAAA: DnsAnswer("timeout")}, {})
    assert (by_address(answers), worst, lifecycle(answers)) == ((), "timeout", 0)


def test_answers_live_as_long_as_the_shortest_of_them() -> None:
    assert lifecycle({A: found("1", ttl=30), AAAA: found("::1", ttl=10)}) == 10
    assert lifecycle({A: found("1", ttl=30), AAAA: DnsAnswer("empty", 2)}) == 30


@pytest.mark.parametrize(
    ("ttl", "result", "seconds"),
    [
        pytest.param(30, "ok", 30, id="the-ttl"),
        pytest.param(0, "ok", 5, id="the-floor"),
        pytest.param(86_400, "ok", 60, id="the-ceiling"),
        pytest.param(30, "timeout", 5, id="soon-after-a-fault"),
    ],
)
def test_when_to_ask_again(ttl: float, result: Result, seconds: float) -> None:
    assert DnsFinding((), ttl, result).again(5, 60) == seconds


# --- members ---------------------------------------------------------------------------------------


def test_every_address_is_a_member_ipv4_first() -> None:
    members = by_address({AAAA: found("fd00::1"), A: found("10.0.0.2", "10.0.0.1", "10.0.0.2")})
    assert members == (server("10.0.0.1"), server("10.0.0.2"), server("fd00::1"))
    assert all(member.port is None and member.weight is None for member in members)


def test_targets_come_in_classes_and_the_root_is_none() -> None:
    low, high, again = DnsTarget(20, "c", 1, 0), DnsTarget(10, "a", 1, 0), DnsTarget(10, "b", 1, 0)
    assert list(by_class([low, again, high, DnsTarget(0, "", 0, 0)])) == [(high, again), (low,)]


def test_a_target_that_is_named_twice_is_one() -> None:
    assert [len(one) for one in by_class([DnsTarget(1, "a", 1, 5), DnsTarget(1, "a", 1, 7)])] == [1]


def test_targets_with_addresses_are_members() -> None:
    targets = [DnsTarget(1, "a", 81, 0), DnsTarget(1, "b", 82, 0), DnsTarget(1, "c", 83, 0)]
    members = of_targets(targets, {"a": ("10.0.0.1", "fd00::1"), "b": ()})
    assert members == (ServiceMember("a:81", ("10.0.0.1", "fd00::1"), 81, None),)


@pytest.mark.parametrize(
    ("given_weights", "wanted"),
    [
        pytest.param([33, 33, 33], [None] * 3, id="all-the-same-say-nothing"),
        pytest.param([0, 0], [None] * 2, id="nor-do-zeros"),
        pytest.param([5], [None], id="nor-does-one-alone"),
        pytest.param([60, 20, 0], [60, 20, 1], id="as-they-are-and-hardly-ever-is-still-a-chance"),
        pytest.param([65_535, 6_554, 1], [1000, 100, 1], id="made-smaller-together"),
    ],
)
def test_weights_of_records_become_weights_of_backends(
    given_weights: list[int], wanted: list[int | None]
) -> None:
    targets = [DnsTarget(1, f"t{at}", 1, weight) for at, weight in enumerate(given_weights)]
    members = of_targets(targets, {target.host: ("10.0.0.1",) for target in targets})
    assert [member.weight for member in members] == wanted


# --- numbers ---------------------------------------------------------------------------------------


def test_newcomers_get_the_lowest_free_numbers_and_who_stays_keeps_its_own() -> None:
    first, _ = numbered({}, servers("a", "b", "c"), 8)
    assert first == {0: server("a"), 1: server("b"), 2: server("c")}
    second, _ = numbered(first, servers("0", "b", "d"), 8)
    assert second == {0: server("0"), 1: server("b"), 2: server("d")}
    third, _ = numbered(second, servers("b"), 8)
    assert third == {1: server("b")}
    assert numbered(third, servers("b", "z"), 8).members == {0: server("z"), 1: server("b")}


def test_a_number_under_which_somebody_is_at_work_is_the_last_to_be_taken() -> None:
    before = {0: server("a"), 1: server("b")}
    at_work = {0: "a", 1: "b"}
    assert numbered(before, servers("b", "c"), 8, at_work).members == {1: server("b"), 2: server("c")}
    assert numbered(before, servers("b", "c"), 2, at_work).members == {0: server("c"), 1: server("b")}


def test_who_comes_back_while_its_requests_are_in_flight_gets_its_number_again() -> None:
    before = {0: server("a")}
    gone = numbered(before, servers("b"), 8, {0: "a"}).members
    assert gone == {1: server("b")}
    assert numbered(gone, servers("a", "b"), 8, {0: "a"}).members == {0: server("a"), 1: server("b")}
    assert numbered({}, servers("b"), 8, {5: "b", 9: "b"}).members == {5: server("b")}
    taken = {5: server("c")}
    assert numbered(taken, servers("b", "c"), 8, {5: "b"}).members == taken | {0: server("b")}


def test_what_is_beyond_the_most_is_left_out_and_counted_and_nobody_is_moved_for_it() -> None:
    before = {0: server("x"), 1: server("y")}
    assert numbered(before, servers("a", "x", "y", "b"), 2) == (before, 2)
    assert numbered(before, servers("x", "y"), 1) == ({0: server("x")}, 1)


def test_a_member_that_listens_elsewhere_now_keeps_its_number() -> None:
    old, new = ServiceMember("t:1", ("10.0.0.1",), 1), ServiceMember("t:1", ("10.0.0.2",), 1)
    assert numbered({3: old}, [new], 8).members == {3: new}
    assert changes({3: old}, {3: new}) == ({3: new}, {3: old})


def test_another_weight_is_no_coming_or_going() -> None:
    old, new = ServiceMember("t:1", ("10.0.0.1",), 1, 5), ServiceMember("t:1", ("10.0.0.1",), 1, 6)
    assert changes({0: old}, {0: new}) == ({}, {})
    assert numbered({0: old}, [new], 8).members == {0: new}


NAMES = st.sets(st.sampled_from("abcdefghij"), max_size=10)


@given(
    st.lists(
        st.tuples(
            NAMES, st.dictionaries(st.integers(0, 5), st.sampled_from("abcdefghij")), st.integers(1, 6)
        ),
        max_size=12,
    )
)
def test_numbers_are_kept_bounded_and_used(steps: list[tuple[set[str], dict[int, str], int]]) -> None:
    members: dict[int, ServiceMember] = {}
    for names, at_work, most in steps:
        present = servers(*sorted(names))
        numbering = numbered(members, present, most, at_work)
        after = dict(numbering.members)
        assert list(after) == sorted(after)
        assert all(0 <= number < most for number in after)
        assert len(set(after.values())) == len(after)
        assert set(after.values()) <= set(present)
        assert len(after) == min(most, len(present))
        assert numbering.left_out == len(present) - len(after)
        for number, member in members.items():
            if number < most and member in present:
                assert after[number] == member
        came, went = changes(members, after)
        assert {**{n: m for n, m in members.items() if n not in went}, **came} == after
        taken_at_work = [
            number for number in came if at_work.get(number, came[number].name) != came[number].name
        ]
        idle = [number for number in range(most) if number not in after and number not in at_work]
        assert not (taken_at_work and idle)
        members = after
