from __future__ import annotations

import asyncio

import pytest

from gateway.simulator.exchange import (
    ClientPresence,
    Request,
    compact,
    detail,
    json_reply,
    server_error,
    spaced,
    sse,
)
from tests.unit.simulator.helpers import turns


def test_json_reply_is_written_without_blanks_and_escapes() -> None:
    assert json_reply({"a": ["你好", None]}).body == '{"a":["你好",null]}'.encode()


@pytest.mark.parametrize(
    "content",
    [pytest.param(float("nan"), id="nan"), pytest.param("\ud83d", id="lone-surrogate")],
)
def test_json_reply_refuses_what_fastapi_cannot_write(content: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_reply(content)


def test_error_bodies_are_those_of_fastapi_and_uvicorn() -> None:
    assert detail(404, "Not Found").body == b'{"detail":"Not Found"}'
    assert (server_error().status, server_error().body) == (500, b"Internal Server Error")


@pytest.mark.parametrize(
    ("data", "event"),
    [
        pytest.param("x", b"data: x\r\n\r\n", id="one-line"),
        pytest.param(
            "a\r\nb\nc\rd", b"data: a\r\ndata: b\r\ndata: c\r\ndata: d\r\n\r\n", id="every-line-end"
        ),
        pytest.param("", b"data: \r\n\r\n", id="empty"),
        pytest.param("a\u2028b", "data: a\u2028b\r\n\r\n".encode(), id="not-the-unicode-separators"),
    ],
)
def test_event_has_a_field_for_every_line(data: str, event: bytes) -> None:
    assert sse(data) == event


def test_json_comes_in_the_spelling_of_either_pydantic() -> None:
    assert compact({"a": "你"}) == '{"a":"你"}'
    assert spaced({"a": "你"}) == '{"a": "你"}'
    assert spaced({"a": "你"}, escaped=True) == '{"a": "\\u4f60"}'


async def test_present_client_never_leaves() -> None:
    client = ClientPresence()
    waiting = asyncio.ensure_future(client.wait_gone())
    await turns()
    assert not client.gone
    assert not waiting.done()
    waiting.cancel()


def test_body_that_is_no_utf8_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="codec"):
        Request("POST", "/", {}, b'{"a": "\xff"}').json()
