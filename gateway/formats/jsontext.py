"""JSON in and out: one strict reader for whatever clients and backends send, one safe writer.

The reader takes UTF-8 only, without a byte order mark; numbers are finite and of sane length; a key stands
once in its object; a lone surrogate becomes U+FFFD, as UTF-8 cannot hold it; nesting and the number of values
are bounded, since it is their number that costs time, not the length of texts.

Theory of operation. Bodies without a doubt are read by jiter, which refuses most of this by itself and
takes a fifth of the time. Whatever it refuses, and whatever is not plain text and a look at the bytes makes
doubtful (deep brackets, long numbers), is read by Python's own decoder with four hooks: what the hooks
cannot refuse at once they mark, and one walk over the value, made only when something was marked, finds the
place to name.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

import jiter
from pydantic_core import PydanticSerializationError, to_json

from gateway.errors import BadRequest
from gateway.formats.limits import MAX_DEPTH, MAX_DIGITS, MAX_VALUES

_FEW = 2 * (MAX_VALUES - MAX_DEPTH)
"""Bytes that cannot hold too many values: each takes two, itself and its comma. Brackets are looked at with
their depth. Counting the commas of a long prompt costs as much as half its parsing."""
_ORDINARY = 10**15
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_BACKSLASH = re.compile(rb"[^\\]")
_PIECE = 65_536
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


# Numbers that may be too long or not finite, as they look when all digits are zeros and all pluses gone.
_AS_ZEROS = bytes.maketrans(b"123456789E", b"000000000e")
_TEXTS = frozenset({str})
_FLAT = frozenset({str, bool})
_NUMBERS = frozenset({int, float})
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)
_LARGE_EXPONENT = b"0e000"


UNREAD = object()
"""Stands for the value of a body that was not read."""


class _Doubled(dict[str, Any]):
    """An object that held a key twice; remembers which."""

    key = ""


def read(raw: bytes) -> Any:
    """Parse a client's body.

    Raises `BadRequest` that says what is wrong and, where it can be told, names the place.
    """
    return assured(parsed(raw), raw)


def parsed(raw: bytes) -> Any:
    """What a client's body says at first glance. Whoever takes none but plain texts from it may take those.

    Of a body that has to be read with care it is `UNREAD`.
    """
    if len(raw) <= _FEW or raw.count(b",") <= MAX_VALUES - MAX_DEPTH:
        try:
            return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True)
        except ValueError:
            pass  # the careful reader says what is wrong, and where
    return UNREAD


def assured(value: Any, raw: bytes) -> Any:
    """The value of a body that was `parsed`, once it is sure. Raises as `read`."""
    if value is not UNREAD and (_plain(value) or not _doubtful(raw)):
        return value
    return _read_carefully(raw)


def _plain(value: Any) -> bool:
    """Whether nothing in a body can be too deep or too large a number: texts, and messages made of texts."""
    if type(value) is not dict:
        return False
    for member in value.values():
        kind = type(member)
        if kind in _FLAT:
            continue
        if kind is not list:
            if kind in _NUMBERS and -_ORDINARY < member < _ORDINARY:
                continue
            return False
        if member is not value.get("messages"):
            return False
        for message in member or ():
            if type(message) is not dict or not _TEXTS.issuperset(map(type, message.values())):
                return False
    return True


def _doubtful(raw: bytes) -> bool:
    """Whether there may be deep brackets, or numbers that are too long or not finite."""
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        return True
    shape = raw.translate(_AS_ZEROS, b"+")
    return _LARGE_EXPONENT in shape or _LONG_NUMBER in shape


def _read_carefully(raw: bytes) -> Any:
    _require_few_values(raw)
    hooks = _Hooks()
    try:
        value = _decode(raw, hooks)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8 (byte {error.start}). Send JSON in UTF-8.") from None
    except RecursionError:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    surrogates = has_lone_surrogates(raw)
    _refuse_marked(raw, value, hooks)
    return _well_formed_value(value) if surrogates else value


def read_object(raw: bytes) -> dict[str, Any]:
    """Parse a client's body that must be a JSON object."""
    value = read(raw)
    if not isinstance(value, dict):
        raise no_object()
    return value


def no_object() -> BadRequest:
    """The error for a body that is no JSON object."""
    return BadRequest("The body must be a JSON object.")


