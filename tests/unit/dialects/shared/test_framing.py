"""Objects, pings and end marks in events of every form, and characters split across events."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.dialects.shared import framing
from gateway.errors import UpstreamError, UpstreamGarbled


@pytest.mark.parametrize(
    ("data", "objects"),
    [
        (b'{"a":1}', [{"a": 1}]),
        (b'{"a":1}{"b":2}', [{"a": 1}, {"b": 2}]),
        (b'{"a":1}\n {"b":2}\n', [{"a": 1}, {"b": 2}]),
        (b'[{"a":1},{"b":2}]', [{"a": 1}, {"b": 2}]),
        (b'{"a":1}\n[DONE]', [{"a": 1}]),
        (b"null", []),
        (b"[]", []),
        (b'[null,{"a":1}]', [{"a": 1}]),
    ],
)
def test_objects_stand_alone_side_by_side_or_in_a_list(data: bytes, objects: list[Any]) -> None:
    assert framing.objects_in(data) == objects


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b'{"a":1}x',
        b'{"a":1}{"b"',
        b"[1]",
        b"7",
        b'{"a":1}7',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}" * (framing.MOST_OBJECTS + 1),
    ],
)
def test_anything_else_is_garbled(data: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        framing.objects_in(data)


def test_an_error_beside_other_objects_is_an_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        framing.objects_in(b'{"a":1}{"error":{"message":"boom","code":500}}')
    assert type(caught.value) is UpstreamError


@pytest.mark.parametrize(
    ("chunk", "nothing"),
    [
        ({}, True),
        ({"type": "ping"}, True),
        ({"event": "HEARTBEAT"}, True),
        ({"object": "keep-alive"}, True),
        ({"object": "chat.completion.chunk", "id": "x", "model": "m"}, True),
        ({"object": "chat.completion.chunk", "detail": "x"}, False),
        ({"type": 1}, False),
        ({"id": "x"}, False),
        ({"result": "x"}, False),
    ],
)
def test_pings_are_told_from_what_may_be_a_failure(chunk: dict[str, Any], nothing: bool) -> None:
    assert framing.says_nothing(chunk) is nothing


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"[DONE]", True),
        (b'"[done]"', True),
        (b"[ Done ]", True),
        (b"DONE", True),
        (b"\xff", False),
        (b"[DONE", False),
        (b"{}", False),
        (b"[DONE] and more of it", False),
    ],
)
def test_the_end_mark_is_known_in_other_letters(data: bytes, end: bool) -> None:
    assert framing.is_end(data) is end


@pytest.mark.parametrize("at", range(1, len("a你b😀".encode())))
def test_a_character_cut_in_two_events_is_put_together(at: int) -> None:
    text = "a你b😀".encode()
    characters = framing.Characters()
    events = [characters.whole(b'{"x":"%b"}' % part) for part in (text[:at], text[at:])]
    assert b"".join(event[6:-2] for event in events) == text


def test_bytes_of_no_character_become_the_sign_for_them() -> None:
    characters = framing.Characters()
    assert characters.whole(b'"a\xffb\x80"').decode() == '"a\ufffdb\ufffd"'
    assert characters.whole(b'"a\xe4\xbd"') == b'"a"'
    assert characters.whole(b'"b"') == b'"b"'
    assert characters.whole(b'"\xa0"').decode() == '"\ufffd"'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":"' + b"\xff" * 1_000_000 + b'"}', id="no-text"),
        pytest.param(b'{"a":"' + "你".encode("gbk") * 500_000 + b'"}', id="another-encoding"),
        pytest.param(b'{"a":"' + b'\xe4\xbd"' * 300_000, id="half-characters"),
    ],
)
def test_an_event_of_broken_characters_is_read_in_one_pass(data: bytes) -> None:
    began = time.process_time()
    framing.Characters().whole(data).decode()
    assert time.process_time() - began < 5  # takes 0.05 s; quadratic time would be minutes


@pytest.mark.parametrize(
    "data", [b"[]" * 500_000, b"null " * 200_000, b"[[]," + b"null," * 200_000 + b"null]"]
)
def test_an_event_of_many_values_that_are_no_objects_is_refused(data: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        framing.objects_in(data)
