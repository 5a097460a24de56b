"""Keep-alives for a stream that has no content yet: they tell the position in the queue.

There are three forms: a comment, which clients skip; an event of the type `queue`, for programs that show
the position; a chunk without text, for clients that take every line for a chunk. Most SDKs take the data of
every event for a chunk, whatever its type; so the data of queue events looks like a chunk without choices.
"""

from __future__ import annotations

from typing import TypeAlias

from gateway.formats import jsontext, sse

Place: TypeAlias = tuple[int, float] | None
"""The position in the queue, from 1, and the expected wait in seconds; None if the request no longer waits.
"""

EVENT = "queue"
"""The type of queue events."""


def comment(place: Place) -> bytes:
    """Return a comment, which clients skip."""
    if place is None:
        return sse.comment("generating")
    position, seconds = place
    return sse.comment(f"queued position={position} wait={max(1, round(seconds))}s")


def event(place: Place) -> bytes:
    """Return a queue event. The position is 0 if the request no longer waits."""
    position, seconds = place or (0, 0.0)
    told = {
        "object": EVENT,
        "choices": [],
        "state": "generating" if place is None else "queued",
        "position": position,
        "wait": round(seconds, 1),
    }
    return sse.frame(jsontext.write(told), EVENT)


def chunk(answer_id: str, created: int, model: str) -> bytes:
    """Return a chunk with an empty delta."""
    told = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
    }
    return sse.frame(jsontext.write(told))
