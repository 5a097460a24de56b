"""ChatGLM3's tools: how they are offered, written into the history, and read from an answer.

The model was trained on flat descriptions of functions. It writes a call as the name, a newline and a
fenced line of Python, `tool_call(city='Paris')`. ChatGLM3's own server evaluates that line. Here the line
is only parsed, and only literals are accepted. Source: ChatGLM3 `openai_api_demo/utils.py` and
`api_server.py`.
"""

from __future__ import annotations

import ast
import keyword
import math
import warnings
from collections.abc import Collection
from typing import Any

from gateway.dialects.shared.allowed import check_functions
from gateway.errors import BadRequest, UnsupportedParameter
from gateway.formats import jsontext
from gateway.formats.events import ToolPiece
from gateway.formats.openai import ChatRequest, FunctionCall, FunctionDefinition

CALLS_JOINT = "<|assistant|>"
"""The mark at which the server splits one assistant message into several calls."""

_FENCE = "```"
_LANGUAGES = ("", "python")
_LONGEST = 1 << 16
"""Maximum number of characters of code that is parsed. Longer code is not a call."""


def offered(request: ChatRequest) -> list[FunctionDefinition]:
    """Return the functions to offer (rule V4).

    There are none under `tool_choice` "none", and only the named function if the client names one. Raises
    `UnsupportedParameter` for a tool that is not a function, `BadRequest` for a name that is not offered.
    """
    if request.tool_mode == "none":
        return []
    check_functions(request)
    functions = [_function_of(tool.function, tool.type, place) for place, tool in enumerate(request.offered)]
    name = request.named_tool
    if name is None:
        return functions
    named = [function for function in functions if function.name == name]
    if not named:
        param = "function_call" if request.legacy_functions else "tool_choice"
        raise BadRequest(f"{param} names a function that is not among those offered.", param=param)
    return named[:1]


def _function_of(function: FunctionDefinition | None, kind: str, place: int) -> FunctionDefinition:
    if kind != "function" or function is None:
        raise UnsupportedParameter(
            f"This model takes functions only, not a tool of type {kind[:32]!r}.",
            param=f"tools[{place}].type",
        )
    return function


def flat(function: FunctionDefinition) -> dict[str, Any]:
    """Return a function in the form that ChatGLM3 was trained on.

    It always has the same three members, and none of them is null.
    """
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or {"type": "object", "properties": {}},
    }


def nested(function: FunctionDefinition) -> dict[str, Any]:
    """Return a function in OpenAI's form."""
    return {"type": "function", "function": flat(function)}


def written_call(call: FunctionCall) -> str:
    """Return a call of the history in the form in which the model writes calls (rule V6)."""
    return f"{call.name}\n{_FENCE}python\n{_code(call.arguments)}\n{_FENCE}"


def _code(arguments: str) -> str:
    values = arguments_object(arguments.strip() or "{}")
    if values is None or not all(is_parameter(name) for name in values):
        return arguments.replace(CALLS_JOINT, r"<\u007cassistant|>")
    code = ", ".join(f"{name}={value!r}" for name, value in values.items())
    # The server would split the message at this mark. Python reads the escape as the same text.
    return f"tool_call({code})".replace(CALLS_JOINT, r"<\x7cassistant|>")


def is_parameter(name: str) -> bool:
    """Return True if the name is valid as a keyword argument in Python."""
    return name.isidentifier() and not keyword.iskeyword(name)


def arguments_object(text: str) -> dict[str, Any] | None:
    """Return the arguments as an object, or None if they are not the strict JSON of an object."""
    try:
        return jsontext.read_object(jsontext.well_formed(text).encode())
    except BadRequest:
        return None


def read_call(text: str, names: Collection[str]) -> ToolPiece | None:
    """Return the call in an answer that is a call of an offered function and nothing else (rule V7)."""
    name, _, rest = text.partition("\n")
    code = _fenced(rest)
    if name.strip() not in names or code is None:
        return None
    values = keyword_values(code)
    return None if values is None else ToolPiece(0, jsontext.write(values).decode(), name=name.strip())


def _fenced(text: str) -> str | None:
    opening, _, body = text.strip().partition("\n")
    language = opening.removeprefix(_FENCE).strip()
    if not opening.startswith(_FENCE) or language not in _LANGUAGES or not body.endswith(_FENCE):
        return None
    return body.removesuffix(_FENCE).strip()


def keyword_values(code: str) -> dict[str, Any] | None:
    """Return the arguments of `tool_call(name=literal, ...)`, or None for any other code.

    Nothing is evaluated.
    """
    if len(code) > _LONGEST:
        return None
    try:
        call = _parsed(code)
        return _values(call) if _is_tool_call(call) else None
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # hostile code can raise any of them
        return None


def _parsed(code: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the model's strings
        return ast.parse(code, mode="eval").body


def _is_tool_call(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="tool_call"), args=[]):
            return True
    return False


def _values(call: ast.expr) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for argument in call.keywords if isinstance(call, ast.Call) else ():
        if argument.arg is None or argument.arg in values:
            raise ValueError("not plain keyword arguments")
        values[argument.arg] = _literal(argument.value)
    return values


def _literal(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value=str() | int() | None as value):
            return value
        case ast.Constant(value=float() as value) if math.isfinite(value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -_literal(node.operand)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=items):
            return {_key(key): _literal(item) for key, item in zip(keys, items, strict=True)}
    raise ValueError("not a literal")


def _key(node: ast.expr | None) -> str:
    match node:
        case ast.Constant(value=str() as key):
            return key
    raise ValueError("not a literal key")
