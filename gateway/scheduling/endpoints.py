"""Turns the answers of name servers into numbered members of a service. Pure.

A service is a `[[backends]]` table with `discover`. A member is one of its servers. The members are
determined in three steps. `remembered`: a question without an answer keeps its last answer. `by_address`,
`by_class` and `of_targets`: records become members. `numbered`: a member keeps its number as long as DNS
lists it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, get_args

from gateway.config import ServiceMember

Result: TypeAlias = Literal["ok", "empty", "nxdomain", "servfail", "timeout", "failed"]
"""The result of a DNS question: records; no records of that type; no such name; the name server failed; no
name server replied in time; or another error prevented the question. Later results in this list are worse."""
RESULTS: tuple[Result, ...] = get_args(Result)

_NOTHING = ("empty", "nxdomain")
HEAVIEST = 1000
"""The largest weight a backend may have."""


class DnsQuestion(NamedTuple):
    """A DNS question: a name and a record type."""

    name: str
    kind: Literal["A", "AAAA", "SRV"]


class DnsTarget(NamedTuple):
    """The target of an SRV record. Targets with a lower `priority` are used first."""

    priority: int
    host: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The answer to a question: addresses or targets, valid for `ttl` seconds.

    `beside` holds addresses of targets that the name server sent in the same response. If the result is not
    `ok`, there are no addresses and no targets.
    """

    result: Result
    ttl: float = 0.0
    addresses: tuple[str, ...] = ()
    targets: tuple[DnsTarget, ...] = ()
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


Answers: TypeAlias = Mapping[DnsQuestion, DnsAnswer]


@dataclass(frozen=True, slots=True)
class DnsFinding:
    """What DNS says about a service: its members, for how many seconds they are valid, and the result."""

    members: tuple[ServiceMember, ...]
    ttl: float
    result: Result

    def again(self, shortest: float, longest: float) -> float:
        """Return the seconds until the next query, between `shortest` and `longest`."""
        return min(max(self.ttl, shortest), longest) if self.result == "ok" else shortest


class Numbering(NamedTuple):
    """The members of a service by number, and the count of members beyond the allowed maximum."""

    members: Mapping[int, ServiceMember]
    left_out: int


# --- answers ---------------------------------------------------------------------------------------


def remembered(answers: Answers, last: Answers) -> tuple[dict[DnsQuestion, DnsAnswer], Result]:
    """Replace failed answers with the last known ones. Return all answers and the worst result.

    All questions must be about the same servers. If there are records of one type (A or AAAA), the absence
    of records of the other type is a valid answer. If there are no records at all, this is treated as a
    mistake and the last answers are kept.
    """
    any_there = any(answer.result == "ok" for answer in answers.values())
    known: dict[DnsQuestion, DnsAnswer] = {}
    results: list[Result] = ["ok"]
    for question, answer in answers.items():
        if answer.result == "ok" or (any_there and answer.result in _NOTHING):
            known[question] = answer
        else:
            known[question] = last.get(question, answer)
            results.append(answer.result)
    return known, max(results, key=RESULTS.index)


def lifecycle(answers: Answers) -> float:
    """Return for how many seconds all these answers are valid."""
    return min((answer.ttl for answer in answers.values() if answer.result == "ok"), default=0.0)


def addresses(answers: Answers) -> tuple[str, ...]:
    """Return all addresses in the answers, IPv4 first."""
    found = {one: None for answer in answers.values() for one in answer.addresses}
    return tuple(sorted(found, key=lambda one: (":" in one, one)))


# --- members ---------------------------------------------------------------------------------------


def by_address(answers: Answers) -> tuple[ServiceMember, ...]:
    """Return one member per address."""
    return tuple(ServiceMember(one, (one,)) for one in addresses(answers))


def by_class(targets: Collection[DnsTarget]) -> Iterator[tuple[DnsTarget, ...]]:
    """Yield the targets of SRV records grouped by priority, lowest priority value first.

    The target `.` means that the service does not exist, and is skipped.
    """
    there = sorted(target for target in targets if target.host)
    for _, same in groupby(there, key=lambda target: target.priority):
        yield tuple({(one.host, one.port): one for one in same}.values())


def of_targets(
    targets: Sequence[DnsTarget], found: Mapping[str, tuple[str, ...]]
) -> tuple[ServiceMember, ...]:
    """Return one member for each target that has addresses. All targets have the same priority."""
    there = [target for target in targets if found.get(target.host)]
    weights = _weights([target.weight for target in there])
    return tuple(
        ServiceMember(f"{one.host}:{one.port}", found[one.host], one.port, weight)
        for one, weight in zip(there, weights, strict=True)
    )


def _weights(given: Sequence[int]) -> list[int | None]:
    """Scale the weights of SRV records to weights of backends; None for each if all are equal."""
    if len(set(given)) < 2:
        return [None] * len(given)
    scale = min(1.0, HEAVIEST / max(given))
    return [max(1, round(weight * scale)) for weight in given]


# --- numbers ---------------------------------------------------------------------------------------


def numbered(
    before: Mapping[int, ServiceMember],
    found: Collection[ServiceMember],
    most: int,
    at_work: Mapping[int, str] = MappingProxyType({}),
) -> Numbering:
    """Give each member a number below `most`. A member that had a number keeps it.

    `at_work` maps the numbers that still have requests in flight to the names of their members. A member
    that returns gets such a number of its own again, because its requests still hold slots under it. All
    other members get the lowest free numbers; numbers of other members with requests in flight are used
    last.
    """
    now = {member.name: member for member in found}
    kept: dict[int, ServiceMember] = {}
    for owners in ({number: member.name for number, member in before.items()}, at_work):
        for number, name in sorted(owners.items()):
            if number < most and number not in kept and name in now:
                kept[number] = now.pop(name)
    free = sorted(set(range(most)) - kept.keys(), key=lambda number: (number in at_work, number))
    new = dict(zip(free, now.values(), strict=False))
    return Numbering(dict(sorted((kept | new).items())), len(now) - len(new))


def changes(
    before: Mapping[int, ServiceMember], after: Mapping[int, ServiceMember]
) -> tuple[dict[int, ServiceMember], dict[int, ServiceMember]]:
    """Return the members that were added and those that were removed, by number.

    A member whose addresses changed counts as removed and added.
    """

    def servers(members: Mapping[int, ServiceMember]) -> set[tuple[int, str, tuple[str, ...]]]:
        return {(number, one.name, one.addresses) for number, one in members.items()}

    came = {number: after[number] for number, _, _ in servers(after) - servers(before)}
    went = {number: before[number] for number, _, _ in servers(before) - servers(after)}
    return dict(sorted(came.items())), dict(sorted(went.items()))
