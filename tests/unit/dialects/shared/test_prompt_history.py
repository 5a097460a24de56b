from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Outgoing, Profile
from gateway.dialects.chatglm2 import ChatGLM2Dialect
from gateway.dialects.shared.prompt_history import never_greedy, refuse_tools
from gateway.errors import (
    ContextExceeded,
    UnsupportedParameter,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamGarbled,
)
from gateway.formats.events import Delta, Finish, Usage
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat

PLAIN = Profile("m")
TOOL = {"type": "function", "function": {"name": "f"}}


def read(*texts: str, **body: Any) -> ChatRequest:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts or ("q",))]
    return read_chat(json.dumps({"messages": messages, **body}).encode())


def sent(outgoing: Outgoing) -> dict[str, Any]:
    body = json.loads(outgoing.body)
    assert isinstance(body, dict)
    return body


def outgoing(*, most: int | None = 100, prompt_tokens: int = 10, total: int | None = 2048) -> Outgoing:
    return Outgoing("/", b"{}", streams=False, prompt=prompt_tokens, budget=most, total=total)


@pytest.mark.parametrize(
    ("body", "profile", "sampling"),
    [
        pytest.param({}, PLAIN, {}, id="nothing-asked"),
        pytest.param({"temperature": 0.5}, PLAIN, {"temperature": 0.5}, id="temperature"),
        pytest.param({"top_p": 0.5}, PLAIN, {"top_p": 0.5}, id="top_p"),
        pytest.param({"temperature": 0}, PLAIN, {"temperature": 0.1, "top_p": 0.01}, id="greedy"),
        pytest.param({"temperature": 0.0099}, PLAIN, {"temperature": 0.1, "top_p": 0.01}, id="nearly-greedy"),
        pytest.param(
            {"temperature": 0, "top_p": 1}, PLAIN, {"temperature": 0.1, "top_p": 0.01}, id="greedy-wins"
        ),
        pytest.param({"top_p": 0}, PLAIN, {"top_p": 0.01}, id="top_p-0"),
        pytest.param({"temperature": 2}, Profile("m", max_temperature=1), {"temperature": 1}, id="clamped"),
        pytest.param(
            {"temperature": 0.5}, Profile("m", max_temperature=1), {"temperature": 0.5}, id="not-clamped"
        ),
    ],
)
def test_zero_is_never_sent_since_the_server_takes_it_for_not_given(
    body: dict[str, Any], profile: Profile, sampling: dict[str, float]
) -> None:
    assert never_greedy(read(**body), profile) == sampling


@pytest.mark.parametrize(
    ("body", "param"),
    [({"tools": [TOOL]}, "tools"), ({"functions": [TOOL["function"]]}, "functions")],
)
def test_tools_are_refused_or_reported(body: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        refuse_tools(read(**body), PLAIN)
    assert caught.value.param == param
    assert refuse_tools(read(**body), Profile("m", tools="ignore")) == (param,)


def test_tools_that_must_not_be_used_are_no_loss() -> None:
    assert refuse_tools(read(tools=[TOOL], tool_choice="none"), PLAIN) == ()


def test_the_budget_and_the_total_go_with_the_request() -> None:
    out = ChatGLM2Dialect().ask(read(max_tokens=7), PLAIN, stream=True)
    assert (out.prompt_tokens, out.budget, out.total) == (17, 7, 26)
    assert sent(out)["max_length"] == 26
    assert not out.streams


def test_a_native_clients_total_is_sent_as_it_came() -> None:
    request = chat_of_pairs(NativeRequest("q", (("a", "b"),), max_length=200), "m", empty_halves=True)
    out = ChatGLM2Dialect().ask(request, PLAIN, stream=False)
    assert sent(out) == {"prompt": "q", "history": [["a", "b"]], "max_length": 200}
    assert out.budget == 200 - out.prompt_tokens


def test_trimming_stops_as_soon_as_it_fits() -> None:
    texts = ["a" * 390, "b", "c" * 390, "d", "e"]
    profile = Profile("m", context=200, trim=True)
    assert sent(ChatGLM2Dialect().ask(read(*texts), profile, stream=False))["history"] == [["c" * 390, "d"]]
    with pytest.raises(ContextExceeded):
        ChatGLM2Dialect().ask(read("a" * 3900), profile, stream=False)


def answer(text: str, out: Outgoing) -> list[Any]:
    return list(ChatGLM2Dialect().answer(out, json.dumps({"response": text}).encode()))


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        pytest.param(outgoing(), "stop", id="room-left"),
        pytest.param(outgoing(most=7), "length", id="budget-reached"),
        pytest.param(outgoing(most=8), "stop", id="budget-not-reached"),
        pytest.param(outgoing(prompt_tokens=93, total=100), "length", id="total-reached"),
    ],
)
def test_the_end_of_an_answer_is_told_from_its_length(out: Outgoing, reason: str) -> None:
    events = [Delta("好" * 10), Finish(reason), Usage(out.prompt_tokens, 7, "estimate")]  # type: ignore[arg-type]  # a table's text
    assert answer("好" * 10, out) == events


@pytest.mark.parametrize("total", [2048, None])
def test_an_empty_answer_is_an_error(total: int | None) -> None:
    with pytest.raises(UpstreamEmpty):
        answer("", outgoing(total=total))


def test_an_empty_answer_for_want_of_room_is_a_length() -> None:
    assert answer("", outgoing(prompt_tokens=90, total=100)) == [Finish("length")]
    with pytest.raises(UpstreamEmpty):
        answer("", outgoing(prompt_tokens=89, total=100))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"{}", id="no-response"),
        pytest.param(b'{"response":null}', id="null"),
        pytest.param(b'{"response":["a"]}', id="not-a-text"),
        pytest.param(b'{"response":"error","status":500}', id="a-failure-of-status-200"),
    ],
)
def test_what_is_no_answer_is_garbled_and_not_repeated(body: bytes) -> None:
    with pytest.raises(UpstreamGarbled) as caught:
        ChatGLM2Dialect().answer(outgoing(), body)
    assert "error" not in caught.value.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"prompt is too long","code":400}}', ContextExceeded),
        (b'{"code":1302,"msg":"busy","success":false}', UpstreamBusy),
        (b'{"detail":"oops"}', UpstreamError),
    ],
)
def test_an_error_in_the_place_of_an_answer_is_read_like_any_other(
    body: bytes, kind: type[Exception]
) -> None:
    outgoing = ChatGLM2Dialect().ask(
        read_chat(b'{"messages":[{"role":"user","content":"q"}]}'), PLAIN, stream=False
    )
    with pytest.raises(kind):
        ChatGLM2Dialect().answer(outgoing, body)
