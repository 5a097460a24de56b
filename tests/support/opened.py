"""Bytes of an answer that passed, as the events that they stand for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gateway.formats.events import Delta, Event, Finish, Passed, ToolPiece

_READ = ("role", "content", "tool_calls", "function_call")


def opened(events: Iterable[Event]) -> list[Event]:
    """The same events, with the pieces and finishes that are in bytes instead of the bytes."""
    return [out for event in events for out in (_read(event.data) if isinstance(event, Passed) else [event])]


def _read(data: bytes) -> list[Event]:
    if not data.startswith(b"data:"):
        return _said(json.loads(data))
    frames = [frame for frame in data.split(b"\n\n") if frame]
    return [out for frame in frames for out in _said(json.loads(frame.removeprefix(b"data:")))]


def _said(answer: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    for choice in answer["choices"]:
        index, said = choice["index"], choice.get("delta") or choice.get("message") or {}
        legacy = said.get("function_call")
        calls = said.get("tool_calls") or ([{"function": legacy}] if legacy else [])
        tools = tuple(_piece(call, place) for place, call in enumerate(calls))
        extras = {name: value for name, value in said.items() if name not in _READ and value is not None}
        delta = Delta(said.get("content") or "", tools, index, extras, choice.get("logprobs"))
        if not delta.empty:
            events.append(delta)
        if reason := choice["finish_reason"]:
            events.append(Finish("tool_calls" if reason == "function_call" else reason, index))
    return events


def _piece(call: dict[str, Any], place: int) -> ToolPiece:
    function = call.get("function") or {}
    arguments, name = function.get("arguments") or "", function.get("name")
    return ToolPiece(call.get("index", place), arguments, call.get("id"), name)
