from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm_stream import ChatGLMStreamDialect
from gateway.errors import ContextExceeded, UnsupportedParameter, UpstreamEmpty, UpstreamError
from gateway.formats import sse, token_counts
from gateway.formats.events import Delta, Finish
from gateway.formats.openai import read_chat


def ask(text: str = "hi", **profile: Any) -> Outgoing:
    chat = read_chat(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
    return ChatGLMStreamDialect().ask(chat, Profile(model="m", **profile), stream=True)


def update(response: str, finished: bool = False) -> sse.SseEvent:
    return sse.SseEvent(json.dumps({"delta": "?", "response": response, "finished": finished}), "delta")


def test_it_is_a_first_generation_model_that_takes_pairs() -> None:
    dialect = ChatGLMStreamDialect()
    assert (dialect.name, dialect.context, dialect.probe) == ("chatglm-stream", 2048, "/")
    assert dialect.cjk == token_counts.V1_CJK
    assert dialect.pairs


def test_the_context_is_2048_tokens_unless_configured() -> None:
    with pytest.raises(ContextExceeded):
        ask("x" * 7300)
    assert ask("x" * 7300, context=4096).prompt_tokens == 2 + 1872


def test_the_text_is_taken_from_the_response_and_never_from_the_delta() -> None:
    decoder = ChatGLMStreamDialect().decoder(ask())
    assert decoder.feed(update("ab")) == [Delta("ab")]
    assert decoder.feed(update("abc")) == [Delta("c")]
    assert decoder.feed(update("abc", finished=True)) == [Finish("stop")]
    assert decoder.end(clean=False) == []


def test_a_character_that_stays_unfinished_is_given_at_the_end() -> None:
    decoder = ChatGLMStreamDialect().decoder(ask())
    assert decoder.feed(update("a\ufffd\ufffd")) == [Delta("a")]
    assert decoder.feed(update("a\ufffd", finished=True)) == [Delta("\ufffd"), Finish("stop")]


def test_an_empty_answer_to_a_prompt_that_fills_the_context_was_cut() -> None:
    prompt = "x" * 694  # 2 + 178 tokens of 200
    assert ChatGLMStreamDialect().decoder(ask(prompt, context=200)).feed(update("", finished=True)) == [
        Finish("length")
    ]
    with pytest.raises(UpstreamEmpty):
        ChatGLMStreamDialect().decoder(ask(prompt, context=300)).feed(update("", finished=True))


def test_a_failure_is_told_without_the_servers_words() -> None:
    with pytest.raises(UpstreamError) as caught:
        ChatGLMStreamDialect().answer(ask(), b'{"success":false,"response":"CUDA secret"}')
    assert "secret" not in caught.value.message


def talk(pairs: int, *, system: str = "", **profile: Any) -> Outgoing:
    messages = [{"role": "system", "content": system}] if system else []
    for number in range(pairs):
        messages += [
            {"role": "user", "content": f"q{number}"},
            {"role": "assistant", "content": f"a{number}"},
        ]
    chat = read_chat(json.dumps({"messages": [*messages, {"role": "user", "content": "q"}]}).encode())
    return ChatGLMStreamDialect().ask(chat, Profile(model="m", **profile), stream=True)


def test_five_pairs_are_sent_and_nothing_is_reported() -> None:
    outgoing = talk(5, system="S")
    assert json.loads(outgoing.body)["history"][0] == ["S\n\nq0", "a0"]
    assert outgoing.ignored == ()


def test_pairs_beyond_the_servers_window_are_reported_and_their_system_text_stays() -> None:
    outgoing = talk(8, system="S")
    history = json.loads(outgoing.body)["history"]
    assert history[0] == ["S\n\nq3", "a3"]
    assert len(history) == 5
    assert outgoing.ignored == ("messages",)
    assert outgoing.prompt_tokens < talk(8, system="S" * 400).prompt_tokens


def test_pairs_beyond_the_servers_window_are_refused_where_losses_are() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        talk(6, strict=True)
    assert caught.value.param == "messages"
    assert talk(5, strict=True).ignored == ()