def read_lenient(raw: bytes | str) -> Any:
    """Parse what a backend sent. Raises ValueError when it is not JSON; repairs nothing, trusts nothing."""
    if isinstance(raw, bytes):
        try:
            return jiter.from_json(raw)
        except ValueError:
            pass  # it may still be what Python takes for JSON, such as half a surrogate pair
    try:
        return json.loads(raw, parse_int=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _number(digits: str) -> int | float:
    """An integer; one of more digits than Python reads is beyond all counting."""
    try:
        return int(digits)
    except ValueError:
        return inf


def is_standard(raw: bytes) -> bool:
    """Whether a text that `read_lenient` takes holds no NaN and no infinity, which are no JSON."""
    if b"NaN" not in raw and b"Infinity" not in raw:
        return True
    try:
        jiter.from_json(raw, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def read_finite(text: str) -> Any:
    """Parse what a model wrote. Raises ValueError when it is not JSON, or holds NaN or an infinity."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# json.dumps would make such an encoder anew for every value.


def write(value: Any, *, large: bool = False) -> bytes:
    """Compact UTF-8 JSON; a lone surrogate becomes U+FFFD, since UTF-8 cannot hold it.

    What is no number of JSON (NaN, the infinities) becomes null. What may be `large` is written in pieces, so
    that other threads need not wait for the whole.
    """
    if large:
        return joined(_written_pieces(value))
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return well_formed(_encode(value)).encode()


def _written_pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, str) and len(value) > _PIECE:
        yield b'"'
        for at in range(0, len(value), _PIECE):
            yield write(value[at : at + _PIECE])[1:-1]
        yield b'"'
    elif isinstance(value, dict):
        for number, (name, member) in enumerate(value.items()):
            yield b"," if number else b"{"
            yield from _written_pieces(name)
            yield b":"
            yield from _written_pieces(member)
        yield b"}" if value else b"{}"
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield b"," if number else b"["
            yield from _written_pieces(item)
        yield b"]" if value else b"[]"
    else:
        yield write(value)


def joined(pieces: Iterable[bytes | memoryview]) -> bytes:
    """The pieces as one text, in steps of which none is long: what is made grows in its place."""
    buffer = io.BytesIO()
    for piece in pieces:
        for at in range(0, len(piece), _PIECE):
            buffer.write(piece[at : at + _PIECE])
    return buffer.getvalue()


def holds(raw: bytes, text: bytes, most: int = 1) -> bool:
    """Whether a text stands in a body `most` times or more often. Looked for in pieces, as `write` writes."""
    if len(raw) <= _PIECE:
        return raw.count(text) >= most
    found = 0
    for at in range(0, len(raw), _PIECE):
        found += raw.count(text, at, at + _PIECE + len(text) - 1)
        if found >= most:
            return True
    return False


def well_formed(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class _Hooks:
    """The decoder's hooks for one body. `marked` tells that a walk will find something to refuse."""

    def __init__(self) -> None:
        self.marked = False

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self.marked = True
        doubled = _Doubled(value)
        times = Counter(key for key, _ in pairs)
        doubled.key = next(key for key, count in times.items() if count > 1)
        return doubled

    def integer(self, digits: str) -> int | float:
        return int(digits) if len(digits) <= MAX_DIGITS else self.constant(digits)

    def real(self, digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else self.constant(digits)

    def constant(self, _: str) -> float:
        self.marked = True
        return math.nan


def _require_few_values(raw: bytes) -> None:
    # Counting is a hundred times cheaper than parsing, but the cheap count takes what stands in texts for
    # values: only where it says too many are the texts left out, piece by piece.
    if len(raw) <= MAX_VALUES or _marks(raw) <= MAX_VALUES:
        return
    values = 0
    for structure in _outside_texts(raw):
        values += _marks(structure)
        if values > MAX_VALUES:
            raise BadRequest(f"The body has more than {MAX_VALUES} values. Send fewer, larger ones.")


def _marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _outside_texts(raw: bytes) -> Iterator[bytes]:
    """What stands outside of texts, in pieces that are cut where no escape is."""
    inside = False
    at = 0
    while at < len(raw):
        cut = _NO_BACKSLASH.search(raw, at + _PIECE)
        end = cut.end() if cut else len(raw)
        plain = raw[at:end].replace(rb"\\", b"").replace(rb"\"", b"")
        parts = plain.split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0
        at = end


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    raise ValueError("no key is repeated")


def _decode(raw: bytes, hooks: _Hooks) -> Any:
    text = raw.decode("utf-8")
    if text.startswith("\ufeff"):
        raise BadRequest("The body starts with a byte order mark. Send plain UTF-8.")
    if not text.strip():
        raise BadRequest("The body is empty. Send a JSON object.")
    return json.loads(
        text,
        object_pairs_hook=hooks.object,
        parse_int=hooks.integer,
        parse_float=hooks.real,
        parse_constant=hooks.constant,
    )


def _refuse_marked(raw: bytes, value: Any, hooks: _Hooks) -> None:
    # The walk costs as much as the parse: make it only when it can find something.
    deep = raw.count(b"[") + raw.count(b"{") > MAX_DEPTH
    if not (hooks.marked or deep):
        return
    for path, item in _walk(value):
        _refuse_one(path, item)


def _refuse_one(path: tuple[str | int, ...], item: Any) -> None:
    if len(path) > MAX_DEPTH:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.", param=name_of(path[:8]))
    if isinstance(item, _Doubled):
        raise BadRequest(
            f"The key {_shown(item.key)} stands twice in one object. Send it once.",
            param=name_of((*path, item.key)),
        )
    if isinstance(item, float) and not math.isfinite(item):
        raise BadRequest("Numbers must be finite and of ordinary size.", param=name_of(path))


def has_lone_surrogates(raw: bytes) -> bool:
    """Whether a body may hold half of a surrogate pair, which its value then holds as U+FFFD."""
    return _SURROGATE_ESCAPE.search(raw) is not None


def _well_formed_value(value: Any) -> Any:
    """The value with every lone surrogate replaced. No deeper than `MAX_DEPTH`."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed_value(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(name): _well_formed_value(item) for name, item in value.items()}
    return value


def _walk(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        yield path, item
        if len(path) > MAX_DEPTH:
            continue
        if isinstance(item, dict):
            stack.extend(((*path, key), child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend(((*path, index), child) for index, child in enumerate(item))


def name_of(path: tuple[str | int, ...]) -> str | None:
    """A place in a body as SDK users read it: `messages[0].content`; None for the body itself."""
    name = ""
    for step in path:
        name += (
            f"[{step}]" if isinstance(step, int) else f".{_shown_bare(step)}" if name else _shown_bare(step)
        )
    return name or None


def _shown_bare(key: str) -> str:
    return well_formed(key)[:64]


def _shown(key: str) -> str:
    return json.dumps(_shown_bare(key), ensure_ascii=False)
