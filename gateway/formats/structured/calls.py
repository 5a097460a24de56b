r"""Finds function calls in the text of a model that was told about functions in words.

Models write calls in many forms, and only these are read; nothing is evaluated:

    {"name": "f", "arguments": {...}}      JSON, in any form that `recovery` reads; other usual member names;
                                           inside of "tool_calls", "function_call" or a list; {"f": {...}}
    <tool_call>{...}</tool_call>           tags around that JSON
    <tool_call>f<arg_key>a</arg_key>       GLM-4.5's own form
        <arg_value>1</arg_value></tool_call>
    Action: f / Action Input: {...}        ReAct, in English or Chinese
    f\n{...}                                GLM-4's own form
    f(a=1)                                 Python, with literal arguments

A call is found only if its name is one of the offered functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias

from gateway.formats.structured.recovery import NOTHING, bracketed, repaired, strict

MAX_CALLS = 32
"""Most calls of one answer."""
MAX_PYTHON = 4_096
"""Longest list of arguments in Python, in characters."""
MAX_READ = 65_536
"""Longest text, in characters, in which calls are looked for."""

Form: TypeAlias = Literal["json", "tags", "glm-xml", "react", "glm4", "python"]
EVERY_FORM: frozenset[Form] = frozenset({"json", "tags", "glm-xml", "react", "glm4", "python"})

_NAMES = ("name", "tool", "function", "tool_name", "function_name", "action", "api", "工具", "函数", "名称")
_ARGUMENTS = (
    "arguments", "args", "parameters", "params", "input", "action_input", "tool_input", "kwargs", "参数",
)  # fmt: skip
_WRAPPERS = ("tool_calls", "function_call", "tool_call", "function", "calls", "functions", "工具调用")
_TAG = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_ARGUMENT_TAGS = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL)
_ACTION = re.compile(
    r"^[ \t]*(?:Action|动作|行动|操作)[ \t]*[:：][ \t]*(?P<name>[^\n]{1,80})\n"
    r"\s*(?:Action[ _]Input|动作输入|行动输入|操作输入|输入|参数)[ \t]*[:：](?P<input>.*?)"
    r"(?=\n[ \t]*(?:Observation|观察|结果|Action|动作|行动)[ \t]*[:：]|\Z)",
    re.MULTILINE | re.DOTALL,
)
_FENCE_BEFORE = re.compile(r"(?:```[\w+-]*\s*)\Z")


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call: the name of an offered function and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallReading:
    """What a text says: the calls in order, the text before the first one, and what is wrong.

    `fault` is "" or says, in words for the model, why something that looks like a call is none.
    """

    text: str
    calls: tuple[FoundCall, ...] = ()
    fault: str = ""


def read_calls(text: str, offered: Collection[str], forms: Collection[Form] = EVERY_FORM) -> CallReading:
    """Return the calls in a text. `offered` are the names of the functions; `forms` those that are read."""
    if len(text) > MAX_READ or not offered:
        return CallReading(text)
    finder = _CallFinder(offered, forms)
    for find in (finder.tags, finder.react, finder.json, finder.glm4, finder.python):
        found = list(find(text))
        if found:
            start = min(place for place, _ in found)
            calls = tuple(call for _, call in found)[:MAX_CALLS]
            return CallReading(_FENCE_BEFORE.sub("", text[:start]).rstrip(), calls)
    return CallReading(text, fault=finder.fault)


Found: TypeAlias = Iterator[tuple[int, FoundCall]]
"""Where each call begins in the text, and the call."""


class _CallFinder:
    def __init__(self, offered: Collection[str], forms: Collection[Form]) -> None:
        self._forms = forms
        self._offered = offered
        self._by_simple_name = {_simple(name): name for name in offered}
        self.fault = ""

    def tags(self, text: str) -> Found:
        if "tags" not in self._forms and "glm-xml" not in self._forms:
            return
        for tag in _TAG.finditer(text):
            inner = tag[1].strip()
            calls = list(self._of_tag(inner))
            if not calls:
                self.fault = self.fault or "the call in <tool_call> cannot be read"
            yield from ((tag.start(), call) for call in calls)

    def _of_tag(self, inner: str) -> Iterator[FoundCall]:
        name, mark, rest = inner.partition("<arg_key>")
        if "glm-xml" in self._forms and (mark or self._offered_name(inner)):
            if known := self._offered_name(name):
                pairs = _ARGUMENT_TAGS.findall(mark + rest)
                yield FoundCall(known, {key.strip(): _value(value) for key, value in pairs})
            return
        if "tags" in self._forms:
            yield from (call for _, call in self._json_of(inner))

    def json(self, text: str) -> Found:
        if "json" in self._forms:
            yield from self._json_of(text)

    def _json_of(self, text: str) -> Found:
        for start, end in bracketed(text):
            for value in self._values(text[start:end]):
                calls = list(self._of_value(value))
                if calls:
                    yield from ((start, call) for call in calls)
                    break

    def _values(self, part: str) -> Iterator[Any]:
        value = strict(part)
        if value is not NOTHING:
            yield value
        else:
            yield from repaired(part)

    def _of_value(self, value: Any, depth: int = 4) -> Iterator[FoundCall]:
        if isinstance(value, list):
            for one in value[:MAX_CALLS]:
                if depth and isinstance(one, dict | list):
                    yield from self._of_value(one, depth - 1)
            return
        if not isinstance(value, dict):
            return
        call = self._of_object(value)
        if call is not None:
            yield call
            return
        for name in _WRAPPERS:
            if depth and isinstance(value.get(name), dict | list):
                yield from self._of_value(value[name], depth - 1)
                return

    def _of_object(self, value: dict[str, Any]) -> FoundCall | None:
        arguments = next((value[name] for name in _ARGUMENTS if name in value), None)
        for name in _NAMES:
            said = value.get(name)
            if not isinstance(said, str):
                continue
            known = self._offered_name(said)
            if known is None:
                if isinstance(arguments, dict):
                    self.fault = self.fault or f"there is no tool {said[:64]!r}"
                continue
            if not any(one in value for one in _ARGUMENTS):
                arguments = {key: one for key, one in value.items() if key not in (name, "type", "id")}
            if (given := _arguments(arguments)) is not None:
                return FoundCall(known, given)
            self.fault = self.fault or f"the arguments of {known} are not a JSON object"
        if len(value) == 1:
            ((key, inner),) = value.items()
            known = self._offered_name(key)
            if known is not None and isinstance(inner, dict):
                return FoundCall(known, inner)
        return None

    def react(self, text: str) -> Found:
        if "react" not in self._forms:
            return
        for found in _ACTION.finditer(text):
            name = self._offered_name(found["name"])
            if name is None:
                self.fault = self.fault or f"there is no tool {found['name'].strip()[:64]!r}"
                continue
            given = _arguments(_fenced(found["input"]))
            if given is None:
                self.fault = self.fault or f"the arguments of {name} are not a JSON object"
                continue
            yield found.start(), FoundCall(name, given)

    def glm4(self, text: str) -> Found:
        if "glm4" not in self._forms:
            return
        first, newline, rest = text.strip().partition("\n")
        name = self._offered_name(first)
        if newline and name is not None and (given := _arguments(_fenced(rest))) is not None:
            yield len(text) - len(text.lstrip()), FoundCall(name, given)

    def python(self, text: str) -> Found:
        if "python" not in self._forms:
            return
        names = "|".join(re.escape(name) for name in self._offered)
        calls = re.finditer(rf"^[ \t]*({names})[ \t]*\(", text, re.MULTILINE)
        for found in islice(calls, MAX_CALLS):
            end = _end_of_call(text, found.end() - 1)
            if (given := _python_arguments(text[found.end() - 1 : end])) is not None:
                yield found.start(), FoundCall(found[1], given)

    def _offered_name(self, said: str) -> str | None:
        said = said.strip().strip("`\"'*。. ").removeprefix("functions.")
        if said in self._offered:
            return said
        return self._by_simple_name.get(_simple(said))


def _simple(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name).lower()


def _fenced(text: str) -> str:
    """Return a text without the code fence around it."""
    text = text.strip()
    if not text.startswith("```"):
        return text
    return re.sub(r"^```[\w+-]*\s*|\s*```$", "", text)


def _arguments(given: Any) -> dict[str, Any] | None:
    """Return arguments that came as an object or as its text; None if they are neither."""
    if given is None or given == "":
        return {}
    if isinstance(given, dict):
        return given
    if not isinstance(given, str):
        return None
    value = strict(given.strip())
    if isinstance(value, dict):
        return value
    for start, end in bracketed(given):
        for one in repaired(given[start:end]):
            if isinstance(one, dict):
                return one
    return None


def _value(text: str) -> Any:
    """Return the value of an argument between tags: JSON if it is JSON, else the text."""
    value = strict(text.strip())
    return text.strip() if value is NOTHING else value


def _end_of_call(text: str, start: int) -> int:
    """Return the place behind the bracket that closes the one at `start`."""
    depth, quote, escaped = 0, "", False
    for place in range(start, min(len(text), start + MAX_PYTHON)):
        char = text[place]
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)


def _python_arguments(brackets: str) -> dict[str, Any] | None:
    """Return the keyword arguments of a call in Python; None if it has others, or no literals."""
    try:
        call = ast.parse(f"f{brackets}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        return {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None}
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
