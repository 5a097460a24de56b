"""Normalises request paths that differ from a route in usual ways, and writes the message of a 404.

Clients are configured with base URLs that end in a slash, contain `/v1` twice, or contain the whole
endpoint, so that their SDK appends it a second time. Such duplicates are removed before the path is looked
up among the routes. Dot segments and letter case are not changed. Percent-encoded characters are decoded
after that; a path with an encoded slash is not changed, so that it can never match a route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from urllib.parse import quote, unquote

LONGEST_SHOWN = 100
"""Most characters of a client's path in an error message."""

_TWICE = (
    (re.compile("/{2,}"), "/"),
    (re.compile(r"^(?:/openai|/v1)*(?=/deployments/)"), "/openai"),
    (re.compile(r"^(?:/openai|/v1)*/v1(?=/)"), "/v1"),
    (re.compile(r"^(?:/openai){2,}(?=/)"), "/openai"),
    (re.compile(r"/chat/completions(?:(?:/v1)*/chat/completions)+$"), "/chat/completions"),
)
_FAMILIES = (
    "completions", "embeddings", "responses", "messages", "audio", "images", "moderations", "files",
    "batches", "uploads", "fine_tuning", "assistants", "threads", "vector_stores", "realtime", "rerank",
    "score", "tokenize", "detokenize", "engines", "conversations", "containers", "videos", "evals",
)  # fmt: skip
_UNSERVED = re.compile(
    rf"(?:(?:/openai)?(?:/v\d+)?|/openai/deployments/(?!chat/)[^/]+)/(?:{'|'.join(_FAMILIES)})(?:/.*)?"
    r"|/api/(?:chat|generate|tags|show|ps|embed|embeddings|version|pull)"
    r"|/v1beta/.*|/v1/projects/.*",
    re.DOTALL,
)
"""Endpoints of OpenAI's, Anthropic's, Ollama's and Google's APIs that this gateway does not serve."""


def tidied(path: str, raw_path: bytes) -> str:
    """Return `path` without duplicate slashes, versions and endpoints.

    `raw_path` is the path before percent-decoding.
    """
    if not path.startswith("/") or not path.strip("/") or b"%2f" in raw_path.lower():
        return path
    if b"%" in raw_path:
        return unquote(_tidied(raw_path.decode("ascii", "replace")))
    return _tidied(path)


def _tidied(path: str) -> str:
    for pattern, instead in _TWICE:
        path = pattern.sub(instead, path)
    return path.rstrip("/")


def shown(path: str) -> str:
    """Return a client's path for an error message: percent-encoded and at most `LONGEST_SHOWN` characters."""
    escaped = quote(path[:LONGEST_SHOWN], safe="/-._~!$&'()*+,;=:@")
    return escaped if len(escaped) <= LONGEST_SHOWN else escaped[: LONGEST_SHOWN - 3] + "..."


def nothing_at(path: str, served: Iterable[tuple[str, str]]) -> str:
    """Return the message of a 404 for `path`, with the nearest route; `served` are methods and paths."""
    known = {path: f"{method} {path}" for method, path in served}
    usual = "/v1/chat/completions"
    if usual in known and _UNSERVED.fullmatch(path):
        return (
            f"{shown(path)} is not served by this gateway yet. "
            "It serves POST /v1/chat/completions, GET /v1/models and POST /."
        )
    if "/" in known and path and not path.strip("/"):
        return f"There is nothing at {shown(path)}. The nearest is {known['/']}."
    near = get_close_matches(path[:LONGEST_SHOWN].lower(), known.keys() - {"/"}, n=1)
    found = known[near[0]] if near else known.get(usual) or next(iter(known.values()))
    return f"There is nothing at {shown(path) or 'an empty path'}. The nearest is {found}."
