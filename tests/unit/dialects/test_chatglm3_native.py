from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm3_native import ChatGLM3NativeDialect
from gateway.errors import UpstreamGarbled
from gateway.formats.events import Delta
from gateway.formats.native import NativeRequest
from gateway.formats.openai import chat_of_pairs, read_chat


def ask(*messages: tuple[str, str], **profile: Any) -> Outgoing:
    chat = [{"role": role, "content": content} for role, content in messages or [("user", "hi")]]
    return ChatGLM3NativeDialect().ask(
        read_chat(json.dumps({"messages": chat}).encode()), Profile(model="m", **profile), stream=True
    )


def test_it_is_asked_and_probed_as_the_first_api() -> None:
    dialect = ChatGLM3NativeDialect()
    assert (dialect.name, dialect.context, dialect.probe) == (
        "chatglm3-native",
        8192,
        "/openapi.json",
    )
    assert not dialect.pairs
    outgoing = ask()
    assert (outgoing.path, outgoing.streams, outgoing.abandon) == ("/", False, "drain")


def test_history_is_objects_with_role_and_content_and_never_a_pair() -> None:
    sent = json.loads(ask(("user", "q"), ("assistant", "a"), ("user", "r")).body)
    assert sent["history"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert json.loads(ask().body)["history"] == []


def test_native_clients_pairs_become_roles() -> None:
    chat = chat_of_pairs(NativeRequest("r", (("q", "a"), ("", "b"))), "m", empty_halves=False)
    sent = json.loads(ChatGLM3NativeDialect().ask(chat, Profile(model="m"), stream=False).body)
    assert [(one["role"], one["content"]) for one in sent["history"]] == [
        ("user", "q"),
        ("assistant", "a"),
        ("assistant", "b"),
    ]
    assert sent["prompt"] == "r"


@pytest.mark.parametrize("response", [{}, {"name": "x"}, {"name": "f", "parameters": {}}, [], 7, None])
def test_response_of_any_other_form_is_garbled(response: Any) -> None:
    with pytest.raises(UpstreamGarbled):
        ChatGLM3NativeDialect().answer(ask(), json.dumps({"response": response}).encode())


def test_name_and_content_are_one_text() -> None:
    body = json.dumps({"response": {"name": "Steps:", "content": "1. a"}}).encode()
    assert ChatGLM3NativeDialect().answer(ask(), body)[0] == Delta("Steps:\n1. a")


def test_only_pairs_raise_the_doubt_whether_the_server_is_one_of_these() -> None:
    talk = [("user", "q"), ("assistant", "a"), ("user", "r")]
    body = json.dumps({"messages": [{"role": role, "content": text} for role, text in talk]}).encode()
    doubts = {
        name: dialect.ask(read_chat(body), Profile(model="m"), stream=False).doubt
        for name, dialect in DIALECTS.items()
    }
    assert {name for name, doubt in doubts.items() if doubt} == {"chatglm", "chatglm2"}
    first = read_chat(b'{"messages":[{"role":"user","content":"q"}]}')
    assert DIALECTS["chatglm"].ask(first, Profile("m"), stream=False).doubt == ""
