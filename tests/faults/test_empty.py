"""Status 200 and no text: an answer where the server calls it complete, a failure where it does not."""

from __future__ import annotations

import pytest

from tests.faults.checks import (
    BOTH,
    EVERY,
    EVERY_STREAM,
    check_good,
    check_refused,
    ended,
    over,
    playing,
    tries,
)
from tests.faults.test_native_lies import GOOD, telling
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, Tape, tape
from tests.support.visitor import ask

WORDLESS = (
    "chatglm",
    "chatglm2",
    "chatglm3-native",
    "chatglm3-native-glm4",
    "chatglm-cpp-native",
    "chatglm-stream",
)
"""Their servers give no reason for an end, so nothing tells an empty answer from a failure."""
NATIVE = Server("chatglm2", "chatglm2")
NOTHING = telling({**GOOD, "response": ""})


@EVERY
@BOTH
async def test_one_that_is_said_to_be_complete_is_an_answer(server: Server, stream: bool) -> None:
    empty = await tape(server, stream=stream, reply="")
    whole = await tape(server, stream=False, reply="")  # chatglm3 streams nothing, and is asked again
    good = await tape(server, stream=stream)
    others: list[bytes] = []
    async with (
        peer(playing(empty.sized, whole.sized)) as here,
        peer(playing(good.chunked, requests=others)) as other,
    ):
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
            retried = gateway.metric("gateway_retries_total", reason="bad_payload")
            assert tries(gateway, "bad_payload") == retried == len(others)
    if server.id in WORDLESS:
        assert others
        check_good(answer, REPLY)
    else:
        assert not others
        check_good(answer, "")


@EVERY_STREAM
async def test_a_stream_of_done_alone_is_tried_elsewhere(server: Server) -> None:
    nothing = Tape("text/event-stream", b"data: [DONE]\n\n")
    good = await tape(server, stream=True)
    async with peer(playing(nothing.sized, nothing.sized)) as here, peer(playing(good.chunked)) as other:
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=True)
    check_good(answer, REPLY)
    assert answer.headers["x-gateway-backend"] == "gpu-1"


@BOTH
async def test_where_all_are_empty_the_tries_are_bounded(stream: bool) -> None:
    requests: list[bytes] = []
    script = playing(NOTHING, requests=requests)
    async with peer(script) as one, peer(script) as two, peer(script) as three:
        async with over(NATIVE, one.url, two.url, three.url) as gateway:
            check_refused(await ask(gateway, stream=stream), 502, "empty_response")
            assert ended(gateway, "bad_payload", 502) == 1
    assert len(requests) == 2, "one more try by default"


@BOTH
async def test_another_model_answers_where_one_says_nothing(stream: bool) -> None:
    good = await tape(NATIVE, stream=stream)
    spare = '[[models]]\nname = "m"\nfallbacks = ["spare"]\n'
    async with peer(playing(NOTHING)) as here, peer(playing(good.chunked)) as other:
        async with over(NATIVE, here.url, other.url, extra=spare, serves={"gpu-1": "spare"}) as gateway:
            answer = await ask(gateway, stream=stream)
    check_good(answer, REPLY)
    said = answer.events[0] if stream else answer.json
    assert said["model"] == "spare"


@pytest.mark.parametrize(
    ("questions", "doubted"),
    [
        pytest.param(["same"] * 4, False, id="one-request-and-its-repeats"),
        pytest.param(["one", "two"], False, id="two-requests"),
        pytest.param(["one", "two", "three"], True, id="three-requests"),
    ],
)
async def test_several_requests_call_for_a_trial_and_one_does_not(
    questions: list[str], doubted: bool
) -> None:
    async with peer(playing(*[NOTHING] * len(questions))) as here, over(NATIVE, here.url) as gateway:
        for question in questions:
            check_refused(await ask(gateway, question), 502, "empty_response")
        assert gateway.metric("gateway_backend_up") == 1
        assert gateway.gateway.health_monitor.healths["gpu-0"].doubted == doubted
