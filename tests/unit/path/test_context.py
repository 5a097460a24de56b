"""What the context of a path makes of exceptions, and of another configuration."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamGarbled
from gateway.telemetry.receipt import Receipt
from tests.support.path import open_path
from tests.support.servers import Servers, native


async def test_an_unexpected_exception_is_logged_and_becomes_the_backends_failure() -> None:
    crashes: list[tuple[str, BaseException]] = []
    async with open_path(Servers(a=native())) as scene:
        context = scene.path_context(crash=lambda request_id, error: crashes.append((request_id, error)))
        error = KeyError("choices")
        assert isinstance(context.unexpected(error, Receipt("r-7", "chat", 0.0)), UpstreamGarbled)
        assert crashes == [("r-7", error)]


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "too many open files")], ids=["memory", "os"])
async def test_an_exception_that_no_answer_can_cause_is_raised(error: Exception) -> None:
    async with open_path(Servers(a=native())) as scene:
        with pytest.raises(type(error)):
            scene.path_context().unexpected(error, scene.receipt)


async def test_copies_are_tried_once_on_their_own_model_after_a_reload_too() -> None:
    async with open_path(Servers(a=native())) as scene:
        context = scene.path_context(copies=True)
        assert context.routing.attempts == 1
        context.reconfigure(scene.settings, scene.fleet)
        assert (context.routing.attempts, context.routing.fallbacks) == (1, {})
