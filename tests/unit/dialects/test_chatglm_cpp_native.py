from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm_cpp_native import ChatGLMCppNativeDialect
from gateway.errors import ContextExceeded, UpstreamGarbled
from gateway.formats.events import Finish
from gateway.formats.native import NativeRequest
from gateway.formats.openai import chat_of_pairs, read_chat


def ask(text: str = "hi", members: dict[str, Any] | None = None, **profile: Any) -> Outgoing:
    body = {"messages": [{"role": "user", "content": text}], **(members or {})}
    return ChatGLMCppNativeDialect().ask(
        read_chat(json.dumps(body).encode()), Profile(model="m", **profile), stream=True
    )


def test_the_server_is_alive_when_it_refuses_a_get() -> None:
    dialect = ChatGLMCppNativeDialect()
    assert (dialect.name, dialect.context, dialect.probe) == (
        "chatglm-cpp-native",
        4096,
        "/",
    )


def test_the_context_is_4096_tokens_unless_configured() -> None:
    with pytest.raises(ContextExceeded):
        ask("x" * 14_600)
    assert ask("x" * 14_600, context=8192, prompt_window=8192).total == 16 + 3744 + 376 + 1024


def test_of_a_prompt_over_the_window_only_what_the_server_keeps_is_counted_into_its_limit() -> None:
    outgoing = ask("x" * 4000, {"max_tokens": 7})
    assert (outgoing.total, outgoing.kept_tokens) == (512 + 7, 512)
    assert outgoing.prompt_tokens > 1000


def test_finish_counts_what_the_server_kept_of_the_prompt() -> None:
    dialect, outgoing = ChatGLMCppNativeDialect(), ask("x" * 4000, {"max_tokens": 100})
    whole = dialect.answer(outgoing, json.dumps({"response": "y" * 39}).encode())
    assert whole[1] == Finish("stop")
    cut = dialect.answer(outgoing, json.dumps({"response": "y" * 390}).encode())
    assert cut[1] == Finish("length")


def test_max_length_is_a_whole_number_and_history_a_list() -> None:
    sent = json.loads(ask().body)
    assert type(sent["max_length"]) is int
    assert sent["history"] == []


@pytest.mark.parametrize(("window", "notes"), [(17, ()), (16, ("prompt_window",))])
def test_a_prompt_the_server_will_cut_is_noted(window: int, notes: tuple[str, ...]) -> None:
    outgoing = ask(prompt_window=window)
    assert outgoing.notes == notes
    assert outgoing.prompt_tokens == 17


def test_a_native_clients_zero_is_not_given_and_its_length_is_clamped() -> None:
    chat = chat_of_pairs(NativeRequest("hi", max_length=80000), "m", empty_halves=True)
    sent = json.loads(ChatGLMCppNativeDialect().ask(chat, Profile(model="m"), stream=False).body)
    assert sent == {"prompt": "hi", "history": [], "max_length": 4096}


def test_nothing_ever_streams() -> None:
    outgoing = ask()
    assert not outgoing.streams
    with pytest.raises(UpstreamGarbled):
        ChatGLMCppNativeDialect().decoder(outgoing)
