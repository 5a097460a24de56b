from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Profile
from gateway.dialects.losses import NAMES, lost
from gateway.errors import UnsupportedParameter
from gateway.wire.openai import ChatRequest, read_chat

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
        ("user", "ann"),
        ("some_future_parameter", 5),
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
