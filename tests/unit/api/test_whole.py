"""Whole answers: failures keep their status, and tell clients whether to repeat."""

from __future__ import annotations

import httpx
import pytest

from tests.support.asgi import rig
from tests.support.servers import (
    Reply,
    Servers,
    chunk,
    failing,
    refusing,
    streaming,
)

USAGE = {"include_usage": True}


# --- errors before the head ------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        pytest.param(failing(httpx.ConnectError), 503, "no_backend", id="refused-connection"),
        pytest.param(failing(httpx.ReadError), 502, "upstream_error", id="reset"),
        pytest.param(refusing(500), 502, "upstream_error", id="500"),
        pytest.param(refusing(503), 503, "overloaded", id="503"),
        pytest.param(refusing(400, b"{}"), 400, None, id="400"),
        pytest.param(streaming(chunk("", role=True)), 502, None, id="nothing-but-a-role"),
    ],
)
async def test_an_error_before_the_head_keeps_its_status(
    reply: Reply, status: int, code: str | None, stream: bool
) -> None:
    async with rig(Servers(a=reply)) as house:
        call = await house.chat(stream=stream)
    assert call.status == status
    assert call.header("content-type") == "application/json"
    assert call.header("x-gateway-backend") == "a"
    assert set(call.error) == {"message", "type", "param", "code"}
    assert code is None or call.error["code"] == code
    assert b"secret" not in call.body


async def test_a_busy_backends_retry_after_is_passed_on() -> None:
    once = "[retries]\nattempts = 1\n"
    async with rig(Servers(a=refusing(429, b"", retry_after="7")), extra=once) as house:
        call = await house.chat()
    assert (call.status, call.header("retry-after")) == (503, "7")


async def test_a_failure_that_made_a_card_work_is_not_to_be_repeated_by_the_sdk() -> None:
    async with rig(Servers(a=refusing(500))) as house:
        assert (await house.chat()).header("x-should-retry") == "false"
