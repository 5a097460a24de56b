"""A backend refuses the request itself: the client is told, nobody else is asked, nobody is blamed."""

from __future__ import annotations

import json

import pytest

from tests.faults.checks import BOTH, EVERY, SECRET, check_refused, over, playing, stay_silent, tries
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.visitor import ask

OPENAI = Server("openai", "openai")
BODIES = {
    "detail": {"detail": "Invalid request"},
    "pydantic": {"detail": [{"loc": ["body", "top_p"], "msg": "bad", "type": "x", "input": SECRET}]},
    "text": SECRET,
    "fastchat": {"object": "error", "message": SECRET, "code": 40302},
    "openai": {"error": {"message": "no", "type": "invalid_request_error", "param": "top_p", "code": None}},
}
TOO_LONG = {
    "openai": {"error": {"message": "x", "type": "y", "param": None, "code": "context_length_exceeded"}},
    "fastchat": {"object": "error", "message": SECRET, "code": 40303},
}


def refusing(status: int, body: object) -> bytes:
    """A refusal with this body."""
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%b" % (status, len(raw), raw)


@EVERY
@BOTH
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", BODIES)
async def test_it_is_a_400_after_one_try(server: Server, stream: bool, status: int, body: str) -> None:
    raw = refusing(status, BODIES[body])
    requests: list[bytes] = []
    async with peer(playing(raw, requests=requests)) as here, peer(stay_silent) as other:
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "upstream_4xx") == 1
            assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1
            assert gateway.metric("gateway_retries_total") == 0
    check_refused(answer, 400, None)
    assert (len(requests), other.seen) == (1, 0)


@EVERY
@BOTH
@pytest.mark.parametrize("body", TOO_LONG)
async def test_too_long_a_chat_is_told_as_such(server: Server, stream: bool, body: str) -> None:
    async with peer(playing(refusing(400, TOO_LONG[body]))) as here, peer(stay_silent) as other:
        async with over(server, here.url, other.url) as gateway:
            answer = await ask(gateway, stream=stream)
    check_refused(answer, 400, "context_length_exceeded")
    assert other.seen == 0


@EVERY
@BOTH
@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_of_ours_is_not_the_clients_fault(
    server: Server, stream: bool, status: int
) -> None:
    async with peer(playing(refusing(status, {"detail": SECRET}))) as here, over(server, here.url) as gateway:
        answer = await ask(gateway, stream=stream)
    check_refused(answer, 502, "upstream_error")
    assert "www-authenticate" not in answer.headers


ABOUT_THE_REQUEST = {
    "roles": {"error": {"code": 500, "message": "Conversation roles must alternate user/assistant/...",
                        "type": "server_error"}},
    "jinja": {"error": {"code": 500, "message": "Error: Jinja Exception: Only user and assistant roles",
                        "type": "server_error"}},
    "picture": {"error": {"code": 500, "message": "image input is not supported", "type": "server_error"}},
    "custom": {"error": {"code": 500, "message": "Unsupported tool type: custom", "type": "server_error"}},
    "reasoning": {"error": {"code": 500, "message": "Unknown reasoning format: x", "type": "server_error"}},
    "penalty": {"detail": "repetition_penalty must be in (0, 2], got 3.0."},
    "template": "Template error: roles must alternate",
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("body", ABOUT_THE_REQUEST)
async def test_a_500_that_speaks_of_the_request_is_a_400_and_blames_nobody(body: str, stream: bool) -> None:
    raw = refusing(500, ABOUT_THE_REQUEST[body])
    async with peer(playing(raw, raw, raw, raw, raw, raw)) as here, over(OPENAI, here.url) as gateway:
        for word in "abcdef":
            check_refused(await ask(gateway, word, stream=stream), 400, None)
        assert tries(gateway, "upstream_4xx") == 6
        assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1


@BOTH
@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 409, 413, 415, 418, 421, 451, 499])
async def test_no_4xx_counts_against_a_backend(status: int, stream: bool) -> None:
    raw = refusing(status, {"detail": SECRET})
    async with peer(playing(raw, raw, raw, raw, raw, raw)) as here, over(OPENAI, here.url) as gateway:
        for word in "abcdef":
            answer = await ask(gateway, word, stream=stream)
            assert answer.status in (400, 413, 502)
            assert SECRET not in answer.body.decode()
        assert gateway.metric("gateway_backend_up", backend="gpu-0") == 1
