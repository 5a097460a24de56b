"""The native door: ChatGLM-6B's own answer, whatever server gave it, and errors its clients can read."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from typing import Any

import httpx
import pytest

from tests.support.asgi import rig
from tests.support.servers import Reply, Servers, failing, held, native, refusing, whole
from tests.support.stack import wait_until

KEYS = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(text.encode()).decode()}


async def test_the_answer_is_what_api_py_answers() -> None:
    async with rig(Servers(a=native("hello")), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi", "history": [["a", "b"]]})
    assert call.status == 200
    assert call.header("content-type") == "application/json"
    body = call.json
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", body.pop("time"))
    assert body == {"response": "hello", "history": [["a", "b"], ["hi", "hello"]], "status": 200}
    assert call.header("x-gateway-backend") == "a"


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        pytest.param(None, [], id="null"),
        pytest.param([], [], id="empty"),
        pytest.param([["a", "b"]], [["a", "b"]], id="pairs"),
        pytest.param([[None, "b"], ["c", None]], [["", "b"], ["c", ""]], id="null-halves"),
        pytest.param([["", "b"]], [["", "b"]], id="empty-halves"),
    ],
)
async def test_history_comes_back_as_it_was_given(history: list[Any] | None, sent: list[list[str]]) -> None:
    async with rig(Servers(a=native("hello")), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi", "history": history})
    assert call.json["history"] == [*(history or []), ["hi", "hello"]]
    assert house.servers.asked[0].body["history"] == sent


async def test_the_answers_own_history_is_not_trusted() -> None:
    reply = refusing(200, b'{"response":"hello","history":[["evil","pair"]],"status":200}')
    async with rig(Servers(a=reply), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi"})
    assert call.json["history"] == [["hi", "hello"]]


async def test_any_server_can_stand_behind_it() -> None:
    async with rig(Servers(a=whole("\n hello "))) as house:
        call = await house.post("/", {"prompt": "hi", "history": [["", "b"], ["c", "d"]], "max_length": 9999})
    assert call.json["response"] == "hello"
    sent = house.servers.asked[0].body
    assert sent["messages"] == [
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "hi"},
    ]
    assert 9000 < sent["max_tokens"] < 9999
    assert "max_length" not in sent


@pytest.mark.parametrize("length", [20_000, 80_000, 0, None])
async def test_any_max_length_is_taken(length: int | None) -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi", "max_length": length})
    assert call.status == 200
    assert house.servers.asked[0].body["max_length"] <= 8192


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_any_content_type_is_taken(kind: str) -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi"}, headers={"content-type": kind})
    assert call.status == 200


@pytest.mark.parametrize(("default", "model"), [(None, "m"), ("other", "other")])
async def test_it_asks_the_default_model_or_the_first(default: str | None, model: str) -> None:
    extra = '[[models]]\nname = "m"\n[[models]]\nname = "other"\nbackends = ["a"]\n'
    async with rig(Servers(a=whole()), extra=extra, server={"default_model": default}) as house:
        await house.post("/", {"prompt": "hi", "model": "ignored"})
    assert house.servers.asked[0].body["model"] == model


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        pytest.param(failing(httpx.ConnectError), 503, id="refused-connection"),
        pytest.param(refusing(500), 502, id="500"),
        pytest.param(native(""), 502, id="empty"),
        pytest.param(refusing(200, b"<html>secret"), 502, id="garbage"),
    ],
)
async def test_errors_have_their_status_outside_and_inside(reply: Reply, status: int) -> None:
    async with rig(Servers(a=reply), "chatglm2") as house:
        call = await house.post("/", {"prompt": "hi"})
    assert call.status == status
    assert call.header("content-type") == "application/json"
    assert set(call.json) == {"detail", "status"}
    assert call.json["status"] == status
    assert "secret" not in call.json["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{", {}, 400, id="no-json"),
        pytest.param(b'{"prompt":"x"}', {"content-encoding": "gzip"}, 415, id="compressed"),
        pytest.param(b"x" * 35_000_000, {}, 413, id="too-large"),
        pytest.param(b'{"prompt":"' + "字".encode() * 20_000 + b'"}', {}, 400, id="too-long"),
    ],
)
async def test_refusals_are_of_the_same_form(body: bytes, headers: dict[str, str], status: int) -> None:
    async with rig(Servers(a=native()), "chatglm2") as house:
        call = await house.post("/", body, headers=headers)
    assert (call.status, call.json["status"]) == (status, status)
    assert house.servers.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(basic("user:sk-12345678"), id="password"),
        pytest.param(basic("sk-12345678:"), id="name-without-password"),
        pytest.param({"authorization": "Bearer sk-12345678"}, id="bearer"),
    ],
)
async def test_a_key_in_the_url_opens_the_door(headers: dict[str, str]) -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        assert (await house.post("/", {"prompt": "hi"}, headers=headers)).status == 200
        assert house.access[0]["tenant"] == "team"


async def test_without_a_key_the_refusal_is_of_the_same_form() -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS) as house:
        call = await house.post("/", {"prompt": "hi"})
    assert (call.status, call.json["status"]) == (401, 401)
    assert call.header("www-authenticate") == "Bearer"


async def test_the_door_can_be_opened_to_all_without_opening_the_others() -> None:
    async with rig(Servers(a=native()), "chatglm2", KEYS, server={"native_auth": "none"}) as house:
        assert (await house.post("/", {"prompt": "hi"})).status == 200
        assert house.access[0]["tenant"] == "anonymous"
        assert (await house.chat()).status == 401


async def test_one_who_leaves_while_queued_frees_the_place() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()))
    async with rig(servers, "chatglm2") as house:
        holder = house.begin("/", {"prompt": "hi"})
        await wait_until(lambda: servers.order == ["a"])
        call = house.begin("/", {"prompt": "ho"})
        await wait_until(lambda: house.gateway.dispatcher.queue_depth("m") == 1)
        call.leave()
        await call.task
        assert house.gateway.dispatcher.queue_depth("m") == 0
        release.set()
        await holder.task
    assert holder.json["response"] == "hello"
    assert [line["door"] for line in house.access] == ["native", "native"]
