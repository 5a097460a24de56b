"""Takes what clients send although OpenAI's API has it otherwise, and gives it as that API has it.

What the gateway itself gives in answers comes back in the history: calls without an id, arguments as objects.
PHP writes an empty object as `[]`. `max_tokens: -1` is llama.cpp's word for "no limit".
"""

from __future__ import annotations

import re
from typing import Any

from gateway.wire import jsontext

_LIMITS = ("max_tokens", "max_completion_tokens")
_OBJECTS = (
    "metadata",
    "logit_bias",
    "stream_options",
    "chat_template_kwargs",
    "response_format",
    "tool_choice",
)
"""Members that are objects: empty ones are as good as absent."""
_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "parameters", "input_schema")
_EMPTY_LIST = re.compile(rb"\[\s*\]")


def tidied(body: dict[str, Any], raw: bytes, outline: bytes = b"") -> tuple[dict[str, Any], bytes]:
    """The body as the API has it, and its bytes if they are still what it says, else none.

    `outline` is to be given where the bytes are not at hand: those that stand outside of long texts.
    """
    changed: dict[str, Any] = {
        name: None for name in _LIMITS if body.get(name) == -1 and type(body[name]) is int
    }
    if (messages := _messages(body.get("messages"))) is not None:
        changed["messages"] = messages
    if _EMPTY_LIST.search(outline or raw):
        changed |= _objects(body)
    if changed or None in body.values():
        body = {name: value for name, value in (body | changed).items() if value is not None}
        return body, b""
    return body, raw


def _objects(body: dict[str, Any]) -> dict[str, Any]:
    """The members that PHP has made lists of, as they are meant."""
    changed: dict[str, Any] = {name: None for name in _OBJECTS if body.get(name) == []}
    for name in ("tools", "functions"):
        if body.get(name):
            changed[name] = _schema(body[name])
    return changed


def _schema(value: Any) -> Any:
    """A schema in which empty objects are objects. No deeper than a body may be."""
    if isinstance(value, list):
        return [_schema(one) for one in value]
    if isinstance(value, dict):
        return {
            name: {} if inner == [] and name in _OF_SCHEMAS else _schema(inner)
            for name, inner in value.items()
        }
    return value


def _messages(messages: Any) -> list[Any] | None:
    """The messages with their calls as the API has them; None where all of them are."""
    if not isinstance(messages, list):
        return None
    changed = {
        place: made
        for place, message in enumerate(messages)
        if isinstance(message, dict) and (made := _message(message, place)) is not message
    }
    return [changed.get(place, message) for place, message in enumerate(messages)] if changed else None


def _message(message: dict[str, Any], place: int) -> dict[str, Any]:
    made = message
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        tidy = [_call(call, f"call_{place}_{number}") for number, call in enumerate(calls)]
        if any(one is not call for one, call in zip(tidy, calls, strict=True)):
            made = made | {"tool_calls": tidy}
    old = message.get("function_call")
    if isinstance(old, dict) and (function := _function(old)) is not old:
        made = made | {"function_call": function}
    return made


def _call(call: Any, name: str) -> Any:
    if not isinstance(call, dict):
        return call
    changed: dict[str, Any] = {}
    if "id" in call and call["id"] in (None, ""):
        changed["id"] = name
    if "type" in call and call["type"] is None:
        changed["type"] = "function"
    function = call.get("function")
    if isinstance(function, dict) and (tidy := _function(function)) is not function:
        changed["function"] = tidy
    return call | changed if changed else call


def _function(function: dict[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments", "")
    if isinstance(arguments, str):
        return function
    if arguments is None or arguments == []:
        return function | {"arguments": "{}"}
    if isinstance(arguments, dict):
        return function | {"arguments": jsontext.write(arguments).decode()}
    return function
