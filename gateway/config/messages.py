"""What is wrong with a value, in our words: pydantic's findings as problems, each with its remedy.

Nothing here repeats the value of a secret: those types say themselves what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date, time
from difflib import SequenceMatcher, get_close_matches
from typing import Any, get_args, get_origin
from unicodedata import normalize

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gateway.config.fault import KeyPath, ValueProblem
from gateway.config.section import Section
from gateway.config.value_types import kinds_of

_LIMITS = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "string_too_short": "is empty",
}

_LONGEST_NAME = 200
_PROGRAMS = {
    **dict.fromkeys(
        (
            "vllm",
            "sglang",
            "llama.cpp",
            "llamacpp",
            "llama-server",
            "ollama",
            "xinference",
            "fastchat",
            "lmdeploy",
            "openai-compatible",
            "deepseek",
            "zhipu",
            "bigmodel",
            "zhipuai",
        ),
        "openai",
    ),
    **dict.fromkeys(("chatglm1", "chatglm-6b", "chatglm1-6b"), "chatglm"),
    **dict.fromkeys(("glm-4", "glm-4-9b", "glm-4-9b-chat", "chatglm4"), "glm4"),
    "glm-4v": "glm4v",
}
"""What people write for a dialect: the server program or the model."""
_MODELS = (
    (re.compile(r"(?:chat)?glm-?4v"), "glm4v"),
    (re.compile(r"(?:chat)?glm-?4-?(?:9b|chat|$)"), "glm4"),
    (re.compile(r"chatglm-?3-?\d*b"), "chatglm3"),
    (re.compile(r"chatglm-?2-?\d*b"), "chatglm2"),
    (re.compile(r"chatglm-?\d+b"), "chatglm"),
    (
        re.compile(
            r"glm-[345z]|qwen|qwq|llama|deepseek|mi[sx]tral|yi-|internlm|baichuan|gemma|phi-?\d|gpt|moonshot|"
            r"kimi|minimax|azure|text-generation-inference|tgi|lm-?studio|localai|one-?api|new-?api"
        ),
        "openai",
    ),
)
"""Models by the beginning of their names, and what serves them usually; further programs."""
_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("base_url", "api_base", "endpoint", "uri"), ("url",)),
    **dict.fromkeys(("address", "host"), ("url", "listen")),
    **dict.fromkeys(("port", "bind"), ("listen",)),
    **dict.fromkeys(("type", "kind", "protocol"), ("dialect",)),
    **dict.fromkeys(("concurrency", "max_concurrency", "parallel"), ("slots",)),
}
"""What other programs call a key."""

_SURE = 0.85
"""How alike a key and one of the same table are, where another table has the very key."""

_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that `name` was probably meant to be, whatever its case and its blanks.

    Blanks, underscores and dashes are taken for one another, full-width letters for what they look like.
    """
    plain = {_plain(one): one for one in sorted(known, reverse=True)}
    found = get_close_matches(_plain(name[:_LONGEST_NAME]), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", normalize("NFKC", name).strip().casefold())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give `; did you mean "..."?`, or nothing where no known name is near."""
    near = nearest(name, known)
    return f'; did you mean "{near}"?' if near else ""


def meant_key(name: str, known: Iterable[str]) -> str | None:
    """Give the key that `name` was probably meant to be, by its spelling or as other programs call it."""
    known = set(known)
    called = next((key for key in _KEYS.get(name.lower(), ()) if key in known), None)
    return called or nearest(name, known)


def section_at(path: KeyPath, root: type[Section]) -> type[Section]:
    """Find the type of the table at `path`; list positions in it are passed over."""
    for part in path:
        field = root.model_fields.get(part) if isinstance(part, str) else None
        root = (section_in(field.annotation) or root) if field else root
    return root


def section_in(annotation: Any) -> type[Section] | None:
    """Find the table type inside an annotation: of the field itself, or of its list's items."""
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, Section):
        return annotation
    inner = (section_in(part) for part in get_args(annotation))
    return next((section for section in inner if section), None)


def unknown_key(path: KeyPath, root: type[Section]) -> ValueProblem:
    """Complain about a key that its table does not know."""
    name, section = str(path[-1]), section_at(path[:-1], root)
    known = section.model_fields
    meant = meant_here(path, root)
    if meant is None and (places := _places(name, path[:-1], root)):
        return ValueProblem(path, f"unknown key here; it belongs into {' or '.join(places[:3])}")
    inner = section_in(known[meant].annotation) if meant else None
    if meant and inner is not None and len(path) > 1:
        return ValueProblem(
            path, f'unknown key; did you mean "{meant}", a table of {", ".join(inner.model_fields)}?'
        )
    near = f'; did you mean "{meant}"?' if meant else ""
    return ValueProblem(path, f"unknown key{near or '; known here: ' + ', '.join(known)}")


def meant_here(path: KeyPath, root: type[Section]) -> str | None:
    """Give the key of the same table that an unknown one was probably meant to be.

    None where it is a key of another table and no near one of this.
    """
    name, known = str(path[-1]), section_at(path[:-1], root).model_fields
    meant = meant_key(name, known)
    if meant is None or name.lower() in _KEYS or not _places(name, path[:-1], root):
        return meant
    return meant if SequenceMatcher(None, _plain(name), _plain(meant)).ratio() >= _SURE else None


def _places(name: str, here: KeyPath, root: type[Section]) -> list[str]:
    """The headings of the tables that have a key of just this name, those inside of this one first."""
    table = ".".join(part for part in here if isinstance(part, str))
    found = [heading for heading, section in _tables(root) if name in section.model_fields]
    inside = [heading for heading in found if table and heading.strip("[]").startswith(f"{table}.")]
    return inside or found


