"""The abilities that a request needs, on each kind of backend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.abilities import registry
from gateway.abilities.base import Ability
from gateway.dialects import DIALECTS
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.formats import openai
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.formats.openai import ChatRequest

OPENAI, NATIVE = DIALECTS["openai"], DIALECTS["chatglm2"]
PROFILE = Profile("m")
USAGE = Usage(1, 1, "backend")


def chat(**body: Any) -> ChatRequest:
    return openai.read_chat(json.dumps({"messages": [{"role": "user", "content": "hi"}], **body}).encode())


def outgoing(request: ChatRequest, dialect: Dialect) -> Outgoing:
    return dialect.ask(request, PROFILE, stream=request.stream)


class Whole(Ability):
    """Asks another model."""

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        return True

    @classmethod
    def prepare(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> ChatRequest:
        return request.of("prepared")

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Ability:
        return cls()

    def feed(self, event: Event) -> list[Event]:
        return [event]


@pytest.mark.parametrize(
    ("dialect", "body", "last", "needed"),
    [
        pytest.param(OPENAI, {}, USAGE, False, id="counted-by-the-backend"),
        pytest.param(NATIVE, {}, Finish("stop"), True, id="to-be-counted"),
        pytest.param(OPENAI, {"stop": "x"}, USAGE, False, id="stop-known-to-the-backend"),
        pytest.param(NATIVE, {"stop": "x"}, USAGE, True, id="stop-unknown-to-the-backend"),
        pytest.param(NATIVE, {"stop": []}, USAGE, False, id="no-stop-sequence"),
        pytest.param(NATIVE, {"stream": True}, USAGE, True, id="whole-answer-for-a-stream"),
        pytest.param(OPENAI, {"stream": True}, Delta("a"), True, id="stream-to-be-counted"),
    ],
)
def test_only_what_an_answer_lacks_is_put_in_a_pipeline(
    dialect: Dialect, body: dict[str, Any], last: Event, needed: bool
) -> None:
    request = chat(**body)
    _, wanted = registry.prepared(request, dialect, PROFILE)
    found = registry.pipeline(request, dialect, outgoing(request, dialect), wanted, last)
    assert (found is not None) is needed


def test_a_request_that_needs_no_ability_is_left_as_it_is() -> None:
    request = chat(stream=True)
    assert registry.prepared(request, OPENAI, PROFILE) == (request, ())
    assert request.accepts == {"openai-chat"}


def test_a_wanted_ability_prepares_the_request_and_ends_passing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "ABILITIES", (Whole,))
    request, wanted = registry.prepared(chat(stream=True), OPENAI, PROFILE)
    assert (request.model, request.accepts) == ("prepared", frozenset())
    assert wanted == (Whole,)
