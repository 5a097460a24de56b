"""Paths as clients write them: which known path was meant, and what to say where there is none.

Base URLs are written with a slash at their end, with `/v1` twice, or with the whole endpoint; what comes of
it is tidied and then looked up in the exact list of doors. Nothing else is undone: no dots, no letter case.
What is encoded is decoded behind that, and a path with an encoded slash is left alone, so that it never
becomes one that counts.
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
"""Endpoints of OpenAI's, Anthropic's, Ollama's and Google's APIs that this gateway has not."""


def tidied(path: str, raw_path: bytes) -> str:
    """Give the path that was probably meant; the same where nothing is doubled.

    `raw_path` is the path as it came: what it encodes is decoded after it was tidied.
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
    """Escape and cut a client's path for an error message: ASCII without blanks and control characters."""
    escaped = quote(path[:LONGEST_SHOWN], safe="/-._~!$&'()*+,;=:@")
    return escaped if len(escaped) <= LONGEST_SHOWN else escaped[: LONGEST_SHOWN - 3] + "..."


def nothing_at(path: str, served: Iterable[tuple[str, str]]) -> str:
    """Say that there is nothing at a path, and what is near; `served` are methods and paths."""
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
