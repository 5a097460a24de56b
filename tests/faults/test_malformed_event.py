"""One event among good ones is garbage: it is skipped, or the stream ends with an error; never passed on."""

from __future__ import annotations

import pytest

from tests.faults.checks import EVERY_STREAM, SECRET, check_silent, over, playing
from tests.faults.test_no_end import events
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, Tape, tape
from tests.support.visitor import Answer, ask

GARBAGE = {
    "not-json": f"data: {{{SECRET}\n\n".encode(),
    "half-json": f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{SECRET}\n\n'.encode(),
    "bad-utf-8": b'data: {"choices": [{"delta": {"content": "\xff\xfe' + SECRET.encode() + b"\n\n",
    "no-field": f"{SECRET}\n\n".encode(),
    "another-field": f"note: {SECRET}\n\n".encode(),
    "comment": f": {SECRET}\n\n".encode(),
    "nul": b"data: \x00" + SECRET.encode() + b"\n\n",
    "list": f'data: ["{SECRET}"]\n\n'.encode(),
    "empty": b"data:\n\n",
}


def clean(answer: Answer) -> None:
    """Either whole, or an honest failure."""
    assert SECRET.encode() not in answer.body
    if answer.finishes if answer.streamed else "choices" in answer.json:
        assert answer.text == REPLY
        assert answer.done
    else:
        assert answer.error["code"] in {"upstream_invalid_response", "upstream_error"}
        check_silent(answer)


@EVERY_STREAM
@pytest.mark.parametrize("place", [0, 2, -1])
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_it_never_reaches_the_client(server: Server, garbage: str, place: int) -> None:
    good = await tape(server, stream=True)
    pieces = events(good.body)
    at = place % (len(pieces) + 1)
    spoiled = Tape(good.content_type, b"".join([*pieces[:at], GARBAGE[garbage], *pieces[at:]]))
    async with peer(playing(spoiled.chunked, good.chunked)) as here, over(server, here.url) as gateway:
        clean(await ask(gateway, stream=True))
        again = await ask(gateway, stream=True)
    assert (again.text, again.done) == (REPLY, True), "the gateway lives on"


@EVERY_STREAM
@pytest.mark.parametrize("harmless", ["another-field", "comment", "empty", "no-field"])
async def test_what_is_no_event_is_skipped(server: Server, harmless: str) -> None:
    good = await tape(server, stream=True)
    pieces = events(good.body)
    spoiled = Tape(good.content_type, GARBAGE[harmless].join([b"", *pieces]))
    async with peer(playing(spoiled.chunked)) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=True)
    if (server.id, harmless) == ("openai", "empty"):  # whose streams go on unread: an honest failure
        clean(answer)
        return
    assert (answer.text, answer.done) == (REPLY, True)
    assert SECRET.encode() not in answer.body
