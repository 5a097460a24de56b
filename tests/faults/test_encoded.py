"""A backend that compresses, though it was told not to: bombs are never blown up."""

from __future__ import annotations

import gzip
import resource

import pytest

from tests.faults.checks import BOTH, EVERY, check_refused, over, playing, tries
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import Tape
from tests.support.visitor import ask

BODIES = {
    "bomb": gzip.compress(b"a" * 100_000_000, 9),
    "corrupt": gzip.compress(b'{"response": "x"}')[:-9] + b"\x00" * 9,
    "good": gzip.compress(b'{"response": "x"}'),
}
MIB = 1024


@EVERY
@BOTH
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
@pytest.mark.parametrize("body", BODIES)
async def test_it_is_a_502_and_costs_no_memory(
    server: Server, stream: bool, body: str, encoding: str
) -> None:
    requests: list[bytes] = []
    one = Tape("text/event-stream" if stream else "application/json", BODIES[body])
    raw = one.head(f"content-encoding: {encoding}", f"content-length: {len(one.body)}") + one.body
    async with peer(playing(raw, requests=requests)) as here, over(server, here.url) as gateway:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await ask(gateway, stream=stream)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert tries(gateway, "bad_payload") == 1
    check_refused(answer, 502, "upstream_invalid_response")
    assert b"accept-encoding: identity" in requests[0].lower()
    assert grown < 16 * MIB + MIB
