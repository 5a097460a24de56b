"""Following DNS names: queries repeat on time, changes are applied as a whole, each is logged once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.background import Background
from gateway.config import Config, ServiceMember
from gateway.discovery.dns import DnsDiscovery
from gateway.dispatch.dispatcher import Dispatcher
from gateway.scheduling.endpoints import DnsAnswer, DnsQuestion, DnsTarget
from gateway.telemetry.logs.events import configure
from gateway.telemetry.metrics.exporter import Metrics
from tests.support.stack import configured, wait_until

FAST = "\n[discovery]\nmin_ttl = 0.01\nmax_ttl = 60\n"


@dataclass
class Book:
    """Answers questions from a table; a question that is not in the table gets `nxdomain`."""

    answers: dict[DnsQuestion, DnsAnswer]
    asked: list[DnsQuestion] = field(default_factory=list)
    error: Exception | None = None

    async def wait_answer(self, question: DnsQuestion) -> DnsAnswer:
        self.asked.append(question)
        if self.error is not None:
            raise self.error
        return self.answers.get(question, DnsAnswer("nxdomain"))

    def names(self, *addresses: str, ttl: float = 0) -> None:
        self.answers[DnsQuestion("cards.svc", "A")] = DnsAnswer("ok", ttl, addresses)


@dataclass
class House:
    """A discovery with a record of what it did: the members it applied, and the log."""

    discovery: DnsDiscovery
    book: Book
    background: Background
    metrics: Metrics
    log: io.StringIO
    applied: list[dict[int, ServiceMember]] = field(default_factory=list)
    at_work: set[str] = field(default_factory=set)
    error: OSError | None = None

    def apply(self) -> None:
        if self.error is not None:
            raise self.error
        self.applied.append(dict(self.discovery.members["cards"]))

    def start(self) -> None:
        self.discovery.start(self.apply, self.at_work.__contains__, self.background)

    def lines(self, event: str = "discovery") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]

    @property
    def now(self) -> dict[int, str]:
        return {number: member.name for number, member in self.discovery.members["cards"].items()}

    async def wait_asked(self, times: int = 4) -> None:
        due = len(self.book.asked) + times
        await wait_until(lambda: len(self.book.asked) >= due)


def settings(discover: str = "dns", extra: str = FAST, **more: Any) -> Config:
    url = "http://cards.svc" if discover == "srv" else "http://cards.svc:8000"
    return configured({"cards": (url, "openai")}, extra, discover=discover, **more)


@contextlib.asynccontextmanager
async def house(given: Config | None = None, *addresses: str, ttl: float = 0) -> AsyncIterator[House]:
    book, log, background = Book({}), io.StringIO(), Background()
    if addresses:
        book.names(*addresses, ttl=ttl)
    live: Any = Dispatcher.__new__(Dispatcher)  # no method of it is called, because nothing is scraped
    live.at_once = {}
    logs = configure("json", "debug", log)
    metrics = Metrics(models=[], backends={}, live=live, version="1", services=lambda: discovery.services())
    discovery = DnsDiscovery(given or settings(), logs, metrics, lambda: 1e9, lambda _: book)
    try:
        yield House(discovery, book, background, metrics, log)
    finally:
        await background.aclose()


async def test_nothing_is_asked_before_the_start_nor_where_there_is_no_service() -> None:
    plain = configured({"a": ("http://a:1", "openai")})
    async with house(plain) as one:
        one.start()
        assert (len(one.background), one.discovery.members, one.discovery.services()) == (0, {}, {})
        one.discovery.reconfigure(settings())
        await wait_until(lambda: len(one.background) == 1)
    async with house() as one:
        one.discovery.reconfigure(settings())
        assert (len(one.background), one.discovery.services()["cards"].result) == (0, "pending")


async def test_members_are_applied_once_for_each_change() -> None:
    async with house(None, "10.0.0.2", "10.0.0.1") as one:
        one.start()
        await one.wait_asked()
        assert one.now == {0: "10.0.0.1", 1: "10.0.0.2"}
        assert len(one.applied) == len(one.lines()) == 1
        one.book.names("10.0.0.3", "10.0.0.2")
        await wait_until(lambda: len(one.applied) == 2)
        assert one.now == {0: "10.0.0.3", 1: "10.0.0.2"}
        assert one.lines()[1]["added"] == {"cards-0": "10.0.0.3"}
        assert one.lines()[1]["removed"] == {"cards-0": "10.0.0.1"}


async def test_an_answer_is_good_for_its_ttl() -> None:
    async with house(settings("dns4"), "10.0.0.1", ttl=30) as one:
        one.start()
        await wait_until(lambda: len(one.applied) == 1)
        (task,) = one.discovery._tasks
        loop = asyncio.get_running_loop()
        due = [handle.when() - loop.time() for handle in loop._scheduled]  # type: ignore[attr-defined]
        assert not task.done()
        assert any(29 < seconds <= 30 for seconds in due)
        one.discovery.reconfigure(settings("dns4", FAST.replace("60", "0.02")))  # queries at once, and often
        await one.wait_asked()
        assert one.applied == [{0: ServiceMember("10.0.0.1", ("10.0.0.1",))}]


async def test_a_number_with_requests_in_flight_is_not_given_away() -> None:
    async with house(None, "10.0.0.1") as one:
        one.at_work.add("cards-0")
        one.start()
        await wait_until(lambda: len(one.applied) == 1)
        one.book.names("10.0.0.2")
        await wait_until(lambda: len(one.applied) == 2)
        assert one.now == {1: "10.0.0.2"}


async def test_more_than_may_be_is_left_out_and_told() -> None:
    async with house(settings(max_discovered=2), "10.0.0.1", "10.0.0.2", "10.0.0.3") as one:
        one.start()
        await wait_until(lambda: len(one.lines()) == 1)
        assert one.lines()[0] | {"ts": ""} == {
            "ts": "",
            "level": "warning",
            "event": "discovery",
            "backend": "cards",
            "result": "ok",
            "members": 2,
            "left_out": 1,
            "added": {"cards-0": "10.0.0.1", "cards-1": "10.0.0.2"},
            "removed": {},
        }


async def test_what_cannot_be_used_changes_nothing_and_is_tried_again() -> None:
    async with house(None, "10.0.0.1") as one:
        one.error = FileNotFoundError(2, "No such file or directory")
        one.start()
        await wait_until(lambda: len(one.lines("note")) == 1)
        await one.wait_asked()
        assert (one.now, one.applied) == ({}, [])
        assert [line["reason"] for line in one.lines("note")] == ["No such file or directory"]
        one.error = None
        await wait_until(lambda: len(one.applied) == 1)
        assert one.now == {0: "10.0.0.1"}


async def test_a_bug_is_told() -> None:
    async with house() as one:
        one.book.error = ZeroDivisionError()
        one.start()
        await wait_until(lambda: len(one.lines("crash")) == 1)
        assert one.lines("crash")[0]["error"] == "ZeroDivisionError"


async def test_a_service_that_is_asked_for_in_another_way_begins_anew() -> None:
    async with house(None, "10.0.0.1") as one:
        one.start()
        await wait_until(lambda: len(one.applied) == 1)
        assert one.discovery.kept(settings(weight=3)) == {
            "cards": {0: ServiceMember("10.0.0.1", ("10.0.0.1",))}
        }
        assert one.discovery.kept(settings("dns4")) == {}
        one.discovery.reconfigure(settings("dns4"))
        assert one.now == {}
        assert repr(one.discovery) == "<Discovery cards 0 pending>"


# --- SRV -------------------------------------------------------------------------------------------

SRV = DnsQuestion("cards.svc", "SRV")


def srv(
    *targets: DnsTarget, ttl: float = 0, beside: Mapping[str, tuple[str, ...]] | None = None
) -> DnsAnswer:
    return DnsAnswer("ok", ttl, targets=targets, beside=beside or {})


def a(host: str) -> DnsQuestion:
    return DnsQuestion(host, "A")


async def after(
    one: House, condition: Callable[[House], bool] = lambda one: bool(one.applied)
) -> dict[int, ServiceMember]:
    await wait_until(lambda: condition(one))
    return dict(one.discovery.members["cards"])


async def test_targets_are_asked_for_unless_their_addresses_came_along() -> None:
    async with house(settings("srv")) as one:
        one.book.answers = {
            SRV: srv(
                DnsTarget(1, "a.svc", 81, 0),
                DnsTarget(1, "b.svc", 82, 0),
                beside={"a.svc": ("10.0.0.1", "fd00::1")},
            ),
            a("b.svc"): DnsAnswer("ok", 9, ("10.0.0.2",)),
            DnsQuestion("b.svc", "AAAA"): DnsAnswer("ok", 9, ("fd00::2",)),
        }
        one.start()
        assert await after(one) == {
            0: ServiceMember("a.svc:81", ("10.0.0.1", "fd00::1"), 81),
            1: ServiceMember("b.svc:82", ("10.0.0.2", "fd00::2"), 82),
        }
        assert set(one.book.asked) == {SRV, a("b.svc"), DnsQuestion("b.svc", "AAAA")}


async def test_the_next_class_is_asked_only_where_no_target_of_the_first_has_an_address() -> None:
    async with house(settings("srv")) as one:
        one.book.answers = {
            SRV: srv(
                DnsTarget(1, "a.svc", 81, 0), DnsTarget(2, "b.svc", 82, 0), DnsTarget(3, "c.svc", 83, 0)
            ),
            a("b.svc"): DnsAnswer("ok", 9, ("10.0.0.2",)),
        }
        one.start()
        assert await after(one) == {0: ServiceMember("b.svc:82", ("10.0.0.2",), 82)}
        assert a("c.svc") not in one.book.asked
        assert one.lines()[0]["result"] == "nxdomain"  # of the first priority: must be logged
        one.book.answers[a("a.svc")] = DnsAnswer("ok", 9, ("10.0.0.1",))
        assert await after(one, lambda one: len(one.applied) > 1) == {
            0: ServiceMember("a.svc:81", ("10.0.0.1",), 81)
        }


@pytest.mark.parametrize(
    ("change", "result"),
    [
        pytest.param({SRV: DnsAnswer("timeout")}, "timeout", id="no-targets-are-told"),
        pytest.param({SRV: srv(DnsTarget(0, "", 0, 0))}, "empty", id="there-is-no-such-service"),
        pytest.param({a("a.svc"): DnsAnswer("servfail")}, "servfail", id="no-address-is-told"),
    ],
)
async def test_what_was_known_of_targets_stays(change: dict[DnsQuestion, DnsAnswer], result: str) -> None:
    async with house(settings("srv")) as one:
        one.book.answers = {
            SRV: srv(DnsTarget(1, "a.svc", 81, 0)),
            a("a.svc"): DnsAnswer("ok", 9, ("10.0.0.1",)),
        }
        one.start()
        before = await after(one)
        one.book.answers |= change
        assert await after(one, lambda one: len(one.lines()) == 2) == before
        assert one.lines()[1]["result"] == result


async def test_another_weight_is_applied_without_a_word() -> None:
    async with house(settings("srv")) as one:
        beside = {"a.svc": ("10.0.0.1",), "b.svc": ("10.0.0.2",)}
        one.book.answers = {
            SRV: srv(DnsTarget(1, "a.svc", 81, 9), DnsTarget(1, "b.svc", 81, 5), beside=beside)
        }
        one.start()
        await after(one)
        one.book.answers = {
            SRV: srv(DnsTarget(1, "a.svc", 81, 9), DnsTarget(1, "b.svc", 81, 6), beside=beside)
        }
        members = await after(one, lambda one: len(one.applied) == 2)
        assert [member.weight for member in members.values()] == [9, 6]
        assert len(one.lines()) == 1
