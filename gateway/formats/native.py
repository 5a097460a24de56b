"""ChatGLM-6B's own wire: `POST /` with prompt and history (ChatGLM-6B and ChatGLM2-6B `api.py`).

Used in both directions: the native door reads and answers it, the native dialects write and read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import BadRequest
from gateway.formats import jsontext, large, unread_members
from gateway.formats.events import Delta, Event
from gateway.formats.limits import MAX_PAIRS
from gateway.formats.writer import NO_FORMATS

Pair = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """What a native client asks. `max_length` counts prompt, history and answer, in tokens.

    None means "not given"; so does 0, as `api.py` takes it. `given` is the history just as it came,
    `unread` names the members that nobody reads; `large` ones are written in pieces.
    """

    prompt: str
    history: tuple[Pair, ...] = ()
    max_length: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    given: list[Any] = field(default_factory=list)
    unread: tuple[str, ...] = ()
    large: bool = False


def read_request(raw: bytes) -> NativeRequest:
    """Parse a native body; unknown keys are ignored, as `api.py` does, and named in `unread`.

    Raises `BadRequest` for what `api.py` would answer with a bare 500 or, worse, take wrongly:
    a prompt that is no text, history rows that are not two texts.
    """
    size = len(raw)
    body = large.read(raw).value if size > large.LARGE else jsontext.read(raw)
    if not isinstance(body, dict):
        raise jsontext.no_object()
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be a text.", param="prompt")
    return NativeRequest(
        prompt=prompt,
        history=_history(body.get("history")),
        max_length=_whole(body, "max_length"),
        temperature=_number(body, "temperature", 2.0),
        top_p=_number(body, "top_p", 1.0),
        given=body.get("history") or [],
        unread=unread_members.of_native(body),
        large=size > large.LARGE,
    )


def _history(value: Any) -> tuple[Pair, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRequest("history must be a list of [question, answer] pairs.", param="history")
    if len(value) > MAX_PAIRS:
        raise BadRequest(f"history must not have more than {MAX_PAIRS} pairs.", param="history")
    return tuple(_pair(row, f"history[{place}]") for place, row in enumerate(value))


def _pair(row: Any, name: str) -> Pair:
    if not isinstance(row, list) or len(row) != 2:
        raise BadRequest(f"{name} must be a pair [question, answer].", param=name)
    question, answer = ("" if half is None else half for half in row)
    if not (isinstance(question, str) and isinstance(answer, str)):
        raise BadRequest(f"{name} must hold two texts.", param=name)
    return question, answer


def _whole(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} must be a whole number of tokens.", param=name)
    if value < 0:
        raise BadRequest(f"{name} must not be negative.", param=name)
    return value or None


def _number(body: dict[str, Any], name: str, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{name} must be a number.", param=name)
    if not 0 <= value <= most:
        raise BadRequest(f"{name} must be between 0 and {most:g}.", param=name)
    return float(value) or None


class NativeWriter:
    """Writes one answer as `api.py` does. `date` gives the local date and time, as `api.py` writes it."""

    accepts = NO_FORMATS

    def __init__(self, request: NativeRequest, date: Callable[[], str]) -> None:
        self._request = request
        self._date = date

    def whole(self, events: Sequence[Event]) -> bytes:
        """Return the answer. Where the model has only reasoned, its reasoning is the text."""
        deltas = [event for event in events if isinstance(event, Delta)]
        text = "".join([delta.text for delta in deltas]).strip()
        text = text or "".join(map(_reasoning, deltas)).strip()
        return write_answer(self._request, text, self._date())


def _reasoning(delta: Delta) -> str:
    text = delta.extras.get("reasoning_content")
    return text if isinstance(text, str) else ""


def write_answer(request: NativeRequest, response: str, date: str) -> bytes:
    """The answer `api.py` would give; `history` is the caller's own, with this turn appended (rule T18)."""
    return jsontext.write(
        {
            "response": response,
            "history": [*request.given, [request.prompt, response]],
            "status": 200,
            "time": date,
        },
        large=request.large,
    )


def write_error(message: str, status: int) -> bytes:
    """An error as native clients can read it: JSON, never text (chatglmclient parses whatever comes)."""
    return jsontext.write({"detail": message, "status": status})
