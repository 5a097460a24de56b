"""Chunks of tool calls, and the text of a streamed answer, for the tests of the chat door."""

from __future__ import annotations

import json
from typing import Any

from tests.support.asgi import Call


def tool_chunk(name: str | None = None, arguments: str = "", **more: Any) -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    delta = {"tool_calls": [{"index": 0, "function": function, **more}]}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def said(call: Call, choice: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [one for event in call.events if event != "[DONE]" for one in event["choices"]]
    return "".join(one["delta"].get("content") or "" for one in choices if one["index"] == choice)
