from __future__ import annotations

import json

import pytest

from gateway.dialects.base import Profile
from gateway.dialects.chatglm2 import ChatGLM2Dialect
from gateway.errors import ContextExceeded
from gateway.formats.openai import ChatRequest, read_chat


def read(*texts: str) -> ChatRequest:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    return read_chat(json.dumps({"messages": messages, "temperature": 0}).encode())


@pytest.mark.parametrize(
    ("texts", "counted"),
    [
        pytest.param(["好" * 100], 2 + 14 + 63, id="a-first-question-is-a-round"),
        pytest.param(["好" * 100, "a", "好" * 100], 2 + 14 + 14 + 63 + 1 + 63, id="rounds-have-labels"),
        pytest.param(["a", "b", "c", "d", "e"], 2 + 14 * 3 + 5, id="every-round"),
    ],
)
def test_a_prompt_is_counted_as_the_server_builds_it(texts: list[str], counted: int) -> None:
    assert ChatGLM2Dialect().ask(read(*texts), Profile("m"), stream=False).prompt_tokens == counted


def test_the_context_is_8192_tokens() -> None:
    # 7447 tokens plus the margin are 8192 tokens, so there is no room for an answer.
    with pytest.raises(ContextExceeded):
        ChatGLM2Dialect().ask(read("é" * 7431), Profile("m"), stream=False)
    out = ChatGLM2Dialect().ask(read("é" * 7430), Profile("m"), stream=False)
    assert (out.prompt_tokens, out.total) == (7446, 8192)


def test_zero_temperature_is_told_in_a_way_the_server_understands() -> None:
    body = json.loads(ChatGLM2Dialect().ask(read("q"), Profile("m"), stream=False).body)
    assert (body["temperature"], body["top_p"]) == (0.1, 0.01)


def test_it_has_no_health_path_and_takes_pairs() -> None:
    assert (ChatGLM2Dialect.probe, ChatGLM2Dialect.pairs) == ("/openapi.json", True)