def _tables(section: type[Section], above: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every table below a section, with its heading."""
    for key, field in section.model_fields.items():
        if (inner := section_in(field.annotation)) is not None:
            name = f"{above}{key}"
            yield (f"[[{name}]]" if get_origin(field.annotation) is tuple else f"[{name}]"), inner
            yield from _tables(inner, f"{name}.")


def complaint(error: ErrorDetails, root: type[Section]) -> ValueProblem:
    """Say one finding of pydantic in our words."""
    path = error["loc"]
    return ValueProblem(path, _message(error, path, root))


def _message(error: ErrorDetails, path: KeyPath, root: type[Section]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return f"missing; {_wanted(path, root)} is wanted"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return _choice(value, path, root)
    if kind in _LIMITS:
        limits = {name: plain(limit) for name, limit in context.items()}
        return f"{_LIMITS[kind].format(**limits)}, got {shown(value)}"
    wanted = _wanted(path, root)
    return f"{wanted} is wanted, got {shown(value)}{_as_number(wanted, value)}"


_NUMBER = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z\u4e00-\u9fff]{0,8})\s*")
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "秒"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "分", "分钟"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours", "小时"), 3600),
    "ms": 0.001,
}
_BYTES = {"b": 1, **dict.fromkeys(("k", "kb", "kib"), 2**10), **dict.fromkeys(("m", "mb", "mib"), 2**20)}
_BYTES.update(dict.fromkeys(("g", "gb", "gib"), 2**30))
_TOKENS = {"k": 1024}


_NUMERALS = {
    **{word: number for number, word in enumerate("零一二三四五六七八九十")},
    "两": 2,
    "〇": 0,
    **{
        word: number
        for number, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        )
    },
}


def numeral(word: str) -> str | None:
    """The digits of a small number that is written as a word."""
    number = _NUMERALS.get(word.strip().lower())
    return None if number is None else str(number)


def _as_number(wanted: str, value: object) -> str:
    """Give `; write: ...` for a text that holds a number, with or without a unit."""
    if not isinstance(value, str) or "number" not in wanted:
        return ""
    text = normalize("NFKC", value[:_LONGEST_NAME]).strip()
    found = _NUMBER.fullmatch(numeral(text) or text)
    if found is None:
        return ""
    units: dict[str, float] = {"": 1}
    for word, known in (("seconds", _SECONDS), ("bytes", _BYTES), ("tokens", _TOKENS)):
        units.update(known if word in wanted else {})
    factor = units.get(found[2].lower())
    number = None if factor is None else round(float(found[1]) * factor, 9)
    if number is None or (wanted.startswith("a whole number") and number != int(number)):
        return ""
    return f"; write: {int(number) if number == int(number) else number}"


def _choice(value: object, path: KeyPath, root: type[Section]) -> str:
    field = field_at(path, root)
    choices = [str(choice) for choice in choices_of(field.annotation)] if field else []
    near = did_you_mean(_program(value), choices) if isinstance(value, str) else ""
    return f"one of {', '.join(choices)} is wanted, got {shown(value)}{near}"


def _program(value: str) -> str:
    """The dialect of a server program or a model, or the text as it was."""
    name = value[:_LONGEST_NAME].strip().lower().rpartition("/")[2]
    if name in _PROGRAMS:
        return _PROGRAMS[name]
    return next((dialect for model, dialect in _MODELS if model.match(name)), value)


def choices_of(annotation: Any) -> tuple[Any, ...]:
    """List the values of a Literal, also where it may be unset; empty for other annotations."""
    parts = get_args(annotation)
    if parts and not any(isinstance(part, type) or get_origin(part) for part in parts):
        return parts
    return next((choices_of(part) for part in parts if get_args(part)), ())


def field_at(path: KeyPath, root: type[Section]) -> FieldInfo | None:
    """Find the field at `path`, or the field whose list it is an item of."""
    names = [index for index, part in enumerate(path) if isinstance(part, str)]
    return section_at(path[: names[-1]], root).model_fields.get(str(path[names[-1]])) if names else None


def _wanted(path: KeyPath, root: type[Section]) -> str:
    field = field_at(path, root)
    if field is None:
        return "another value"
    if kinds := kinds_of(field):
        return kinds[-1 if isinstance(path[-1], int) else 0].wanted
    if section_in(field.annotation):
        return _wanted_table(path, field)
    if choices := choices_of(field.annotation):
        return f"one of {', '.join(map(str, choices))}"
    return next((words for kind, words in _TYPES.items() if kind is field.annotation), "another value")


def _wanted_table(path: KeyPath, field: FieldInfo) -> str:
    if get_origin(field.annotation) is tuple and len(path) == 1:
        return f"a list of tables, each headed [[{path[-1]}]],"
    inner = section_in(field.annotation)
    if inner is None or not isinstance(path[-1], str) or len(path) == 1:
        return f"a table, headed [{path[-1]}]," if len(path) == 1 else "a table"
    return f"a table of {', '.join(inner.model_fields)}"


def plain(number: float) -> str:
    """Write a number without the `.0` that whole floats have."""
    return str(number).removesuffix(".0")


def shown(value: object) -> str:
    """Describe a value that was given: texts and numbers as they are, the rest by its kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {plain(value)}"
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 60 else value[:60] + "..."}"'
    if isinstance(value, date | time):
        return "a date or time"
    return "a table" if isinstance(value, dict) else "a list"
