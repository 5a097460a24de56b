"""What requests reveal about a backend is logged once per backend."""

from __future__ import annotations

import httpx
import pytest

from gateway.errors import (
    UpstreamError,
)
from gateway.formats import jsontext
from tests.support.path import (
    open_path,
)
from tests.support.servers import (
    Servers,
    native,
    refusing,
    whole,
)

# --- notes -----------------------------------------------------------------------------------------


async def test_a_note_is_told_once_a_backend() -> None:
    servers = Servers(a=whole(), b=whole())
    long = [{"role": "user", "content": "word " * 1000}]
    async with open_path(servers, "chatglm-cpp") as scene:
        assert scene.notes == []
        for _ in range(4):
            await scene.answer(messages=long)
    assert sorted(scene.notes) == [("a", "prompt_window"), ("b", "prompt_window")]


async def test_service_times_are_learned_from_good_answers_only() -> None:
    servers = Servers(a=[refusing(500), native()])
    async with open_path(servers, "chatglm2", "[retries]\nattempts = 1\n") as scene:
        service = scene.dispatcher._scheduler.service("m")
        await scene.failure(UpstreamError)
        assert service.mean == 10.0
        await scene.answer()
        assert service.mean < 1.0


TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "r"},
]


async def fails_at_pairs(request: httpx.Request) -> httpx.Response:
    """ChatGLM3 behind the first `api.py`: a history of pairs is a 500."""
    answers = refusing(500) if jsontext.read_lenient(request.content)["history"] else native()
    return await answers(request)


@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2"])
async def test_server_that_fails_at_every_history_is_asked_about_once(dialect: str) -> None:
    async with open_path(Servers(a=fails_at_pairs), dialect) as scene:
        await scene.failure(UpstreamError, messages=TURNS)
        assert scene.notes == []  # it may be out of order: nothing has been answered yet
        for _ in range(2):
            await scene.answer()
            await scene.failure(UpstreamError, messages=TURNS)
    assert scene.notes == [("a", "role_history")]


async def test_server_that_has_answered_a_history_is_never_asked_about() -> None:
    async with open_path(Servers(a=[native(), native(), refusing(500)]), "chatglm") as scene:
        await scene.answer()
        await scene.answer(messages=TURNS)
        await scene.failure(UpstreamError, messages=TURNS)
    assert scene.notes == []
