"""What a stream is told that has no content yet: its place in the queue, or that a card works on it.

As a comment, which every client skips; or as an event of the type `queue`, for programs that show it. Most
SDKs take the data of every event for a chunk, whatever its type: theirs looks like one without choices.
"""

from __future__ import annotations

from typing import TypeAlias

from gateway.wire import jsontext, sse

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
