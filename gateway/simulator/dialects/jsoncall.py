"""Tool calls as GLM-4 writes them: the tool's name, a newline, the arguments as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

SPECIAL = ("cogview", "simple_browser")
"""Names that the server takes for tools, offered or not; their arguments need not be JSON."""

_SEARCH = re.compile(r'search\("(.+?)"\s*,\s*recency_days\s*=\s*(\d+)\)')


def write_call(name: str, arguments: Mapping[str, object]) -> str:
    """A call as the model writes it."""
    return f"{name}\n{json.dumps(arguments, ensure_ascii=False)}"


def find_call(text: str, names: Iterable[str]) -> dict[str, str] | None:
    """The call that the server finds in an answer where these tools were offered, or None."""
    name, _, rest = text.strip().partition("\n")
    name, arguments = name.strip(), rest.strip()
    if not rest.startswith("{") or name not in {*names, *SPECIAL}:
        return None
    try:
        found: object = json.loads(arguments)
    except ValueError:
        if name not in SPECIAL:
            return None
        found = arguments
    return {"name": name, "arguments": json.dumps(_special(name, arguments, found), ensure_ascii=False)}


def _special(name: str, arguments: str, found: object) -> object:
    if name == "cogview":
        return {"prompt": arguments}
    search = _SEARCH.match(arguments) if name == "simple_browser" else None
    return {"query": search[1], "recency_days": int(search[2])} if search else found
