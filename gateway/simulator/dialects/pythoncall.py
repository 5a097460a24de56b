"""Tool calls as ChatGLM3 writes them, and as its servers read them: text that is run as Python.

The servers evaluate the model's text. A simulator reads literals only; what is no literal fails, as most of
what is not a call fails there.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping

from gateway.simulator.brain import STOP_TOKEN

TOOLS_TEXT = "Answer the following questions as best as you can. You have access to the following tools:"
"""What the servers tell their model before the tools, word for word: it was trained on it."""


def write_call(name: str, arguments: Mapping[str, object]) -> str:
    """A call as the model writes it, with the token that ends it."""
    return f"{fenced(name, arguments)}{STOP_TOKEN}"


def fenced(name: str, arguments: Mapping[str, object]) -> str:
    """A call without the token that ends it."""
    pairs = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}\n ```python\ntool_call({pairs})\n```"


def read_call(text: str) -> dict[str, str] | None:
    """The function_call that the servers' own parsing finds; None = plain text. Raises where it raises."""
    found: dict[str, str] | None = None
    for part in text.split("<|assistant|>"):
        name, content = part.split("\n", maxsplit=1)
        found = None
        if name.strip():
            code = "\n".join(content.split("\n")[1:-1])
            found = {"name": name.strip(), "arguments": json.dumps(_evaluate(code), ensure_ascii=False)}
    return found


def find_call(text: str) -> dict[str, str] | None:
    """The call in an answer, or None where the parsing finds none or fails."""
    try:
        return read_call(text)
    except (ValueError, TypeError, SyntaxError):
        return None


def _evaluate(code: str) -> object:
    tree = ast.parse(code.strip(), mode="eval").body
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "tool_call":
        if tree.args:
            raise TypeError("tool_call takes keywords")
        return {str(word.arg): ast.literal_eval(word.value) for word in tree.keywords}
    value: object = ast.literal_eval(tree)
    return value
