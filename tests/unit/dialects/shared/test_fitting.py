from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Profile
from gateway.dialects.shared import fitting
from gateway.dialects.shared.fitting import Sent, exchanges, without_before
from gateway.dialects.shared.folding import FoldedConversation
from gateway.errors import ContextExceeded
from gateway.formats.openai import ChatRequest, read_chat

SYSTEM = {"role": "system", "content": "S"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def request(*messages: dict[str, Any]) -> ChatRequest:
    return read_chat(json.dumps({"messages": messages}).encode())


def characters(folded: FoldedConversation) -> int:
    return sum(len(half) for pair in folded.history for half in pair) + len(folded.prompt.text)


def test_a_conversation_that_fits_is_folded_and_counted() -> None:
    chat = request(SYSTEM, user("a"), assistant("b"), user("c"))
    folded, count = fitting.fold_to_fit(chat, Profile(model="m"), 100, characters)
    assert folded.history == [("S\n\na", "b")]
    assert count == 6


def test_one_that_does_not_fit_is_refused_or_loses_its_oldest_pairs_but_never_the_system_text() -> None:
    chat = request(SYSTEM, user("a" * 50), assistant("b" * 50), user("c"), assistant("d"), user("e"))
    with pytest.raises(ContextExceeded):
        fitting.fold_to_fit(chat, Profile(model="m"), 100, characters)
    folded, count = fitting.fold_to_fit(chat, Profile(model="m", trim=True), 100, characters)
    assert folded.history == [("S\n\nc", "d")]
    assert count == 6


def test_a_question_that_is_too_long_alone_is_refused_even_when_trimming() -> None:
    chat = request(user("a"), assistant("b"), user("c" * 100))
    with pytest.raises(ContextExceeded):
        fitting.fold_to_fit(chat, Profile(model="m", trim=True), 100, characters)


def test_the_manners_of_folding_are_those_of_the_profile() -> None:
    chat = request(SYSTEM, assistant("x"), user("a"))
    profile = Profile(model="m", system="pair", leading_assistant="fold")
    folded, _ = fitting.fold_to_fit(chat, profile, 100, characters)
    assert fitting.as_messages(folded) == [user("S"), assistant("好的。"), user("x\n\na")]


S, U, A = SYSTEM, user("u"), assistant("a")
F = {"role": "function", "content": "r"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([U, A, U], [U], id="a-pair"),
        pytest.param([S, U, A, S, U], [S, S, U], id="system-stays"),
        pytest.param([A, U, A, U], [U, A, U], id="leading-answer-alone"),
        pytest.param([U, A, F, A, U, A, U], [U, A, U], id="a-call-with-its-result"),
        pytest.param([U, U, A, U], [U], id="a-run-of-questions"),
        pytest.param([U, A, U, U], [U, U], id="the-last-run-stays-whole"),
        pytest.param([U, A, U, A, F], [U, A, F], id="the-last-call-stays"),
        pytest.param([U, A, U, S, U], [U, S, U], id="system-inside-the-last-run"),
    ],
)
def test_the_oldest_question_goes_with_its_answers(messages: list[Sent], expected: list[Sent]) -> None:
    assert without_before(messages, exchanges(messages)[0]) == expected


@pytest.mark.parametrize("messages", [[U], [S, U], [S], [U, A, F], [U, U], [A, F], []])
def test_the_last_question_never_goes(messages: list[Sent]) -> None:
    assert exchanges(messages) == []


def test_every_exchange_but_the_first_is_a_place_to_begin() -> None:
    assert exchanges([S, A, U, A, F, A, S, U, U, A, U]) == [2, 7, 10]


def length(messages: list[Sent]) -> int:
    return sum(len(message["content"]) for message in messages)


def test_messages_are_trimmed_only_as_far_as_needed() -> None:
    messages = [user("a" * 50), assistant("b" * 50), user("c"), assistant("d"), user("e")]
    kept, count = fitting.messages_to_fit(messages, Profile(model="m", trim=True), 100, length)
    assert kept == messages[2:]
    assert count == 3


def test_messages_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ContextExceeded):
        fitting.messages_to_fit([user("a" * 100)], Profile(model="m", trim=True), 100, length)
