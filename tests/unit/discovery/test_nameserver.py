"""Queries to a real name server: how each kind of answer and each kind of failure is reported."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import dns.asyncresolver
import dns.exception
import pytest

from gateway.config import DiscoverySettings
from gateway.discovery import nameserver as module
from gateway.discovery.nameserver import Nameservers
from gateway.scheduling.endpoints import DnsAnswer, DnsQuestion, DnsTarget, Result
from tests.support.nameserver import Mood, NameServer, nameserver

NAME = "cards.models.svc"
A, AAAA, SRV = DnsQuestion(NAME, "A"), DnsQuestion(NAME, "AAAA"), DnsQuestion(NAME, "SRV")


def settings(*servers: NameServer, timeout: float = 2.0) -> DiscoverySettings:
    return DiscoverySettings(nameservers=tuple(one.address for one in servers), timeout=timeout)


async def asked(server: NameServer, question: DnsQuestion = A, seconds: float = 2.0) -> DnsAnswer:
    return await Nameservers(settings(server, timeout=seconds)).wait_answer(question)


async def test_addresses_come_with_their_ttl() -> None:
    async with nameserver({(NAME, "A"): ["10.0.0.2", "10.0.0.1"], (NAME, "AAAA"): ["fd00::1"]}, ttl=7) as one:
        answer = await asked(one)
        assert (answer.result, answer.ttl, sorted(answer.addresses)) == ("ok", 7, ["10.0.0.1", "10.0.0.2"])
        assert await asked(one, AAAA) == DnsAnswer("ok", 7, ("fd00::1",))
        assert one.asked == {(NAME, "A", "udp"): 1, (NAME, "AAAA", "udp"): 1}


async def test_an_alias_is_followed() -> None:
    async with nameserver({(NAME, "CNAME"): ["real.svc."], ("real.svc", "A"): ["10.0.0.1"]}, ttl=3) as one:
        assert await asked(one) == DnsAnswer("ok", 3, ("10.0.0.1",))


async def test_targets_come_with_what_was_sent_along() -> None:
    zone = {
        (NAME, "SRV"): ["10 60 8001 A.cards.svc.", "20 0 8002 b.cards.svc.", "30 0 0 ."],
        ("A.cards.svc", "A"): ["10.0.0.1"],
        ("A.cards.svc", "AAAA"): ["fd00::1"],
    }
    async with nameserver(zone, ttl=5) as one:
        one.beside = ("AAAA", "A")
        answer = await asked(one, SRV)
        assert set(answer.targets) == {
            DnsTarget(10, "a.cards.svc", 8001, 60),
            DnsTarget(20, "b.cards.svc", 8002, 0),
            DnsTarget(30, "", 0, 0),
        }
        assert answer.beside == {"a.cards.svc": ("10.0.0.1", "fd00::1")}
        assert answer.ttl == 5


async def test_what_is_too_long_for_udp_is_asked_for_over_tcp() -> None:
    addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(600)]
    async with nameserver({(NAME, "A"): addresses}) as one:
        one.mood = "truncating"
        assert sorted((await asked(one)).addresses) == sorted(addresses)
        assert one.asked == {(NAME, "A", "udp"): 1, (NAME, "A", "tcp"): 1}


@pytest.mark.parametrize(
    ("mood", "result"),
    [
        pytest.param("silent", "timeout", id="silence"),
        pytest.param("servfail", "servfail", id="servfail"),
        pytest.param("refused", "servfail", id="refused"),
        pytest.param("garbled", "timeout", id="no-dns-at-all-is-as-good-as-silence"),
    ],
)
async def test_no_answer_is_a_result(mood: Mood, result: Result) -> None:
    async with nameserver({(NAME, "A"): ["10.0.0.1"]}) as one:
        one.mood = mood
        assert await asked(one, seconds=0.3) == DnsAnswer(result)


async def test_nothing_there_is_told_from_no_such_name() -> None:
    async with nameserver({(NAME, "AAAA"): ["fd00::1"]}) as one:
        assert await asked(one) == DnsAnswer("empty")
        assert await asked(one, DnsQuestion("other.svc", "A")) == DnsAnswer("nxdomain")


async def test_a_name_that_cannot_be_asked_for_is_a_result() -> None:
    async with nameserver() as one:
        assert await asked(one, DnsQuestion("a..b", "A")) == DnsAnswer("failed")
        assert await asked(one, DnsQuestion("x" * 64, "A")) == DnsAnswer("failed")
        assert not one.asked


async def test_a_server_that_is_silent_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONE_TRY", 0.1)
    async with nameserver() as dead, nameserver({(NAME, "A"): ["10.0.0.1"]}) as well:
        dead.mood = "silent"
        answer = await Nameservers(settings(dead, well)).wait_answer(A)
        assert (answer.addresses, dead.count(NAME, "A")) == (("10.0.0.1",), 1)


async def test_nobody_listening_is_a_result() -> None:
    async with nameserver() as one:
        servers = Nameservers(settings(one, timeout=0.3))
    assert (await servers.wait_answer(A)).result in ("timeout", "servfail")


async def test_many_questions_wait_for_their_turn() -> None:
    names = [f"n{number}.svc" for number in range(3 * module.MOST_AT_ONCE)]
    async with nameserver({(name, "A"): ["10.0.0.1"] for name in names}) as one:
        servers = Nameservers(settings(one))
        answers = await asyncio.gather(*(servers.wait_answer(DnsQuestion(name, "A")) for name in names))
        assert {answer.result for answer in answers} == {"ok"}


async def test_a_cancellation_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: object, **__: object) -> None:  # may swallow a cancellation (Python 3.11)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
        raise dns.exception.Timeout

    async with nameserver() as one:
        monkeypatch.setattr(dns.asyncresolver.Resolver, "resolve", deaf)
        task = asyncio.ensure_future(asked(one))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_without_servers_of_its_own_the_systems_are_asked_with_their_search_list(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nsearch models.svc\noptions ndots:5\n")

    class OnPort(dns.asyncresolver.Resolver):
        """A resolver that reads this file and uses the test server's port, which resolv.conf cannot name."""

        def __init__(self) -> None:
            super().__init__(filename=str(file))
            self.port = one.port

    async with nameserver({(NAME, "A"): ["10.0.0.1"]}) as one:
        monkeypatch.setattr(dns.asyncresolver, "Resolver", OnPort)
        assert await Nameservers(DiscoverySettings()).wait_answer(DnsQuestion("cards", "A")) == DnsAnswer(
            "ok", 0, ("10.0.0.1",)
        )
        file.unlink()
        assert await Nameservers(DiscoverySettings()).wait_answer(DnsQuestion("cards", "A")) == DnsAnswer(
            "failed"
        )
    assert repr(Nameservers(DiscoverySettings())) == "<Nameservers of the system>"
