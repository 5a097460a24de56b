from __future__ import annotations

import threading

import pytest

from gateway.api.offload import SMALL, Offload, light
from gateway.errors import BadRequest


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
