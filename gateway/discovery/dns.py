"""Follows the servers that DNS names for each service (a table with `discover`), for as long as it runs.

Asks, has `scheduling.roster` decide who is who, and when the members have changed has everybody go by the
new ones, as a reload of config.toml does. What fails changes nothing: the last good answer stays.

Unlike `resolver`, which follows the one server of a backend with the system's own look-up whenever a
connection is opened, this knows how many servers there are, and makes each a backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from gateway import config
from gateway.background import Background
from gateway.config import Members, ServiceMember
from gateway.scheduling import endpoints
from gateway.scheduling.endpoints import DnsAnswer, DnsFinding, DnsQuestion, Numbering, Result
from gateway.telemetry.logs.events import EventLog
from gateway.telemetry.metrics.exporter import Metrics, ServiceState

_KINDS: dict[str, tuple[str, ...]] = {"dns": ("A", "AAAA"), "dns4": ("A",), "dns6": ("AAAA",)}


class Asker(Protocol):
    """Who answers questions: the name servers."""

    async def wait_answer(self, question: DnsQuestion) -> DnsAnswer:
        """The answer, whatever it is; never raises."""


MakeAsker: TypeAlias = Callable[[config.DiscoverySettings], Asker]
"""Finds who is to be asked under these settings; tests bring their own."""


def _nameservers(settings: config.DiscoverySettings) -> Asker:
    from gateway.discovery.nameserver import Nameservers  # only where it is used: dnspython is an extra

    return Nameservers(settings)


@dataclass(slots=True)
class _ServiceWatch:
    """One service: what is known of it, who had which number last, and what was told of it.

    Told is how it went, and why it could not be used.
    """

    service: config.BackendSettings
    numbering: Numbering = field(default_factory=lambda: Numbering({}, 0))
    answers: dict[DnsQuestion, DnsAnswer] = field(default_factory=dict)
    result: Result | None = None
    answered_at: float = 0.0
    owners: dict[int, str] = field(default_factory=dict)
    told: tuple[Result, int] | None = None
    unusable: str = ""

    def fits(self, service: config.BackendSettings) -> bool:
        """Whether it is still the same servers that are asked for."""
        mine = (self.service.discover, config.service_host(self.service))
        return mine == (service.discover, config.service_host(service))

    def below(self, most: int) -> dict[int, ServiceMember]:
        """The members whose numbers are below `most`."""
        return {number: one for number, one in self.numbering.members.items() if number < most}


class DnsDiscovery:
    """The members of all services. One for the whole process; of one event loop.

    `now` is the wall clock, in Unix seconds.
    """

    def __init__(
        self,
        settings: config.Config,
        logs: EventLog,
        metrics: Metrics,
        now: Callable[[], float],
        asker: MakeAsker = _nameservers,
    ) -> None:
        self._settings = settings.discovery
        self._logs = logs
        self._metrics = metrics
        self._now = now
        self._make_asker = asker
        self._watches = {one.name: _ServiceWatch(one) for one in settings.services}
        self._tasks: list[asyncio.Task[None]] = []
        self._apply: Callable[[], None] | None = None

    def start(
        self, apply: Callable[[], None], at_work: Callable[[str], bool], background: Background
    ) -> None:
        """Begin to ask; ends with `background`.

        `apply` has everybody go by `members` and may raise `OSError`; `at_work` tells whether a backend,
        one that is gone included, has requests in flight.
        """
        self._apply, self._at_work, self._background = apply, at_work, background
        self._begin()

    def kept(self, settings: config.Config) -> Members:
        """The members that stay known under other settings: those of services that ask for the same."""
        return {
            one.name: self._watches[one.name].below(one.max_discovered)
            for one in settings.services
            if one.name in self._watches and self._watches[one.name].fits(one)
        }

    def reconfigure(self, settings: config.Config) -> None:
        """Go by other settings; everybody goes by what is `kept` already. All is asked anew, at once."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._settings = settings.discovery
        old, kept = self._watches, self.kept(settings)
        self._watches = {}
        for one in settings.services:
            watch = old[one.name] if one.name in kept else _ServiceWatch(one)
            watch.service = one
            watch.numbering = Numbering(kept.get(one.name, {}), watch.numbering.left_out)
            self._watches[one.name] = watch
        if self._apply is not None:
            self._begin()

    def _begin(self) -> None:
        if self._watches:
            asker = self._make_asker(self._settings)
            self._tasks = [
                self._background.start(self._follow(watch, asker), f"discovery of {name}")
                for name, watch in self._watches.items()
            ]

    async def _follow(self, watch: _ServiceWatch, asker: Asker) -> None:
        try:
            while True:
                finding = await _look(watch, asker)
                self._learn(watch, finding)
                await asyncio.sleep(finding.again(self._settings.min_ttl, self._settings.max_ttl))
        except Exception as error:  # a bug, and the end of following: nobody else would tell
            self._logs.crash("discovery", error)
            raise

    def _learn(self, watch: _ServiceWatch, finding: DnsFinding) -> None:
        self._metrics.looked_up(watch.service.name, finding.result)
        watch.result = finding.result
        if finding.result == "ok":
            watch.answered_at = self._now()
        before = watch.numbering
        if finding.members:
            watch.numbering = self._numbered(watch, finding.members)
        if watch.numbering.members != before.members and not self._applied(watch):
            watch.numbering = before
        self._tell(watch, before)

    def _numbered(self, watch: _ServiceWatch, found: tuple[ServiceMember, ...]) -> Numbering:
        name, most = watch.service.name, watch.service.max_discovered
        watch.owners |= {number: one.name for number, one in watch.numbering.members.items()}
        at_work = {
            number: owner
            for number, owner in watch.owners.items()
            if self._at_work(config.member_name(name, number))
        }
        return endpoints.numbered(watch.numbering.members, found, most, at_work)

    def _applied(self, watch: _ServiceWatch) -> bool:
        assert self._apply is not None, "nobody learns before the start"  # noqa: S101 - tells mypy
        try:
            self._apply()
        except OSError as error:  # of the files of a certificate; tried again with the next answer
            reason = error.strerror or type(error).__name__
            if reason != watch.unusable:
                watch.unusable = reason
                name = watch.service.name
                self._logs.note("What DNS names cannot be used.", level="error", backend=name, reason=reason)
            return False
        watch.unusable = ""
        return True

    def _tell(self, watch: _ServiceWatch, before: Numbering) -> None:
        """Log what is new: members, how the asking goes, or how many are left out."""
        came, went = endpoints.changes(before.members, watch.numbering.members)
        assert watch.result is not None, "there was an answer"  # noqa: S101 - tells mypy
        news = (watch.result, watch.numbering.left_out)
        if came or went or news != watch.told:
            watch.told = news
            name = watch.service.name
            self._logs.discovered(
                name,
                watch.result,
                members=len(watch.numbering.members),
                left_out=watch.numbering.left_out,
                added=_shown(name, came),
                removed=_shown(name, went),
            )

    # --- views -------------------------------------------------------------------------------------

    @property
    def members(self) -> Members:
        """Who is known now."""
        return {name: watch.numbering.members for name, watch in self._watches.items()}

    def services(self) -> dict[str, ServiceState]:
        """How every service is, for those who show it."""
        return {
            name: ServiceState(
                members=len(watch.numbering.members),
                left_out=watch.numbering.left_out,
                result=watch.result or "pending",
                answered_at=watch.answered_at,
            )
            for name, watch in self._watches.items()
        }

    def __repr__(self) -> str:
        known = ", ".join(f"{name} {one.members} {one.result}" for name, one in self.services().items())
        return f"<Discovery {known or 'of nothing'}>"


