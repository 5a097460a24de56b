"""A chat request is what the path of a request needs."""

from __future__ import annotations

import pytest

from gateway.formats import openai
from gateway.formats.operation import OperationRequest

CHAT = b'{"model":"m","n":2,"user":"u","messages":[%b]}'
SYSTEM, USER, REPLY = (b'{"role":"%b","content":"x"}' % role for role in (b"system", b"user", b"assistant"))


def asked(*messages: bytes) -> OperationRequest:
    return openai.read_chat(CHAT % b",".join(messages))


def test_a_chat_is_a_request_of_an_operation() -> None:
    request = asked(USER)
    assert (request.model, request.n, request.stream, request.user) == ("m", 2, False, "u")
    assert (request.of("b").model, request.single().n) == ("b", 1)


@pytest.mark.parametrize(
    ("messages", "opening"), [((SYSTEM, USER, REPLY, USER), 2), ((USER,), 1), ((SYSTEM, REPLY), 2)]
)
def test_an_opening_ends_with_the_first_question(messages: tuple[bytes, ...], opening: int) -> None:
    request = asked(*messages)
    assert len(list(request.turns(opening=True))) == opening
    assert len(list(request.turns(opening=False))) == len(messages)
    assert request.has_opening is (USER in messages)
