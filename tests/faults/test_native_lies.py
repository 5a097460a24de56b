"""ChatGLM's own wire says 200 whatever happened: its body is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.checks import BOTH, SECRET, check_good, check_refused, over, playing, tries
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.tapes import REPLY, Tape
from tests.support.visitor import Visitor, ask

NATIVE = pytest.mark.parametrize("dialect", ["chatglm", "chatglm2", "chatglm3-native", "chatglm-cpp-native"])
GOOD: dict[str, Any] = {"response": REPLY, "history": [], "status": 200, "time": "2023-01-01 00:00:00"}
LIES: dict[str, dict[str, Any]] = {
    "status-500": {**GOOD, "response": SECRET, "status": 500},
    "status-text": {**GOOD, "response": SECRET, "status": "500"},
    "status-null": {**GOOD, "response": SECRET, "status": None},
    "null": {**GOOD, "response": None},
    "missing": {"history": [[SECRET, SECRET]], "status": 200},
    "list": {**GOOD, "response": [SECRET]},
}


def telling(body: dict[str, Any]) -> bytes:
    """An answer with this body."""
    return Tape("application/json", json.dumps(body).encode()).sized


@NATIVE
@BOTH
@pytest.mark.parametrize("lie", LIES)
async def test_it_is_a_502(dialect: str, stream: bool, lie: str) -> None:
    async with peer(playing(telling(LIES[lie]))) as here:
        async with over(Server(dialect, dialect), here.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "bad_payload") == 1
    check_refused(answer, 502, "upstream_invalid_response")


@NATIVE
@BOTH
async def test_an_empty_answer_is_told_apart(dialect: str, stream: bool) -> None:
    async with peer(playing(telling({**GOOD, "response": ""}))) as here:
        async with over(Server(dialect, dialect), here.url) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 502, "empty_response")


@NATIVE
@pytest.mark.parametrize("history", [[[SECRET, "x" * 2_000_000]], SECRET, None, {"a": 1}])
async def test_its_history_is_neither_trusted_nor_stored(dialect: str, history: Any) -> None:
    raw = telling({**GOOD, "history": history})
    async with peer(playing(raw, raw)) as here:
        async with over(Server(dialect, dialect), here.url) as gateway:
            check_good(await ask(gateway), REPLY)
            body = json.dumps({"prompt": "你好", "history": [["a", "b"]]}).encode()
            answer = await (await Visitor.to(gateway, body, "/")).wait_answer()
    assert answer.json["response"] == REPLY
    assert answer.json["history"] == [["a", "b"], ["你好", REPLY]]
    assert SECRET.encode() not in answer.body


async def test_a_native_client_sees_failures_as_json() -> None:
    async with peer(playing(telling(LIES["status-500"]))) as here:
        async with over(Server("chatglm2", "chatglm2"), here.url) as gateway:
            answer = await (await Visitor.to(gateway, b'{"prompt": "x"}', "/")).wait_answer()
    assert (answer.status, answer.json["status"]) == (502, 502)
    assert SECRET not in answer.json["detail"]
