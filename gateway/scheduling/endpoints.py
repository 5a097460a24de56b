"""Who is who of the servers that DNS names. Pure: answers in, numbered members out.

A service is a table with `discover`, a member one of its servers. What a name server says is made members in
three steps. `remembered`: a question that gets no answer keeps its last one. `by_address` and `by_class`:
records become members. `numbered`: a member keeps its number as long as it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, get_args

from gateway.config import ServiceMember

Result: TypeAlias = Literal["ok", "empty", "nxdomain", "servfail", "timeout", "failed"]
"""How a question ended: with records, or with none of that kind, no such name, a name server that could not
tell, none that spoke in time, or not asked at all as something else was wrong. The later, the worse."""
RESULTS: tuple[Result, ...] = get_args(Result)

_NOTHING = ("empty", "nxdomain")
HEAVIEST = 1000
"""The largest weight a backend may have."""


class DnsQuestion(NamedTuple):
    """What a name server is asked: a name and a type of record."""

    name: str
    kind: Literal["A", "AAAA", "SRV"]


class DnsTarget(NamedTuple):
    """What an SRV record names. A lower `priority` goes first."""

    priority: int
    host: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What came of a question: addresses or targets, good for `ttl` seconds.

    `beside` are addresses of targets that came with them. With a result other than `ok` there is nothing.
    """

    result: Result
    ttl: float = 0.0
    addresses: tuple[str, ...] = ()
    targets: tuple[DnsTarget, ...] = ()
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


Answers: TypeAlias = Mapping[DnsQuestion, DnsAnswer]


@dataclass(frozen=True, slots=True)
class DnsFinding:
    """What is known of a service: its members, for how many seconds, and how the asking went."""

    members: tuple[ServiceMember, ...]
    ttl: float
    result: Result

    def again(self, shortest: float, longest: float) -> float:
        """Seconds after which to ask again."""
        return min(max(self.ttl, shortest), longest) if self.result == "ok" else shortest


class Numbering(NamedTuple):
    """The members of a service by number, and how many more there are than may be."""

    members: Mapping[int, ServiceMember]
    left_out: int


# --- answers ---------------------------------------------------------------------------------------


def remembered(answers: Answers, last: Answers) -> tuple[dict[DnsQuestion, DnsAnswer], Result]:
    """Put what was last known in the place of what could not be learned; give the worst that happened.

    All these questions are about the same servers. That there are no records of one type counts where there
    are some of the other; that there are none at all is taken for a mistake, and the last ones stay.
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
    """How many seconds these answers are good for together."""
    return min((answer.ttl for answer in answers.values() if answer.result == "ok"), default=0.0)


def addresses(answers: Answers) -> tuple[str, ...]:
    """Every address that was answered, those of IPv4 first."""
    found = {one: None for answer in answers.values() for one in answer.addresses}
    return tuple(sorted(found, key=lambda one: (":" in one, one)))


# --- members ---------------------------------------------------------------------------------------


def by_address(answers: Answers) -> tuple[ServiceMember, ...]:
    """A member for each address."""
    return tuple(ServiceMember(one, (one,)) for one in addresses(answers))


def by_class(targets: Collection[DnsTarget]) -> Iterator[tuple[DnsTarget, ...]]:
    """The targets of SRV records in classes of the same priority, the one to use before the others first.

    The target `.` says that there is no such service, and is none.
    """
    there = sorted(target for target in targets if target.host)
    for _, same in groupby(there, key=lambda target: target.priority):
        yield tuple({(one.host, one.port): one for one in same}.values())


def of_targets(
    targets: Sequence[DnsTarget], found: Mapping[str, tuple[str, ...]]
) -> tuple[ServiceMember, ...]:
    """A member for each target of a class that has addresses."""
    there = [target for target in targets if found.get(target.host)]
    weights = _weights([target.weight for target in there])
    return tuple(
        ServiceMember(f"{one.host}:{one.port}", found[one.host], one.port, weight)
        for one, weight in zip(there, weights, strict=True)
    )


def _weights(given: Sequence[int]) -> list[int | None]:
    """The weights of backends for those of records; None where they say nothing, being all the same."""
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
    """Give each member a number below `most`; who had one keeps it.

    `at_work` are numbers under which requests are still in flight, and whose they are. Who comes back gets
    such a number of its own again, as its requests hold its slots; all others get the lowest free numbers,
    and those that are at work last.
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
    """Who came and who went: members by number. One that is somewhere else now has gone and come."""

    def servers(members: Mapping[int, ServiceMember]) -> set[tuple[int, str, tuple[str, ...]]]:
        return {(number, one.name, one.addresses) for number, one in members.items()}

    came = {number: after[number] for number, _, _ in servers(after) - servers(before)}
    went = {number: before[number] for number, _, _ in servers(before) - servers(after)}
    return dict(sorted(came.items())), dict(sorted(went.items()))
