from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from gateway.api.offload import MOST, SMALL, SWITCH_INTERVAL, Offload, light
from gateway.errors import BadRequest, NoMemory


async def test_large_bodies_are_worked_on_one_after_the_other_beside_the_loop() -> None:
    offload = Offload()
    threads = {await offload.run(threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    offload.close()


async def test_what_is_wrong_with_a_body_is_raised_to_whoever_asked() -> None:
    def refuse(why: str) -> None:
        raise BadRequest(why)

    offload = Offload()
    with pytest.raises(BadRequest, match="no good"):
        await offload.run(refuse, "no good")
    offload.close()


async def test_a_closed_one_takes_no_more_work() -> None:
    offload = Offload()
    offload.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await offload.run(threading.get_ident)


def test_a_body_is_light_where_it_is_small_and_holds_few_values() -> None:
    assert light(b"{" * 8_192)
    assert light(b"x" * SMALL)
    assert not light(b"x" * (SMALL + 1))
    assert light(b"x" * 8_192 + b"," * 2_000)
    assert not light(b"x" * 8_192 + b"," * 2_001)
    assert not light(b"[]," * 3_000)


async def test_the_thread_lets_the_event_loop_go_on_soon_only_while_it_has_work() -> None:
    usual = sys.getswitchinterval()
    offload = Offload()
    try:
        working = await offload.run(sys.getswitchinterval)
        assert working == pytest.approx(SWITCH_INTERVAL)
        assert sys.getswitchinterval() == usual
    finally:
        offload.close()


async def test_work_whose_waiter_has_left_is_not_begun_and_holds_nothing() -> None:
    class Body:
        """What a client sent."""

    offload, go, done = Offload(), threading.Event(), list[str]()
    first = asyncio.ensure_future(offload.run(go.wait, 30))
    body = Body()
    held = weakref.ref(body)

    def parse(_: Body) -> None:
        done.append("parsed")

    second = asyncio.ensure_future(offload.run(parse, body))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    del body, second
    gc.collect()
    assert held() is None  # although the thread has not come to it yet
    go.set()
    await first
    assert await offload.run(threading.get_ident)
    assert done == []
    offload.close()


async def test_no_more_work_waits_than_there_may() -> None:
    offload, go = Offload(), threading.Event()
    waiting = [asyncio.ensure_future(offload.run(go.wait, 30)) for _ in range(MOST)]
    await asyncio.sleep(0)
    with pytest.raises(NoMemory) as caught:
        await offload.run(threading.get_ident)
    assert caught.value.retry_after == 2
    for one in waiting[1:]:  # those who leave make room
        one.cancel()
    await asyncio.wait(waiting[1:])
    after = asyncio.ensure_future(offload.run(threading.get_ident))
    go.set()
    await after
    offload.close()
