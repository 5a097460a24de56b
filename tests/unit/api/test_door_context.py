"""Who may come in, and for which model: decided by headers first, before a byte of the body is read."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from gateway.telemetry.receipt import LONGEST_ASKED, Receipt
from gateway.tenancy.failures import FREE, LONGEST
from tests.support.asgi import Rig, begin, chat, fetch, rig
from tests.support.servers import Servers, native, whole

EXTRA = """
[[models]]
name = "other"
aliases = ["another"]
backends = ["a"]
[[keys]]
name = "all"
key = "sk-all-models"
[[keys]]
name = "one"
key = "sk-one-model"
models = ["other"]
[[keys]]
name = "old"
key = "sk-expired"
expires = 2020-01-01
"""
KEY = {"authorization": "Bearer sk-all-models"}


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


GOOD: list[Any] = [
    pytest.param([("authorization", "Bearer sk-all-models")], id="bearer"),
    pytest.param([("authorization", "bearer   sk-all-models ")], id="any-case-and-blanks"),
    pytest.param([("x-api-key", "sk-all-models")], id="x-api-key"),
    pytest.param([("api-key", "sk-all-models")], id="api-key"),
    pytest.param([("x-api-key", "sk-all-models"), ("api-key", "wrong")], id="x-api-key-before-api-key"),
    pytest.param([("authorization", basic("anybody:sk-all-models"))], id="basic-password"),
    pytest.param([("authorization", basic("sk-all-models:"))], id="basic-name-alone"),
    pytest.param([("authorization", "Bearer sk-all-models"), ("x-api-key", "wrong")], id="bearer-wins"),
    pytest.param([("authorization", basic("x:wrong")), ("x-api-key", "sk-all-models")], id="basic-is-last"),
]

BAD: list[Any] = [
    pytest.param([], "missing", id="none"),
    pytest.param([("authorization", "")], "missing", id="empty"),
    pytest.param([("authorization", "Bearer")], "missing", id="scheme-alone"),
    pytest.param([("authorization", "Bearer ")], "missing", id="blank"),
    pytest.param([("authorization", "sk-all-models")], "missing", id="no-scheme"),
    pytest.param([("authorization", "Token sk-all-models")], "missing", id="other-scheme"),
    pytest.param([("authorization", "Digest sk-all-models")], "missing", id="digest"),
    pytest.param([("authorization", "Basic sk-all-models")], "missing", id="basic-that-is-no-base64"),
    pytest.param(
        [("authorization", "Basic " + b64encode(b"sk-all-models").decode())], "missing", id="basic-no-colon"
    ),
    pytest.param([("authorization", basic(":"))], "missing", id="basic-of-nothing"),
    pytest.param([("authorization", "Bearer sk-all-models")] * 2, "missing", id="two-authorizations"),
    pytest.param([("x-api-key", "sk-all-models")] * 2, "missing", id="two-x-api-keys"),
    pytest.param([("api-key", "sk-all-models")] * 2, "missing", id="two-api-keys"),
    pytest.param([("api-key", "sk-wrong-key")], "wrong", id="wrong-api-key"),
    pytest.param([("authorization", "Bearer sk-wrong-key")], "wrong", id="wrong"),
    pytest.param([("authorization", "Bearer SK-ALL-MODELS")], "wrong", id="other-case"),
    pytest.param([("authorization", "Bearer sk-all-model")], "wrong", id="a-piece"),
    pytest.param([("authorization", "Bearer sk-all-modelsx")], "wrong", id="more"),
    pytest.param([("authorization", "Bearer sk-all-models, Bearer x")], "wrong", id="a-list"),
    pytest.param([("authorization", "Bearer clé-été-ÿ")], "wrong", id="non-ascii"),
    pytest.param([("authorization", "Bearer ' OR '1'='1")], "wrong", id="injection"),
    pytest.param([("authorization", "Bearer " + "x" * 1_000_000)], "wrong", id="a-million-characters"),
    pytest.param([("authorization", basic("sk-all-models:wrong"))], "wrong", id="basic-wrong-password"),
    pytest.param([("authorization", "Bearer sk-expired")], "expired", id="expired"),
    pytest.param([("cookie", "key=sk-all-models")], "missing", id="in-a-cookie"),
]


@pytest.mark.parametrize("headers", GOOD)
async def test_a_key_opens_the_door_in_every_form(headers: list[tuple[str, str]]) -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        assert (await house.chat(headers)).status == 200
    assert house.access[0]["tenant"] == "all"


def auth_failures(house: Rig) -> list[str]:
    return [line["reason"] for line in house.lines if line["event"] == "auth_failed"]


@pytest.mark.parametrize(("headers", "reason"), BAD)
async def test_all_other_credentials_are_refused_alike(headers: list[tuple[str, str]], reason: str) -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        call = await house.chat(headers)
        plain = await house.chat()
    assert call.status == 401
    assert call.body == plain.body
    assert call.error["code"] == "invalid_api_key"
    assert call.header("www-authenticate") == "Bearer"
    assert auth_failures(house) == [reason, "missing"]
    assert house.servers.asked == []
    assert b"sk-" not in call.body


async def test_a_key_in_the_query_opens_nothing_and_is_not_logged() -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        call = await house.post("/v1/chat/completions", chat(), query=b"key=sk-all-models")
    assert call.status == 401
    assert "sk-all-models" not in house.log.getvalue()


async def test_no_key_reaches_the_log_or_a_backend() -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        await house.chat(KEY)
        await house.chat({"authorization": "Bearer sk-secret-wrong"})
    assert "sk-" not in house.log.getvalue()


async def test_refused_keys_are_counted() -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        await house.chat()
        await house.chat({"x-api-key": "sk-expired"})
        exposition = house.gateway.metrics.render()[0].decode()
    assert 'gateway_auth_failures_total{reason="missing"} 1.0' in exposition
    assert 'gateway_auth_failures_total{reason="expired"} 1.0' in exposition


async def test_who_has_no_key_is_refused_before_the_body_is_read() -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        call = house.begin(body=[])  # a body that never comes
        await call.task
    assert call.status == 401


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ("other", 200, None),
        ("another", 200, None),
        ("m", 403, "model_not_allowed"),
        ("nobody", 404, "model_not_found"),
    ],
)
async def test_a_key_opens_only_its_models(asked: str, status: int, code: str | None) -> None:
    async with rig(Servers(a=whole()), extra=EXTRA) as house:
        call = await house.chat({"authorization": "Bearer sk-one-model"}, model=asked)
    assert call.status == status
    if code is not None:
        assert (call.error["code"], call.error["param"]) == (code, "model")
        assert house.servers.asked == []


async def test_a_model_that_is_not_there_never_becomes_a_label() -> None:
    async with rig(Servers(a=whole())) as house:
        for name in ("nowhere", "\u2028odd", "x" * 10_000):
            await house.chat(model=name)
        exposition = house.gateway.metrics.render()[0].decode()
    assert {line["model"] for line in house.access} == {"other"}
    assert "nowhere" not in exposition
    assert "odd" not in exposition


async def test_the_start_of_the_name_of_an_unknown_model_is_kept_for_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Receipt] = []
    async with rig(Servers(a=whole())) as house:
        monkeypatch.setattr(house.logs, "settled", kept.append)
        for name in ("nowhere", "x" * 10_000, "m"):
            await house.chat(model=name)
    assert [receipt.asked for receipt in kept] == ["nowhere", "x" * LONGEST_ASKED, ""]


async def test_without_keys_everybody_is_anonymous() -> None:
    async with rig(Servers(a=whole())) as house:
        assert (await house.chat()).status == 200
        assert (await house.chat({"authorization": "Bearer whatever"})).status == 200
    assert {line["tenant"] for line in house.access} == {"anonymous"}


async def test_a_gateway_that_is_ending_takes_nobody_in() -> None:
    async with rig(Servers(a=whole())) as house:
        house.gateway.lifecycle.drain()
        call = await house.chat()
    assert call.status == 503
    assert call.error["code"] == "draining"
    assert call.header("retry-after") == "1"
    assert call.header("connection") == "close"
    assert house.access[0]["outcome"] == "shutdown"


async def test_many_wrong_keys_of_one_address_wait_and_a_good_key_does_not() -> None:
    wrong, good = {"authorization": "Bearer sk-wrong-key"}, {"authorization": "Bearer sk-12345678"}
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    async with rig(Servers(a=native()), "chatglm2", keys) as house:
        for _ in range(FREE):
            assert (await house.get("/v1/models", headers=wrong)).status == 401
        slow = begin(house.gateway.data, "GET", "/v1/models", headers=wrong)
        slower = begin(house.gateway.data, "GET", "/v1/models", headers=wrong)
        assert (await house.get("/v1/models", headers=good)).status == 200
        assert not slower.task.done()
        slower.leave()
        await slower.task
        await slow.task
        assert (slow.status, slow.error["code"]) == (401, "invalid_api_key")
        text = house.gateway.metrics.render()[0].decode()
        assert f'gateway_auth_failures_total{{reason="wrong"}} {FREE + 2}.0' in text


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/openai/deployments/m/chat/completions"]
)
async def test_a_guesser_learns_nothing_from_an_answer_that_does_not_come(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"authorization": "Bearer sk-12345678", "content-type": "application/json"}
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    method, body = ("GET", b"") if path == "/v1/models" else ("POST", b'{"messages": [{"role": "user"')
    async with rig(Servers(a=native()), "chatglm2", keys) as house:
        failures = house.gateway._door_context.failures
        for _ in range(1000):
            failures.delay("127.0.0.1")
        waits: list[float] = []
        trial = failures.trial

        def shortened(address: str, name: str) -> float:
            waits.append(trial(address, name))
            return min(waits[-1], 0.05)

        monkeypatch.setattr(failures, "trial", shortened)
        left = begin(house.gateway.data, method, path, body=body, headers=good)
        left.leave()
        await left.task
        assert left.status == 0
        first = await fetch(house.gateway.data, method, path, body=body, headers=good)
        again = await fetch(house.gateway.data, method, path, body=body, headers=good)
    assert waits == [pytest.approx(LONGEST, abs=1), pytest.approx(LONGEST, abs=1), 0.0, 0.0]
    assert first.status == again.status == (200 if method == "GET" else 400)


async def test_readiness_is_no_way_to_guess_keys() -> None:
    good, wrong = {"authorization": "Bearer sk-12345678"}, {"authorization": "Bearer sk-wrong-key"}
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    async with rig(Servers(a=native()), "chatglm2", keys) as house:
        for _ in range(FREE + 20):
            await house.get("/readyz", headers=wrong, query=b"verbose")
        call = await house.get("/readyz", headers=good, query=b"verbose")
        assert (call.status, "backends" in call.json) == (200, False)
        text = house.gateway.metrics.render()[0].decode()
        assert f'gateway_auth_failures_total{{reason="wrong"}} {FREE + 20}.0' in text


async def test_requests_without_a_key_do_not_wait() -> None:
    keys = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
    async with rig(Servers(a=native()), "chatglm2", keys) as house:
        for _ in range(FREE + 5):
            await house.get("/v1/models")
        assert len(house.gateway._door_context.failures) == 0
