"""Names the members of a request that nobody here reads: a dialect that does not send them on reports them.

The names are a client's. They are bounded in number and length, and safe as the value of a header.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.wire.bounds import MAX_TOLD, MAX_TOLD_NAME

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "function_call"})
_TEXT = frozenset({"type", "text"})
_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters"})
_CALL = frozenset({"id", "type", "function", "index"})
NATIVE = frozenset({"prompt", "history", "max_length", "temperature", "top_p"})
"""The members of a native request that are read."""


def of_chat(body: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """The unread members of a chat: at its top, whatever they say, and inside of messages and tools.

    Of those inside, what says nothing (null, false, empty) is left out: answers hold such, and come back.
    """
    return _told(_members(body, known))


def of_native(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The unread members of a native request."""
    return _told(name for name, value in body.items() if name not in NATIVE and value is not None)


def _told(names: Iterator[str]) -> tuple[str, ...]:
    told: dict[str, None] = {}
    for name in names:
        told[_UNSAFE.sub("_", name)[:MAX_TOLD_NAME] or "_"] = None
        if len(told) == MAX_TOLD:
            break
    return tuple(told)


def _members(body: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    yield from (name for name in body if name not in known)
    for message in _objects(body.get("messages")):
        yield from _others("messages", message, _MESSAGE)
        for part in _objects(message.get("content")):
            if part.get("type") == "text":
                yield from _others("messages.content", part, _TEXT)
        for call in _objects(message.get("tool_calls")):
            yield from _others("messages.tool_calls", call, _CALL)
    for tool in _objects(body.get("tools")):
        yield from _others("tools", tool, _TOOL)
        function = tool.get("function")
        if isinstance(function, dict):
            yield from _others("tools.function", function, _FUNCTION)
    for function in _objects(body.get("functions")):
        yield from _others("functions", function, _FUNCTION)


def _others(where: str, value: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    return (f"{where}.{name}" for name, inner in value.items() if inner and name not in known)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
