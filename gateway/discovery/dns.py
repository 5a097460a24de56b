"""Follows the servers in DNS of each service (a `[[backends]]` table with `discover`) while the gateway runs.

It sends queries and lets `scheduling.endpoints` determine the members. If the members have changed, the new
ones are applied in the same way as a reload of config.toml. A failed query changes nothing: the last good
answer stays valid.

`upstream.resolver` is different: it resolves the host of one backend with the system's resolver each time a
connection is opened. This module finds out how many servers there are, and makes each of them a backend.
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
    """The interface for DNS queries. The implementation is `Nameservers`."""

    async def wait_answer(self, question: DnsQuestion) -> DnsAnswer:
        """Return the answer to a question. A failure is returned as an answer and never raised."""


MakeAsker: TypeAlias = Callable[[config.DiscoverySettings], Asker]
"""Creates an asker for the given settings. Tests pass their own."""


def _nameservers(settings: config.DiscoverySettings) -> Asker:
    from gateway.discovery.nameserver import Nameservers  # dnspython is an extra

    return Nameservers(settings)


@dataclass(slots=True)
class _ServiceWatch:
    """What is known about one service.

    `owners` maps each number to the member that last had it. `told` is the result and the number of
    left-out servers that were last logged. `unusable` is the last logged reason for which the members could
    not be applied.
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
        """Return True if `service` asks DNS for the same servers."""
        mine = (self.service.discover, config.service_host(self.service))
        return mine == (service.discover, config.service_host(service))

    def below(self, most: int) -> dict[int, ServiceMember]:
        """Return the members whose numbers are below `most`."""
        return {number: one for number, one in self.numbering.members.items() if number < most}


class DnsDiscovery:
    """The members of all services. One per process; bound to one event loop.

    `now` is the wall clock in Unix seconds.
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
        """Start the queries. They end with `background`.

        `apply` applies the current `members` to the whole gateway and may raise `OSError`. `at_work`
        returns True if a backend has requests in flight; it is also called for removed backends.
        """
        self._apply, self._at_work, self._background = apply, at_work, background
        self._begin()

    def kept(self, settings: config.Config) -> Members:
        """Return the members that stay valid under new settings: those of services with unchanged queries."""
        return {
            one.name: self._watches[one.name].below(one.max_discovered)
            for one in settings.services
            if one.name in self._watches and self._watches[one.name].fits(one)
        }

    def reconfigure(self, settings: config.Config) -> None:
        """Use new settings and restart all queries at once.

        The caller has already applied the members returned by `kept`.
        """
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
        except Exception as error:  # a bug that ends this task: without this line it would not be logged
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
        assert self._apply is not None, "answers arrive only after the start"  # noqa: S101 - for mypy
        try:
            self._apply()
        except OSError as error:  # a certificate file cannot be read; retried after the next answer
            reason = error.strerror or type(error).__name__
            if reason != watch.unusable:
                watch.unusable = reason
                name = watch.service.name
                self._logs.note(
                    "The servers found in DNS cannot be used.", level="error", backend=name, reason=reason
                )
            return False
        watch.unusable = ""
        return True

    def _tell(self, watch: _ServiceWatch, before: Numbering) -> None:
        """Log changes of the members, of the result, or of the number of servers left out."""
        came, went = endpoints.changes(before.members, watch.numbering.members)
        assert watch.result is not None, "a result was stored before"  # noqa: S101 - for mypy
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
        """The current members of all services."""
        return {name: watch.numbering.members for name, watch in self._watches.items()}

    def services(self) -> dict[str, ServiceState]:
        """Return the state of every service, for metrics and the admin plane."""
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
    """Send all queries for one service."""
    host = config.service_host(watch.service)
    if watch.service.discover == "srv":
        return await _look_at_targets(watch, asker, DnsQuestion(host, "SRV"))
    questions = _about(host, watch.service.discover or "dns")
    watch.answers, result = await _ask(asker, questions, watch.answers)
    return DnsFinding(endpoints.by_address(watch.answers), endpoints.lifecycle(watch.answers), result)


async def _look_at_targets(watch: _ServiceWatch, asker: Asker, question: DnsQuestion) -> DnsFinding:
    """Query the SRV targets and their addresses, one priority after the other until one has addresses.

    A finding without members leaves the current members in place.
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
