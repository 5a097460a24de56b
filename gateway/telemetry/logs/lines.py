"""Log lines: one event is one line, whatever a client or a backend wrote into its fields.

Two formatters, `JsonLines` for machines and `ConsoleLines` for people. Strings are cut at `LIMIT`; lone
surrogates are replaced; what could end a line, move a cursor or turn the reading direction is escaped.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any, TypeAlias

from gateway.errors import GatewayError
from gateway.formats.jsontext import well_formed

Fields: TypeAlias = Mapping[str, Any]
"""An event's fields: text, numbers, booleans, None, and lists or mappings of these. Keys are text."""

LIMIT = 1024
"""Most bytes (UTF-8) of one string in a line."""

LARGEST = 2**63 - 1
"""The largest integer in a line: beyond it readers fail, and so does writing it from 4,300 digits on."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

MAX_FRAMES = 30
MAX_CAUSES = 8

_CUT = "…"
# Beyond what JSON itself escapes: DEL and C1, the line ends of Unicode (U+0085 is among C1), bidi controls.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# What asyncio quotes (callbacks with their arguments, tasks with their results) stands in brackets.
_QUOTED = re.compile(r"[<(].*[>)]|[<(].*")
_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


class JsonLines(logging.Formatter):
    """One JSON object a line: `ts`, `level` and `event` first, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"ts": timestamp(record.created), "level": record.levelname.lower()}
        return to_json(head | dict(fields_of(record)))


class ConsoleLines(logging.Formatter):
    """One readable line: time, level, event, then `name=value` for every field that holds something."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(fields_of(record))
        event = fields.pop("event")
        head = f"{timestamp(record.created)} {record.levelname:<7} {shown(event)}"
        told = [
            f"{name}={shown(value)}" for name, value in fields.items() if value not in (None, "", [], (), {})
        ]
        return " ".join([head, *told])


def fields_of(record: logging.LogRecord) -> Fields:
    """Give the fields of a record: those of our own loggers, or a foreign record (uvicorn, asyncio) as `log`.

    Of a foreign record only the first line of the message is kept, and of asyncio's nothing in brackets: it
    puts the `repr` of futures there, which hold results, arguments and the messages of exceptions.
    """
    fields: Fields | None = getattr(record, "fields", None)
    if fields is not None:
        return fields
    message = record.getMessage().strip().partition("\n")[0]
    if record.name == "asyncio":
        message = _QUOTED.sub(_CUT, message)
    told: dict[str, Any] = {"event": "log", "logger": record.name, "message": message}
    error = record.exc_info[1] if record.exc_info else None
    return told if error is None else told | describe(error) | {"message": message}


def describe(error: BaseException) -> dict[str, Any]:
    """Tell of an error without telling what it says: its type, its frames, and those of its causes.

    The message of a foreign error may quote what it failed on (`json` and `int` do: a piece of a prompt, a
    key), and chained tracebacks print the messages of all. So a message is given for a `GatewayError` alone,
    whose messages are written here and never hold a body, a prompt or a key; frames name code, not values.
    """
    causes = [_described(cause) for cause in _causes(error)]
    return _described(error) | ({"causes": causes} if causes else {})


def _described(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"error": type(error).__qualname__, "traceback": _frames(error.__traceback__)}
    if isinstance(error, GatewayError):
        told["message"] = error.message
    return told


def _frames(traceback: TracebackType | None) -> list[str]:
    """The innermost frames, outermost first. A path keeps its last three parts: enough to find the file."""
    last = deque(walk_tb(traceback), maxlen=MAX_FRAMES)
    return [
        f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-3:])}:{line} in {frame.f_code.co_qualname}"
        for frame, line in last
    ]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to it: members of a group, causes and contexts, nearest first, each once."""
    seen = {id(error)}
    queue = deque(_next(error))
    while queue and len(seen) <= MAX_CAUSES:
        cause = queue.popleft()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        queue.extend(_next(cause))


def _next(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__


def timestamp(seconds: float) -> str:
    """Give a Unix time as ISO 8601 in UTC with milliseconds: `2026-01-31T12:00:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: object) -> str:
    """Give an event, or one of its values, as JSON without a character that is not safe in a line."""
    text = _plain(value)
    # A line that is short and ASCII as a whole (nearly all are) has no string to cut or to repair.
    if text is None or len(text) > LIMIT or not text.isascii():
        text = _ENCODER.encode(_clean(value))
    return _escaped(text)


def _plain(value: object) -> str | None:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError):
        return None


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value)
    if value is None or isinstance(value, int):
        return value if value is None or abs(value) <= LARGEST else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {cut(key): _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    # Its repr might hold anything.
    return type(value).__name__


def cut(text: str) -> str:
    """Give well-formed text of at most `LIMIT` bytes; a cut one ends with "…"."""
    if len(text) <= LIMIT and text.isascii():
        return text
    text = well_formed(text[: LIMIT + 1])
    raw = text.encode()
    if len(raw) <= LIMIT:
        return text
    return raw[: LIMIT - len(_CUT.encode())].decode(errors="ignore") + _CUT


def shown(value: Any) -> str:
    """Give a value as people are shown it: bare where that is unmistakable, else as JSON."""
    value = _clean(value)
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    if isinstance(value, list) and all(isinstance(item, str) and _BARE.fullmatch(item) for item in value):
        return ",".join(value)
    return _escaped(_ENCODER.encode(value))
