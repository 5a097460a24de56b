"""What waiting streams are told, as a comment and as an event."""

import json

import pytest

from gateway.formats import waiting
from gateway.formats.sse import SseEvent, SseParser


@pytest.mark.parametrize(
    ("place", "text"),
    [
        pytest.param((3, 12.2), b": queued position=3 wait=12s\n\n", id="queued"),
        pytest.param((1, 0.0), b": queued position=1 wait=1s\n\n", id="nobody-is-told-zero-seconds"),
        pytest.param(None, b": generating\n\n", id="a-card-works"),
    ],
)
def test_a_comment_tells_the_place_and_the_wait(place: waiting.Place, text: bytes) -> None:
    assert waiting.comment(place) == text


@pytest.mark.parametrize(
    ("place", "told"),
    [
        pytest.param((3, 12.26), {"state": "queued", "position": 3, "wait": 12.3}, id="queued"),
        pytest.param(None, {"state": "generating", "position": 0, "wait": 0.0}, id="a-card-works"),
    ],
)
def test_an_event_tells_the_same_to_a_program(place: waiting.Place, told: dict[str, object]) -> None:
    (event,) = SseParser().feed(waiting.event(place))
    assert event == SseEvent(event.data, "queue")
    assert json.loads(event.data) == {"object": "queue", "choices": [], **told}


def test_a_chunk_adds_nothing_to_the_answer() -> None:
    data = json.loads(waiting.chunk("chatcmpl-1", 5, "m").removeprefix(b"data: "))
    assert data == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
    }
