"""Finds JSON values in the text of a small model.

Small models wrap JSON in prose and code fences, write Python literals, Chinese punctuation, comments and
trailing commas, or stop before the last bracket. `json_values` yields the values that a text can mean, the
most literal reading first; the caller takes the first one that fits its schema. Nothing in the text is
evaluated.

Strict readings come first, so that valid JSON is never changed. A repair is tried only on a part that
begins with a bracket: prose alone never becomes a value.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

import json_repair

MAX_REPAIRED = 24_576
"""Longest part, in characters, that is repaired. Repairing takes about 1 microsecond a character."""
MAX_DEPTH = 64
"""Deepest nesting of brackets that is repaired; strict JSON is bounded by Python's own parser."""
MAX_PARTS = 8
"""Most parts of a text, such as code fences, that are looked at."""

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_BRACKETS = {"{": "}", "[": "]"}
_CHINESE = {"：": ":", "，": ",", "｛": "{", "｝": "}", "［": "[", "］": "]", "【": "[", "】": "]", "；": ","}
_FULL_WIDTH = str.maketrans("｛｝［］", "{}[]")
_QUOTES = {"“": "”", "”": "“", "「": "」", "＂": "＂", '"': '"'}
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


def json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values that a text can mean, the most literal reading first. A value may come twice."""
    text = _THOUGHT.sub("", text).strip().lstrip("\ufeff")
    if _OPENING.search(text) is None:
        text = text.translate(_FULL_WIDTH)
    parts = list(_parts(text))
    for part in parts:
        if (value := strict(part)) is not NOTHING:
            yield value
    for part in parts:
        if (start := _OPENING.search(part)) is not None:
            yield from repaired(part[start.start() :])


NOTHING = object()
"""Stands for a text that is no JSON value; None is one."""


def strict(text: str) -> Any:
    """Return the value of a text that is JSON as RFC 8259 defines it, else `NOTHING`."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return NOTHING
    return value


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


def _parts(text: str) -> Iterator[str]:
    """Yield the text, its code fences, and the parts between matching brackets."""
    yield text
    fences = [found[1].strip() for found in _FENCE.finditer(text)][:MAX_PARTS]
    yield from fences
    yield from (text[start:end] for start, end in bracketed(text))


def bracketed(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the parts between matching brackets begin and end; the last one may lack its end."""
    start = 0
    for _ in range(MAX_PARTS):
        found = _OPENING.search(text, start)
        if found is None:
            return
        end = _end_of(text, found.start())
        yield found.start(), end
        start = end


def _end_of(text: str, start: int, quotes: str = '"') -> int:
    """Return the place behind the bracket that closes the one at `start`; the end of the text without one.

    Brackets in texts between `quotes` do not count.
    """
    depth, quote, escaped = 0, "", False
    for place in range(start, len(text)):
        char = text[place]
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote = ""
        elif char in quotes:
            quote = char
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)


def repaired(part: str) -> Iterator[Any]:
    """Yield the values that a part beginning with a bracket means if it is repaired."""
    parts = {part[: _end_of(part, 0)]: None, part[: _end_of(part, 0, "\"'")]: None}
    for one in parts:
        yield from _repaired(one)


def _repaired(part: str) -> Iterator[Any]:
    if len(part) > MAX_REPAIRED or _depth(part) > MAX_DEPTH:
        return
    try:
        value = ast.literal_eval(part)  # parses literals only
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        pass
    else:
        if _is_json(value):
            yield value
    plain = _plain_punctuation(part)
    readings = (plain, part) if part[1:].lstrip()[:1] in _QUOTES.keys() - {'"'} else (part, plain)
    for text in readings:
        try:
            value = json_repair.loads(text, skip_json_loads=True)
        except (ValueError, RecursionError, IndexError):
            continue
        if isinstance(value, dict | list) and _is_json(value):
            yield value


def _depth(text: str) -> int:
    """Return an upper bound for the nesting of brackets."""
    deepest = depth = 0
    for char in text:
        if char in "{[(":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}])":
            depth -= 1
    return deepest


def _is_json(value: Any) -> bool:
    """Return True if a value consists of JSON's types, with text keys and finite numbers."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(member) for key, member in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, str | int)


def _plain_punctuation(text: str) -> str:
    """Replace Chinese punctuation outside of quoted texts with JSON's, and Chinese quotes with plain ones."""
    out: list[str] = []
    closing = ""
    escaped = False
    for char in text:
        if closing:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == closing:
                out.append('"')
                closing = ""
                continue
            out.append('\\"' if char == '"' and closing != '"' and not escaped else char)
        elif char in _QUOTES:
            closing = _QUOTES[char]
            out.append('"')
        else:
            out.append(_CHINESE.get(char, char))
    return "".join(out)