def _shown(service: str, members: dict[int, ServiceMember]) -> dict[str, str]:
    return {config.member_name(service, number): one.name for number, one in members.items()}


# --- asking ----------------------------------------------------------------------------------------


async def _look(watch: _ServiceWatch, asker: Asker) -> DnsFinding:
    """Ask everything that there is to ask about one service."""
    host = config.service_host(watch.service)
    if watch.service.discover == "srv":
        return await _look_at_targets(watch, asker, DnsQuestion(host, "SRV"))
    questions = _about(host, watch.service.discover or "dns")
    watch.answers, result = await _ask(asker, questions, watch.answers)
    return DnsFinding(endpoints.by_address(watch.answers), endpoints.lifecycle(watch.answers), result)


async def _look_at_targets(watch: _ServiceWatch, asker: Asker, question: DnsQuestion) -> DnsFinding:
    """Ask for the targets, and for their addresses: of one class after the other, until one has some.

    A finding without members leaves everybody where they are.
    """
    listed = await asker.wait_answer(question)
    if listed.result != "ok":
        return DnsFinding((), 0.0, listed.result)
    known: dict[DnsQuestion, DnsAnswer] = {}
    lifecycle = listed.ttl
    worst: Result = "ok"
    for targets in endpoints.by_class(listed.targets):
        found = dict(listed.beside)
        hosts = sorted({target.host for target in targets} - found.keys())
        asked = await asyncio.gather(*(_ask(asker, _about(host, "dns"), watch.answers) for host in hosts))
        for host, (answers, result) in zip(hosts, asked, strict=True):
            known |= answers
            found[host] = endpoints.addresses(answers)
            lifecycle = min(lifecycle, endpoints.lifecycle(answers) or lifecycle)
            worst = max(worst, result, key=endpoints.RESULTS.index)
        if members := endpoints.of_targets(targets, found):
            break
    else:
        members = ()
        worst = "empty" if worst == "ok" else worst
    watch.answers = known
    return DnsFinding(members, lifecycle, worst)


def _about(host: str, how: str) -> list[DnsQuestion]:
    return [DnsQuestion(host, "AAAA" if kind == "AAAA" else "A") for kind in _KINDS[how]]


async def _ask(
    asker: Asker, questions: Iterable[DnsQuestion], last: endpoints.Answers
) -> tuple[dict[DnsQuestion, DnsAnswer], Result]:
    asked = list(questions)
    answers = await asyncio.gather(*(asker.wait_answer(question) for question in asked))
    return endpoints.remembered(dict(zip(asked, answers, strict=True)), last)
