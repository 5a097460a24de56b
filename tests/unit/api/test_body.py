"""Reading bodies: what is refused by its headers, and what while it comes."""

from __future__ import annotations

import pytest
from starlette.types import Message

from gateway.api.body import read_body, require_identity, require_json
from gateway.errors import BodyTooLarge, ClientGone, UnsupportedMediaType


class Client:
    """Sends these messages, and counts how many were asked for."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.read = 0

    async def receive(self) -> Message:
        self.read += 1
        return self.messages.pop(0)


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


LEFT: Message = {"type": "http.disconnect"}


async def test_a_body_is_read_to_its_end() -> None:
    client = Client(piece(b"one "), piece(b""), piece(b"two", more=False))
    assert await read_body({}, client.receive, 100) == b"one two"


async def test_a_large_body_is_put_together_in_order() -> None:
    pieces = [bytes([number]) * 65_536 for number in range(40)]
    client = Client(*map(piece, pieces[:-1]), piece(pieces[-1], more=False))
    assert await read_body({}, client.receive, 4_000_000) == b"".join(pieces)


async def test_a_message_without_a_body_is_an_empty_one() -> None:
    client = Client({"type": "http.request"})
    assert await read_body({}, client.receive, 100) == b""


async def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    client = Client(piece(b"x", more=False))
    with pytest.raises(BodyTooLarge, match="100 bytes"):
        await read_body({b"content-length": b"101"}, client.receive, 100)
    assert client.read == 0


@pytest.mark.parametrize("declared", [None, b"5", b"oops", b"-1"])
async def test_what_comes_is_counted_whatever_was_declared(declared: bytes | None) -> None:
    client = Client(*[piece(b"x" * 40)] * 10)
    with pytest.raises(BodyTooLarge):
        await read_body({b"content-length": declared} if declared else {}, client.receive, 100)
    assert client.read == 3


@pytest.mark.parametrize("size", [99, 100])
async def test_a_body_up_to_the_limit_is_read(size: int) -> None:
    headers = {b"content-length": str(size).encode()}
    body = await read_body(headers, Client(piece(b"x" * size, more=False)).receive, 100)
    assert len(body) == size


@pytest.mark.parametrize("before", [[], [piece(b"half")]])
async def test_a_client_that_leaves_meanwhile_is_gone(before: list[Message]) -> None:
    with pytest.raises(ClientGone):
        await read_body({}, Client(*before, LEFT).receive, 100)


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b"application/json;charset=utf-8",
        b'application/json ; charset="UTF-8" ; x=y',
        b"APPLICATION/JSON",
        b"application/problem+json",
        b"",
    ],
)
def test_json_is_taken(kind: bytes) -> None:
    require_json({b"content-type": kind})
    require_json({})


@pytest.mark.parametrize(
    "kind",
    [
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"json",
        b"\xff",
    ],
)
def test_another_type_is_refused(kind: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        require_json({b"content-type": kind})


@pytest.mark.parametrize("charset", [b"gbk", b"utf-16", b"latin-1", b"", b"'utf-7'"])
def test_another_charset_is_refused(charset: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="UTF-8"):
        require_json({b"content-type": b"application/json; charset=" + charset})


@pytest.mark.parametrize("encoding", [b"identity", b" Identity ", b""])
def test_a_plain_body_is_read(encoding: bytes) -> None:
    require_identity({b"content-encoding": encoding})
    require_identity({})


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"GZIP", b"identity, gzip", b"\xff"])
def test_a_compressed_body_is_refused(encoding: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="Compressed"):
        require_identity({b"content-encoding": encoding})
