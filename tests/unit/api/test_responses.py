"""Answers as messages: whole ones, errors with their headers, and event streams."""

from __future__ import annotations

import json

import pytest
from starlette.types import Message

from gateway.api import responses
from gateway.errors import (
    TABLE,
    BadRequest,
    GatewayError,
    QueueFull,
    Unauthorized,
    UpstreamBusy,
    UpstreamTruncated,
)


class Sent(list[Message]):
    """Everything that was sent."""

    async def send(self, message: Message) -> None:
        self.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self[0]["headers"])


async def test_a_whole_answer_tells_its_length() -> None:
    sent = Sent()
    await responses.send_whole(sent.send, 201, "你好".encode(), [(b"x", b"y")])
    assert sent[0]["status"] == 201
    assert sent.headers == {b"x": b"y", b"content-length": b"6"}
    assert sent[1] == {"type": "http.response.body", "body": "你好".encode()}


async def test_an_event_stream_has_its_head_and_ends_with_its_last_event() -> None:
    sent = Sent()
    await responses.start_stream(sent.send, [(b"x-gateway-backend", b"a")])
    await responses.end_stream(sent.send, b"data: [DONE]\n\n")
    assert sent[0]["status"] == 200
    assert sent.headers == {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-cache",
        b"x-accel-buffering": b"no",
        b"x-gateway-backend": b"a",
    }
    assert [(message["body"], message["more_body"]) for message in sent[1:]] == [(b"data: [DONE]\n\n", False)]


async def test_an_error_has_the_status_of_its_row() -> None:
    sent, error = Sent(), QueueFull("full", retry_after=2.2)
    await responses.send_error(sent.send, error, responses.error_body(error), [(b"x-gateway-backend", b"a")])
    assert sent[0]["status"] == 503
    assert sent.headers[b"content-type"] == b"application/json"
    assert sent.headers[b"x-gateway-backend"] == b"a"
    assert json.loads(sent[1]["body"])["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        pytest.param(BadRequest("x"), {}, id="nothing-to-add"),
        pytest.param(
            QueueFull("x", retry_after=2.2),
            {b"retry-after": b"3", b"retry-after-ms": b"2200"},
            id="rounded-up",
        ),
        pytest.param(
            UpstreamBusy("x", retry_after=0.0),
            {b"retry-after": b"1", b"retry-after-ms": b"0"},
            id="at-least-1",
        ),
        pytest.param(UpstreamBusy("x"), {}, id="not-known-when"),
        pytest.param(UpstreamTruncated("x"), {b"x-should-retry": b"false"}, id="not-to-be-repeated"),
        pytest.param(Unauthorized("missing"), {b"www-authenticate": b"Bearer"}, id="no-key"),
    ],
)
def test_errors_tell_clients_what_to_do(error: GatewayError, headers: dict[bytes, bytes]) -> None:
    assert dict(responses.error_headers(error)) == headers


def test_an_answer_that_failed_on_the_way_is_never_to_be_repeated_by_the_sdk() -> None:
    told = {row.status for row in TABLE.values() if row.repeat is False}
    assert told == {501, 502, 504}
