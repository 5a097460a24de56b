from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.glm4 import GLM4
from gateway.errors import ContextExceeded
from gateway.wire import sse
from gateway.wire.events import Delta, Finish, ToolPiece
from gateway.wire.native import NativeRequest
from gateway.wire.openai import ChatRequest, chat_of_pairs, read_chat

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def request(*texts: str, **members: Any) -> ChatRequest:
    messages = [{"role": "user", "content": text} for text in texts or ("hi",)]
    return read_chat(json.dumps({"messages": messages, **members}).encode())


def ask(chat: ChatRequest, stream: bool = False, **profile: Any) -> Outgoing:
    return GLM4().ask(chat, Profile(model="m", **profile), stream=stream)


def event(delta: dict[str, Any], finish: str | None = None) -> sse.Event:
    return sse.Event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def test_the_server_batches_and_has_tools_but_neither_stop_nor_n() -> None:
    dialect = GLM4()
    assert (dialect.name, dialect.slots, dialect.context, dialect.probe) == ("glm4", 8, 8192, "/health")
    assert dialect.honours == {"tools"}


def test_the_context_is_8192_tokens_unless_configured() -> None:
    with pytest.raises(ContextExceeded):
        ask(request("x" * 29_100))
    assert ask(request("x" * 29_000)).prompt_tokens == 6 + 7436
    assert ask(request("x" * 29_100), context=9000).budget == 1024


def test_the_offered_names_are_known_to_whoever_checks_calls() -> None:
    assert ask(request(tools=[TOOL])).tool_names == {"f"}
    assert ask(request(tools=[TOOL], tool_choice="none")).tool_names == frozenset()


def test_asking_beside_tools_changes_nothing_in_the_shared_request() -> None:
    chat = read_chat(
        json.dumps(
            {
                "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}],
                "tools": [TOOL],
            }
        ).encode()
    )
    before = deepcopy(chat.body)
    assert ask(chat).body == ask(chat).body
    assert chat.body == before


def test_a_native_client_leaves_its_empty_halves_out_and_counts_the_prompt_in() -> None:
    native = NativeRequest("q", (("", "x"), ("a", "")), max_length=100)
    outgoing = ask(chat_of_pairs(native, "m", empty_halves=False))
    sent = json.loads(outgoing.body)
    assert [message["content"] for message in sent["messages"]] == ["x", "a", "q"]
    assert sent["max_tokens"] == 100 - outgoing.prompt_tokens


def test_pieces_of_a_call_carry_id_and_name_once() -> None:
    decoder = GLM4().decoder(ask(request(tools=[TOOL]), stream=True))
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}, "type": "function"}
    rest = {"index": 0, "id": None, "function": {"name": None, "arguments": "{}"}, "type": "function"}
    assert decoder.feed(event({"role": "assistant", "content": None, "tool_calls": [call]})) == [
        Delta(tools=(ToolPiece(0, "", "c", "f"),))
    ]
    assert decoder.feed(event({"role": None, "content": None, "tool_calls": [rest]})) == [
        Delta(tools=(ToolPiece(0, "{}"),))
    ]


@pytest.mark.parametrize("reason", ["length", "tool_calls", "content_filter"])
def test_only_stop_is_ever_corrected(reason: str) -> None:
    decoder = GLM4().decoder(ask(request(max_tokens=1), stream=True))
    assert decoder.feed(event({"content": "a" * 50}, reason))[-1] == Finish(reason)  # type: ignore[arg-type]  # a plain text here
