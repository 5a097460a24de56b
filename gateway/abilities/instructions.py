"""Puts instructions of the gateway into a conversation, for abilities that work by prompt."""

from __future__ import annotations

from typing import Any

from gateway.formats.openai import ChatRequest

JOINT = "\n\n"
MAX_QUOTED = 4_000
"""Characters of a rejected answer that a corrective request shows to the model."""

Members = dict[str, Any]


def messages_of(request: ChatRequest) -> list[Members]:
    """Return the messages of a request as plain objects, to be changed by replacing list items."""
    return list(request.body["messages"])


def with_instruction(messages: list[Members], text: str) -> list[Members]:
    """Return the messages with an instruction added where small models follow it best.

    That is the end of the last message if a user wrote it, else a system message before the first other one.
    """
    last = messages[-1]
    content = last.get("content")
    if last.get("role") == "user" and isinstance(content, str):
        return [*messages[:-1], {**last, "content": content + JOINT + text if content else text}]
    if last.get("role") == "user" and isinstance(content, list):
        return [*messages[:-1], {**last, "content": [*content, {"type": "text", "text": text}]}]
    first = next(
        (place for place, one in enumerate(messages) if one.get("role") not in ("system", "developer")), 0
    )
    return [*messages[:first], {"role": "system", "content": text}, *messages[first:]]


def corrected(request: ChatRequest, answer: str, complaint: str) -> ChatRequest:
    """Return the request followed by an answer that was not accepted and what is wrong with it."""
    if len(answer) > MAX_QUOTED:
        answer = f"{answer[: MAX_QUOTED // 2]} ... {answer[-MAX_QUOTED // 2 :]}"
    turns = [{"role": "assistant", "content": answer or "..."}, {"role": "user", "content": complaint}]
    return request.changed(messages=[*messages_of(request), *turns])
