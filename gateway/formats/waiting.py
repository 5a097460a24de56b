"""What a stream is told that has no content yet: its place in the queue, or that a card works on it.

As a comment, which clients skip; as an event of the type `queue`, for programs that show it; or as a chunk
without text, for clients that take every line for one. Most SDKs take the data of every event for a chunk,
whatever its type: that of our events looks like a chunk without choices.
"""

from __future__ import annotations

from typing import TypeAlias

from gateway.formats import jsontext, sse

Place: TypeAlias = tuple[int, float] | None
"""The position (from 1) and the expected wait in seconds; None for who waits no more."""

EVENT = "queue"
"""The type of the event."""


def comment(place: Place) -> bytes:
    """Tell it so that nobody has to listen."""
    if place is None:
        return sse.comment("generating")
    position, seconds = place
    return sse.comment(f"queued position={position} wait={max(1, round(seconds))}s")


def event(place: Place) -> bytes:
    """Tell it to a program. Who waits no more has the position 0."""
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
    """Say nothing but that the stream lives, as a chunk whose delta is empty."""
    told = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
    }
    return sse.frame(jsontext.write(told))
