"""Converts a conversation to the form that ChatGLM3's server accepts.

Its roles are user, assistant, system and function. Its contents are texts, never null. The order and number
of messages is kept, with two exceptions. The text of an assistant message with calls becomes a message of
its own. If tools are offered, the system texts are moved into the first question, because the server then
drops the first system message (rules V1, V5, V6).
"""

from __future__ import annotations

from typing import Any

from gateway.dialects.shared import v3_tools
from gateway.errors import BadRequest
from gateway.formats.openai import ChatRequest, Message, text_of

V3Message = dict[str, Any]
"""One message as it is sent: always `role` and `content`; `name` and `function_call` where needed."""

JOINT = "\n\n"
_BLANK = " "
"""The text that is sent for an empty tool result."""


def translated(request: ChatRequest) -> list[V3Message]:
    """Return every message in ChatGLM3's form. Raises `BadRequest` with the name of the message."""
    names: dict[str, str] = {}
    messages: list[V3Message] = []
    for place, message in enumerate(request.messages):
        messages += _one(message, f"messages[{place}]", names)
        names.update((call.id, call.function.name) for call in message.calls if call.id)
    if messages[-1]["role"] == "assistant":
        raise BadRequest(
            "The last message is the assistant's; this model only answers a user message.", param="messages"
        )
    return messages


def _one(message: Message, where: str, names: dict[str, str]) -> list[V3Message]:
    text = text_of(message, where)
    match message.role:
        case "system" | "developer":
            return [_said("system", text)]
        case "assistant":
            return _assistant(message, text, where)
        case "tool" | "function":
            return [_result(message, text, where, names)]
    if message.content is None:
        raise BadRequest(f"{where}.content is required for a user message.", param=f"{where}.content")
    return [_said("user", text)]


def _said(role: str, text: str) -> V3Message:
    return {"role": role, "content": text}


def _assistant(message: Message, text: str, where: str) -> list[V3Message]:
    if not message.calls:
        return [_said("assistant", text)]
    calls = [call.function for call in message.calls]
    for call in calls:
        # The server splits the text into calls, then reads the first line of each call as its name.
        if not call.name or "\n" in call.name or v3_tools.CALLS_JOINT in call.name:
            raise BadRequest(f"{where} calls a function whose name is not a plain word.", param=where)
    content = v3_tools.CALLS_JOINT.join(map(v3_tools.written_call, calls))
    made = _said("assistant", content)
    made["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    return [_said("assistant", text), made] if text else [made]


def _result(message: Message, text: str, where: str, names: dict[str, str]) -> V3Message:
    name = message.name
    if message.role == "tool":
        name = names.get(message.tool_call_id or "")
        if name is None:
            raise BadRequest(
                f"{where}.tool_call_id is not the id of an earlier call.", param=f"{where}.tool_call_id"
            )
    result = _said("function", text or _BLANK)
    return result | {"name": name} if name else result


def folded(messages: list[V3Message]) -> list[V3Message]:
    """Return the messages with all system texts moved before the first question (rule V5).

    If the conversation ends with an assistant message, the last system text becomes the question (rule T1),
    because the server does not answer a conversation that ends with an assistant message.
    """
    texts = [message["content"] for message in messages if message["role"] == "system" and message["content"]]
    others = [message for message in messages if message["role"] != "system"]
    if others and others[-1]["role"] == "assistant":
        others.append(_said("user", texts.pop() if texts else ""))
    if not texts:
        return others or [_said("user", "")]
    system = JOINT.join(texts)
    for place, message in enumerate(others):
        if message["role"] == "user":
            question = JOINT.join(text for text in (system, message["content"]) if text)
            return [*others[:place], message | {"content": question}, *others[place + 1 :]]
    return [_said("user", system), *others]
