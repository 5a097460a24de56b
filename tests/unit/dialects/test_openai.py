from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.openai import OpenAIDialect
from gateway.formats.events import Delta, Usage
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat
from tests.support.opened import opened

QUESTION = {"role": "user", "content": "hi"}


def request(**members: Any) -> ChatRequest:
    return read_chat(json.dumps({"model": "gpt", "messages": [QUESTION], **members}).encode())


def ask(chat: ChatRequest, stream: bool = False, **profile: Any) -> Outgoing:
    return OpenAIDialect().ask(chat, Profile(model="served", **profile), stream=stream)


def body_of(outgoing: Outgoing) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(outgoing.body)
    return sent


def whole(choice: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", **choice}], **members}).encode()


def test_the_server_batches_and_does_stop_n_and_tools_by_itself() -> None:
    dialect = OpenAIDialect()
    assert (dialect.name, dialect.context) == ("openai", None)
    assert dialect.honours == {"stop", "n", "tools", "structured", "vision", "named_tool", "tool_choice"}
    assert dialect.probe == "/v1/models"


def test_asking_changes_nothing_in_the_request_it_shares() -> None:
    chat = request(stream=True, stream_options={"x": None}, max_tokens=80000, temperature=2, tools=[])
    before = deepcopy(chat.body)
    ask(chat, stream=True, max_output=5, max_temperature=1.0)
    assert chat.body == before


def test_the_model_name_is_the_one_the_server_expects() -> None:
    assert body_of(ask(request()))["model"] == "served"


def test_the_names_of_offered_functions_are_known_and_other_tools_pass() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]
    outgoing = ask(request(tools=tools))
    assert outgoing.tool_names == {"f"}
    assert body_of(outgoing)["tools"] == tools


def test_nothing_is_lost_on_a_server_that_takes_the_body_as_it_is() -> None:
    outgoing = ask(request(seed=1, logprobs=True, temperature=0.3), strict=True)
    assert outgoing.ignored == ()


@pytest.mark.parametrize(
    ("max_length", "profile", "expected"),
    [
        pytest.param(100, {}, 93, id="what-the-prompt-leaves"),
        pytest.param(3, {}, 1, id="at-least-one"),
        pytest.param(80000, {"context": 2048}, 2041, id="within-the-context"),
        pytest.param(80000, {"max_output": 50}, 50, id="within-the-models-own-limit"),
        pytest.param(None, {}, None, id="not-told"),
    ],
)
def test_a_native_clients_length_counts_the_prompt_in(
    max_length: int | None, profile: dict[str, Any], expected: int | None
) -> None:
    chat = chat_of_pairs(NativeRequest("hi", max_length=max_length), "m", empty_halves=False)
    assert body_of(ask(chat, **profile)).get("max_tokens") == expected


def test_logprobs_and_details_of_usage_pass() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": None,
        "cost": 3,
    }
    raw = whole({"message": {"content": "a"}, "logprobs": {"content": []}}, usage=usage)
    piece, _, counted = opened(OpenAIDialect().answer(ask(request()), raw))
    assert piece == Delta("a", logprobs={"content": []})
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": None, "cost": 3}
    assert counted == Usage(9, 2, "backend", details)


def test_logprobs_of_a_chunk_pass_even_without_text() -> None:
    decoder = OpenAIDialect().decoder(replace(ask(request(), stream=True), passes=False))
    chunk = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "logprobs": {"content": [1]}}]}
    assert decoder.feed(f"data: {json.dumps(chunk)}\n\n".encode()) == [Delta(logprobs={"content": [1]})]


def test_a_choice_without_an_index_takes_its_place_in_the_list() -> None:
    raw = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"} for text in "ab"]})
    events = opened(OpenAIDialect().answer(ask(request(n=2)), raw.encode()))
    assert [(event.choice, event.text) for event in events if isinstance(event, Delta)] == [
        (0, "a"),
        (1, "b"),
    ]


def test_model_of_metadata_is_left_alone_where_the_body_names_no_model() -> None:
    chat = read_chat(json.dumps({"messages": [QUESTION], "metadata": {"model": ""}}).encode())
    sent = body_of(ask(chat))
    assert sent["model"] == "served"
    assert sent["metadata"] == {"model": ""}


def test_client_sees_the_name_it_asked_for_or_the_models_own() -> None:
    assert ask(request()).model == "gpt"
    assert ask(read_chat(json.dumps({"messages": [QUESTION]}).encode()), name="m").model == "m"
