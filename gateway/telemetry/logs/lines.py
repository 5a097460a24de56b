"""Log lines: one event is exactly one line, whatever text its fields contain.

`JsonLines` is for programs, `ConsoleLines` for people. Strings are cut at `LIMIT` bytes, and lone
surrogates are replaced. Characters that could end a line, move the cursor or change the reading direction
are escaped.
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
"""The fields of an event: text, numbers, booleans, None, and lists or mappings of these. Keys are text."""

LIMIT = 1024
"""Maximum length of one string in a line, in bytes (UTF-8)."""

LARGEST = 2**63 - 1
"""The largest integer in a line. Many readers fail on larger numbers, and Python refuses to write more than
4,300 digits."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

MAX_FRAMES = 30
MAX_CAUSES = 8

_CUT = "…"
# Characters that JSON does not escape itself: DEL and C1, the line ends of Unicode (U+0085 is in C1), bidi
# controls.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# asyncio puts quoted values (callbacks with arguments, tasks with results) in brackets.
_QUOTED = re.compile(r"[<(].*[>)]|[<(].*")
_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


class JsonLines(logging.Formatter):
    """One JSON object per line: `ts`, `level` and `event` first, then the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"ts": timestamp(record.created), "level": record.levelname.lower()}
        return to_json(head | dict(fields_of(record)))


class ConsoleLines(logging.Formatter):
    """One readable line: time, level, event, then `name=value` for every field that is not empty."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(fields_of(record))
        event = fields.pop("event")
        head = f"{timestamp(record.created)} {record.levelname:<7} {shown(event)}"
        told = [
            f"{name}={shown(value)}" for name, value in fields.items() if value not in (None, "", [], (), {})
        ]
        return " ".join([head, *told])


def fields_of(record: logging.LogRecord) -> Fields:
    """Return the fields of a record; a record of another library (uvicorn, asyncio) becomes the event `log`.

    Of such a record only the first line of the message is kept. In messages of asyncio the text in brackets
    is removed: it contains the `repr` of futures, with results, arguments and messages of exceptions.
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
    """Return the type and stack frames of an error and of its causes, without confidential messages.

    The message of a foreign error may quote the value that caused it: `json` and `int` may quote part of a
    prompt or a key. Chained tracebacks print the messages of all errors. So a message is included only for
    a `GatewayError`, whose messages never contain a body, a prompt or a key. Frames name code, not values.
    """
    causes = [_described(cause) for cause in _causes(error)]
    return _described(error) | ({"causes": causes} if causes else {})


def _described(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"error": type(error).__qualname__, "traceback": _frames(error.__traceback__)}
    if isinstance(error, GatewayError):
        told["message"] = error.message
    return told


def _frames(traceback: TracebackType | None) -> list[str]:
    """Return the innermost frames, outermost first, with the last three parts of each path."""
    last = deque(walk_tb(traceback), maxlen=MAX_FRAMES)
    return [
        f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-3:])}:{line} in {frame.f_code.co_qualname}"
        for frame, line in last
    ]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the members of a group, the causes and the contexts of an error, nearest first, each once."""
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
    """Return a Unix time as ISO 8601 in UTC with milliseconds: `2026-01-31T12:00:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: object) -> str:
    """Return an event or one of its values as JSON in which all unsafe characters are escaped."""
    text = _plain(value)
    # A line that is short and ASCII (nearly all are) has no string to cut or to repair.
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
    # The repr could contain confidential data.
    return type(value).__name__


def cut(text: str) -> str:
    """Return well-formed text of at most `LIMIT` bytes. A text that was cut ends with "…"."""
    if len(text) <= LIMIT and text.isascii():
        return text
    text = well_formed(text[: LIMIT + 1])
    raw = text.encode()
    if len(raw) <= LIMIT:
        return text
    return raw[: LIMIT - len(_CUT.encode())].decode(errors="ignore") + _CUT


def shown(value: Any) -> str:
    """Return a value as text for people: unquoted if that is unambiguous, else as JSON."""
    value = _clean(value)
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    if isinstance(value, list) and all(isinstance(item, str) and _BARE.fullmatch(item) for item in value):
        return ",".join(value)
    return _escaped(_ENCODER.encode(value))
