from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Profile
from gateway.dialects.shared.losses import NAMES, lost
from gateway.errors import UnsupportedParameter
from gateway.formats.native import read_request
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat

PLAIN = Profile("m")
NOTHING: frozenset[str] = frozenset()


def read(**body: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "q"}], **body}).encode())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0.1),
        ("presence_penalty", -1),
        ("repetition_penalty", 1.1),
        ("logit_bias", {"1": 5}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("parallel_tool_calls", False),
        ("response_format", {"type": "json_object"}),
        ("seed", 0),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("reasoning_effort", "high"),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("temperature", 0),
        ("top_p", 1),
        ("max_tokens", 1),
        ("max_completion_tokens", 1),
    ],
)
def test_a_parameter_is_lost_unless_it_is_honoured(name: str, value: Any) -> None:
    request = read(**{name: value})
    assert lost(request, PLAIN, NOTHING) == (name,)
    assert lost(request, PLAIN, frozenset({name})) == ()
    assert name in NAMES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("repetition_penalty", 1),
        ("logit_bias", {}),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("parallel_tool_calls", True),
        ("response_format", {"type": "text"}),
        ("modalities", ["text"]),
        ("seed", None),
        ("user", ""),
    ],
)
def test_what_asks_for_nothing_is_no_loss(name: str, value: Any) -> None:
    assert lost(read(**{name: value}), Profile("m", strict=True), NOTHING) == ()


def test_a_dialects_own_losses_come_last_and_once() -> None:
    assert lost(read(seed=1), PLAIN, NOTHING, ["tools", "seed", "tools"]) == ("seed", "tools")


def test_a_strict_model_refuses_the_first_loss_by_name() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        lost(read(seed=1, logprobs=True), Profile("m", strict=True), NOTHING)
    assert caught.value.param == "logprobs"
    assert "logprobs" in caught.value.message


def test_a_strict_model_refuses_a_dialects_own_loss() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        lost(read(), Profile("m", strict=True), NOTHING, ["tool_choice"])
    assert caught.value.param == "tool_choice"


def test_tools_can_be_named_as_lost() -> None:
    assert {"tools", "functions", "tool_choice", "function_call"} <= NAMES


UNKNOWN: Any = {
    "guided_json": {"a": 1},
    "chat_template_kwargs": {"enable_thinking": False},
    "temprature": 0.5,
    "metadata": {},
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "q", "cache_control": {"type": "x"}}],
            "mood": "good",
            "name": "ann",
        },
        {
            "role": "assistant",
            "content": "a",
            "refusal": None,
            "annotations": [],
            "reasoning_content": "because",
        },
        {"role": "user", "content": "q"},
    ],
}
TOLD = (
    *("guided_json", "chat_template_kwargs", "temprature", "metadata"),
    *("messages.mood", "messages.name", "messages.content.cache_control", "messages.reasoning_content"),
)


def test_members_that_nobody_knows_are_named_behind_the_known() -> None:
    assert lost(read(**UNKNOWN, seed=1), PLAIN, NOTHING) == ("seed", *TOLD)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "openai"])
def test_on_every_dialect_what_is_not_sent_on_is_named(name: str) -> None:
    outgoing = DIALECTS[name].ask(read(**UNKNOWN), PLAIN, stream=False)
    assert set(TOLD) <= set(outgoing.ignored)
    assert not any(word in outgoing.body for word in (b"guided_json", b"temprature", b"mood", b"ann"))


def test_openai_servers_get_all_but_what_would_steer_them() -> None:
    outgoing = DIALECTS["openai"].ask(
        read(**UNKNOWN, api_base="http://x", extra_body={}), PLAIN, stream=False
    )
    assert outgoing.ignored == ("api_base", "extra_body")
    assert b"temprature" in outgoing.body


@pytest.mark.parametrize("name", DIALECTS)
def test_of_a_native_request_every_unread_member_is_named(name: str) -> None:
    native = read_request(b'{"prompt":"x","history":[],"do_sample":false,"stream":true}')
    request = chat_of_pairs(native, "m", empty_halves=True)
    for one in (request, request.single(), request.of("n")):
        assert DIALECTS[name].ask(one, PLAIN, stream=False).ignored == ("do_sample", "stream")


def test_a_strict_model_refuses_what_nobody_knows_unless_it_changes_no_answer() -> None:
    strict = Profile("m", strict=True)
    told = ("metadata", "store", "user")
    assert lost(read(metadata={"a": "b"}, store=True, user="ann"), strict, NOTHING) == told
    assert lost(read(user="ann"), strict, NOTHING) == ("user",)
    with pytest.raises(UnsupportedParameter) as caught:
        lost(read(metadata={}, temprature=1), strict, NOTHING)
    assert caught.value.param == "temprature"
