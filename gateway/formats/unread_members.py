"""Names the members of a request that nobody here reads: a dialect that does not send them on reports them.

The names are a client's. They are bounded in number and length, and safe as the value of a header.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.formats.limits import MAX_TOLD, MAX_TOLD_NAME

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MESSAGE = frozenset({"role", "content", "tool_calls", "tool_call_id", "function_call"})
_RESULT = _MESSAGE | {"name"}
"""The members of a tool's result, whose name says whose it is; that of a speaker is sent to no model."""
_RESULTS = ("tool", "function")
_TEXT = frozenset({"type", "text"})
_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters"})
_CALLED = frozenset({"name", "arguments"})
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
    yield from (name for name in body if name not in known or (name == "user" and body[name]))
    yield from _inside("stream_options", body.get("stream_options"), {"include_usage"})
    for message in _objects(body.get("messages")):
        yield from _of_message(message)
    for tool in _objects(body.get("tools")):
        yield from _others("tools", tool, _TOOL)
        yield from _inside("tools.function", tool.get("function"), _FUNCTION)
    for function in _objects(body.get("functions")):
        yield from _others("functions", function, _FUNCTION)
    choice = body.get("tool_choice")
    yield from _inside("tool_choice", choice, _TOOL)
    yield from _inside("tool_choice.function", _member(choice, "function"), {"name"})
    yield from _inside("function_call", body.get("function_call"), {"name"})


def _of_message(message: Mapping[str, Any]) -> Iterator[str]:
    yield from _others("messages", message, _RESULT if message.get("role") in _RESULTS else _MESSAGE)
    for part in _objects(message.get("content")):
        if part.get("type") == "text":
            yield from _others("messages.content", part, _TEXT)
    for call in _objects(message.get("tool_calls")):
        yield from _others("messages.tool_calls", call, _CALL)
        yield from _inside("messages.tool_calls.function", call.get("function"), _CALLED)
    yield from _inside("messages.function_call", message.get("function_call"), _CALLED)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _inside(where: str, value: Any, known: Collection[str]) -> Iterator[str]:
    return _others(where, value, known) if isinstance(value, dict) else iter(())


def _others(where: str, value: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    return (f"{where}.{name}" for name, inner in value.items() if inner and name not in known)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
