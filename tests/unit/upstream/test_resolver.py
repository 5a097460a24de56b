"""Looking names up: never twice at a time, never for long, and never worse than what was known."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from gateway.upstream import resolver
from gateway.upstream.resolver import Resolver

ONE, TWO = (socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::2", 80, 0, 0))


class Names:
    """A resolver's answers, in turn; the last for ever. It waits for `open` before each."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        assert self.open.wait(20)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in answer]


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "unknown")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        pytest.param("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 80)), id="v4"),
        pytest.param("::1", (socket.AF_INET6, ("::1", 80, 0, 0)), id="v6"),
    ],
)
async def test_an_address_is_never_looked_up(host: str, address: Any) -> None:
    names = Names(UNKNOWN)
    one = Resolver(host, 80, names)
    assert await one.wait_addresses(1) == [address]
    one.doubt()
    assert await one.wait_addresses(1) == [address]
    assert names.asked == 0


async def test_a_host_whose_addresses_are_given_is_never_looked_up() -> None:
    names = Names(UNKNOWN)
    one = Resolver("gpu.test", 80, names, fixed=["192.0.2.1", "2001:db8::2"])
    one.doubt()
    assert await one.wait_addresses(1) == [ONE, TWO]
    assert names.asked == 0


async def test_a_scope_is_left_to_the_system() -> None:
    assert await Resolver("fe80::1%eth0", 80, Names([TWO])).wait_addresses(1) == [TWO]


async def test_all_addresses_are_given_and_asked_for_once_in_a_while() -> None:
    names = Names([ONE, TWO])
    one = Resolver("gpu.test", 80, names)
    for _ in range(3):
        assert await one.wait_addresses(1) == [ONE, TWO]
    assert names.asked == 1


async def test_an_answer_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "FRESH", 0.0)
    one = Resolver("gpu.test", 80, Names([ONE], [TWO]))
    assert await one.wait_addresses(1) == [ONE]
    assert await one.wait_addresses(1) == [TWO]


async def test_addresses_where_nobody_answers_are_looked_up_again() -> None:
    one = Resolver("gpu.test", 80, Names([ONE], [TWO]))
    await one.wait_addresses(1)
    one.doubt()
    assert await one.wait_addresses(1) == [TWO]


@pytest.mark.parametrize("failure", [UNKNOWN, UnicodeError("label too long"), []])
async def test_the_last_good_answer_is_kept(failure: Any) -> None:
    one = Resolver("gpu.test", 80, Names([ONE], failure))
    await one.wait_addresses(1)
    one.doubt()
    assert await one.wait_addresses(1) == [ONE]


@pytest.mark.parametrize("failure", [UNKNOWN, UnicodeError("label too long")])
async def test_a_name_that_was_never_known_is_an_error(failure: Exception) -> None:
    with pytest.raises(OSError, match=r"unknown|looked up"):
        await Resolver("gpu.test", 80, Names(failure)).wait_addresses(1)


async def test_a_slow_resolver_is_waited_for_by_one_thread_and_not_for_long() -> None:
    names = Names([ONE])
    names.open.clear()
    one = Resolver("gpu.test", 80, names)
    ends = await asyncio.gather(*(one.wait_addresses(0.01) for _ in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [TimeoutError] * 5
    assert names.asked == 1
    assert "looking" in repr(one)
    names.open.set()
    assert await one.wait_addresses(20) == [ONE]
    assert names.asked == 1


async def test_what_is_known_serves_while_the_resolver_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "STALE_WAIT", 0.01)
    names = Names([ONE], [TWO])
    one = Resolver("gpu.test", 80, names)
    await one.wait_addresses(1)
    one.doubt()
    names.open.clear()
    assert await one.wait_addresses(None) == [ONE]
    names.open.set()
    looking = one._looking
    if looking is not None:
        await looking
    assert await one.wait_addresses(1) == [TWO]


async def test_leaving_does_not_end_a_look_up_of_others() -> None:
    names = Names([ONE])
    names.open.clear()
    one = Resolver("gpu.test", 80, names)
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(one.wait_addresses(20)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        names.open.set()
    assert first.cancelled()
    assert second.result() == [ONE]
