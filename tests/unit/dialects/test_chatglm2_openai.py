from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm2_openai import ChatGLM2OpenAIDialect
from gateway.errors import ContextExceeded
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish
from gateway.formats.native import NativeRequest
from gateway.formats.openai import chat_of_pairs, read_chat


def ask(text: str = "hi", stream: bool = False, profile: Profile | None = None, **members: Any) -> Outgoing:
    chat = read_chat(json.dumps({"messages": [{"role": "user", "content": text}], **members}).encode())
    return ChatGLM2OpenAIDialect().ask(chat, profile or Profile(model="m"), stream=stream)


def chunk(delta: dict[str, Any], finish: str | None = None) -> sse.SseEvent:
    return sse.SseEvent(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice]}).encode()


def test_the_server_is_asked_one_thing_at_a_time_and_honours_nothing() -> None:
    dialect = ChatGLM2OpenAIDialect()
    assert (dialect.name, dialect.context) == ("chatglm2-openai", 8192)
    assert (dialect.probe, dialect.honours) == ("/v1/models", frozenset())


def test_the_context_is_8192_tokens_unless_configured() -> None:
    with pytest.raises(ContextExceeded):
        ask("x" * 29_100)
    assert ask("x" * 29_100, profile=Profile(model="m", context=32768)).prompt_tokens == 16 + 7462


def test_an_answer_that_reaches_the_end_of_the_context_was_cut_there() -> None:
    outgoing = ask(profile=Profile(model="m", context=30))
    assert ChatGLM2OpenAIDialect().answer(outgoing, whole("a" * 52))[-1] == Finish("length")
    assert ChatGLM2OpenAIDialect().answer(outgoing, whole("a" * 40))[-1] == Finish("stop")


def test_a_native_clients_length_counts_the_prompt_in() -> None:
    chat = chat_of_pairs(NativeRequest("hi", max_length=100), "m", empty_halves=False)
    assert ChatGLM2OpenAIDialect().ask(chat, Profile(model="m"), stream=False).budget == 83


def test_a_stream_is_done_as_soon_as_the_budget_is_used_up() -> None:
    decoder = ChatGLM2OpenAIDialect().decoder(ask(stream=True, max_tokens=2))
    events: list[Event] = decoder.feed(chunk({"role": "assistant"}))
    events += decoder.feed(chunk({"content": "a" * 50}))
    assert events == [Delta("a" * 7), Finish("length")]
    assert decoder.feed(chunk({"content": "more"})) == []
    assert decoder.end(clean=False) == []


def test_no_usage_is_made_up_or_believed() -> None:
    answer = json.loads(whole("a")) | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    events = ChatGLM2OpenAIDialect().answer(ask(), json.dumps(answer).encode())
    assert events == [Delta("a"), Finish("stop")]
