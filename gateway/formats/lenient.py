"""Takes what clients send although OpenAI's API has it otherwise, and gives it as that API has it.

What the gateway itself gives in answers comes back in the history: calls without an id, arguments as objects.
Other programs add results that are no text or name no call, parts of the Responses API, and thoughts.
PHP writes an empty object as `[]`. `max_tokens: -1` is llama.cpp's word for "no limit".
"""

from __future__ import annotations

import re
from typing import Any

from gateway.formats import jsontext

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
_RESULTS = ("tool", "function")
_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_MADE = re.compile(r"call_\d+_\d+")
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
    open_calls: list[dict[str, Any]] = []
    out: list[Any] = []
    for place, message in enumerate(messages):
        made = _message(message, place) if isinstance(message, dict) else message
        if isinstance(made, dict):
            made = _joined(made, open_calls)
        out.append(made)
    return out if any(made is not message for made, message in zip(out, messages, strict=True)) else None


def _message(message: dict[str, Any], place: int) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    role, content = message.get("role"), message.get("content")
    if (
        content is not None
        and not isinstance(content, str)
        and (told := _content(role, content)) is not content
    ):
        changed["content"] = told
    calls = message.get("tool_calls")
    if isinstance(calls, dict) and calls:
        calls = [calls]
    if isinstance(calls, list) and calls:
        tidy = [_call(call, f"call_{place}_{number}") for number, call in enumerate(calls)]
        if calls is not message["tool_calls"] or any(map(_differ, tidy, calls)):
            changed["tool_calls"] = tidy
    old = message.get("function_call")
    if old in ({}, []):
        changed["function_call"] = None
    elif isinstance(old, dict) and (function := _function(old)) is not old:
        changed["function_call"] = function
    return message | changed if changed else message


def _differ(one: Any, other: Any) -> bool:
    return one is not other


def _joined(message: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    """A tool's result with the id of its call: of the next call without a result, where it names none.

    `calls` are those without a result so far, kept from message to message.
    """
    given = message.get("tool_calls")
    if isinstance(given, list) and given:
        calls[:] = [call for call in given if isinstance(call, dict) and isinstance(call.get("id"), str)]
    if message.get("role") != "tool":
        return message
    name = message.get("tool_call_id")
    if type(name) is int:
        name = str(name)
    known = next((call for call in calls if call["id"] == name), None)
    if known is None and (not name or any(_is_made(call["id"]) for call in calls)):
        known = next(iter(calls), None)
        name = known["id"] if known is not None else name
    if known is not None:
        calls.remove(known)
    return message if name == message.get("tool_call_id") else message | {"tool_call_id": name}


def _is_made(name: str) -> bool:
    """Whether an id is one that was put in for one that was missing."""
    return _MADE.fullmatch(name) is not None


def _content(role: Any, content: Any) -> Any:
    """The content of a message as a text or as parts of known types."""
    if isinstance(content, list):
        if role in _RESULTS and not all(map(_is_part, content)):
            return jsontext.write(content).decode()
        made = [part for given in content if (part := _part(given)) is not None]
        same = len(made) == len(content) and not any(map(_differ, made, content))
        return content if same else made
    return jsontext.write(content).decode() if role in _RESULTS else content


def _is_part(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, dict) and isinstance(given.get("type"), str))


def _part(given: Any) -> Any:
    """A part of a content as chat completions have it; None for thoughts, which no server takes back."""
    if isinstance(given, str):
        return {"type": "text", "text": given}
    if not isinstance(given, dict):
        return given
    kind, text = given.get("type"), given.get("text")
    if kind in _THOUGHTS:
        return None
    if kind == "refusal" and isinstance(given.get("refusal"), str):
        return {"type": "text", "text": given["refusal"]}
    if kind in _TEXTS and "text" in given and (kind != "text" or text is None):
        return {"type": "text", "text": text or ""} if text is None or isinstance(text, str) else given
    return given


def _call(call: Any, name: str) -> Any:
    if not isinstance(call, dict):
        return call
    changed: dict[str, Any] = {}
    if call.get("id") in (None, ""):
        changed["id"] = name
    elif type(call["id"]) is int:
        changed["id"] = str(call["id"])
    if call.get("type", "function") in (None, ""):
        changed["type"] = "function"
    function = call.get("function")
    if function is None and isinstance(call.get("name"), str) and "arguments" in call:
        function = {name: call[name] for name in ("name", "arguments")}
        call = {name: value for name, value in call.items() if name not in function}
        changed["function"] = function
    if isinstance(function, dict) and (tidy := _function(function)) is not function:
        changed["function"] = tidy
    return call | changed if changed else call


def _function(function: dict[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments", "")
    if isinstance(arguments, str):
        return function
    if arguments is None or arguments == []:
        return function | {"arguments": "{}"}
    return function | {"arguments": jsontext.write(arguments).decode()}
