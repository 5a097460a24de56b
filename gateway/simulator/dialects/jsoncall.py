"""Tool calls as GLM-4 writes them: the tool's name, a newline, the arguments as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping


def write_call(name: str, arguments: Mapping[str, object]) -> str:
    """A call as the model writes it."""
    return f"{name}\n{json.dumps(arguments, ensure_ascii=False)}"


def find_call(text: str, names: Iterable[str]) -> dict[str, str] | None:
    """The call of one of these tools in an answer, or None."""
    name, _, arguments = text.strip().partition("\n")
    if name.strip() not in set(names) or not arguments.lstrip().startswith("{"):
        return None
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return None
    return {"name": name.strip(), "arguments": json.dumps(parsed, ensure_ascii=False)}
