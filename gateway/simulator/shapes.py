"""Bodies that several OpenAI-like ChatGLM servers share."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping

from gateway.simulator.brain import BrainTool
from gateway.simulator.exchange import Reply, json_reply
from gateway.simulator.program import now

_LETTERS = string.ascii_letters + string.digits


def models_reply(name: str) -> Reply:
    """`GET /v1/models` with its one card."""
    card = {"id": name, "object": "model", "created": now(), "owned_by": "owner"}
    return json_reply(
        {"object": "list", "data": [{**card, "root": None, "parent": None, "permission": None}]}
    )


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts, in the order that these servers give them."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def random_id(prefix: str, length: int) -> str:
    """A name that nothing else has."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(length))


def offered(tools: object) -> list[BrainTool]:
    """The tools of a request, nested as OpenAI has them or flat as ChatGLM3 was trained on."""
    found = (
        [_tool(entry) for entry in tools if isinstance(entry, Mapping)] if isinstance(tools, Iterable) else []
    )
    return [tool for tool in found if tool.name]


def _tool(entry: Mapping[str, object]) -> BrainTool:
    nested = entry.get("function")
    inner = nested if isinstance(nested, Mapping) else entry
    parameters = inner.get("parameters")
    return BrainTool(
        str(inner.get("name") or ""),
        str(inner.get("description") or ""),
        parameters if isinstance(parameters, Mapping) else {},
    )
