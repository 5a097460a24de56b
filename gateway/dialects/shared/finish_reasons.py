"""The finish reasons of all servers, mapped to OpenAI's. One table for chunks and complete answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway.errors import UpstreamError
from gateway.formats.events import FinishReason

LONGEST_WORD = 40
"""Maximum number of characters of an unknown finish reason that are logged."""
LONGEST_REFUSAL = 1000
"""Number of bytes of a refusal that are searched."""

_SYNONYMS: Mapping[FinishReason, str] = {
    "stop": """stop eos eos_token end_token end end_turn stop_sequence stop_token stop_string stop_str
        stop_word completed complete finished finish done success normal pause_turn""",
    "length": """length limit max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens
        max_token model_length token_limit model_context_window_exceeded context_length""",
    "tool_calls": "tool_calls tool_call tool_use tools function_call function_calls",
    "content_filter": """content_filter content_filtered sensitive safety refusal blocklist prohibited_content
        spii recitation guardrail_intervened""",
}
_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {word: reason for reason, words in _SYNONYMS.items() for word in words.split()}
)
_FAILURE_WORDS = """error network_error network server_error internal_error internal_server_error timeout
    timed_out insufficient_system_resource abort aborted cancel cancelled canceled failed failure
    interrupted"""
_FAILURES = frozenset(_FAILURE_WORDS.split())
_TOOLS = re.compile(rb"tool|function")
_REFUSES = re.compile(rb"can ?not|can't|not |unsupported|only |without|incompatible|disable")
_NONE = frozenset({"", "null", "none"})


def reason_of(value: Any) -> FinishReason | None:
    """Translate a server's finish reason to OpenAI's.

    Returns None for null, "" and values that are not text. Returns "stop" for an unknown word. Raises
    `UpstreamError` for words with which a server reports that it failed.
    """
    if value is None:
        return None
    word = _word(value)
    if word in _FAILURES:
        raise UpstreamError("The backend ended its answer with an error.")
    return None if word in _NONE else _REASONS.get(word, "stop")


def unknown_word(value: Any) -> str:
    """Return a finish reason that is not in the table, shortened; "" for a known finish reason."""
    word = _word(value)
    if word in _REASONS or word in _NONE or word in _FAILURES:
        return ""
    return word[:LONGEST_WORD]


def refuses_tool_streams(body: bytes) -> bool:
    """Return True if a refusal says that the server does not stream when tools are offered."""
    words = body[:LONGEST_REFUSAL].lower()
    return b"stream" in words and _TOOLS.search(words) is not None and _REFUSES.search(words) is not None


def _word(value: Any) -> str:
    if isinstance(value, dict):  # SGLang's own form: {"type": "stop", "matched": 2}
        value = value.get("type")
    return value.strip().lower() if isinstance(value, str) else ""
