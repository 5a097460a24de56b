"""Servers that speak OpenAI's chat API by themselves: vLLM, SGLang, llama.cpp, FastChat and others.

The body is passed on as it was received, except for the model's name and the request for usage. Members
that the gateway does not know are passed on in both directions. Deviations from OpenAI's API in answers are
repaired (`shared/state.py`). Source: OpenAI's API description; FastChat `serve/openai_api_server.py` for
its forms of errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from gateway.dialects.base import ByteDecoder, Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget
from gateway.dialects.shared.answering import answer_of
from gateway.dialects.shared.counting import count_messages
from gateway.dialects.shared.passing import PassingDecoder
from gateway.dialects.shared.reading import TypedReader
from gateway.errors import BadRequest
from gateway.formats import jsontext, splice
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest, Message

_USAGE_WANTED = b'"stream_options":{"include_usage":true}'
_LIMITS = ("max_completion_tokens", "max_tokens")
_NO_NAMES: frozenset[str] = frozenset()
_NO_CHANGES: Mapping[str, Any] = {}
_STEERING = frozenset(
    {"api_base", "base_url", "api_key", "api_version", "api_type", "headers", "extra_headers", "extra_query"}
    | {"extra_body", "custom_llm_provider"}
)
"""Members by which a body could choose another server or key at some gateways. They are never passed on."""


class OpenAIDialect(Dialect):
    """Pass-through: the server itself refuses what it cannot do."""

    name = "openai"
    honours = frozenset({"stop", "n", "tools", "structured", "vision", "named_tool", "tool_choice"})

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        if request.tool_choice is not None or request.function_call is not None:
            allowed.check_choice(request)
        if request.n > profile.max_n:
            raise BadRequest(f"n: this model gives at most {profile.max_n} choices.", param="n")
        if profile.context is not None:
            budget.require_room(_count(request), profile.context)
        limited = not (
            profile.max_output is profile.context is profile.max_temperature is request.total_length
        )
        changes = _changes(request, profile) if limited else _NO_CHANGES
        body = None if changes else _as_received(request, profile, stream)
        return Outgoing(
            path="/v1/chat/completions",
            body=body or _written(request, profile, stream, changes),
            streams=stream,
            prompt=partial(_count, request),
            budget=(changes and _limit(changes)) or request.max_completion_tokens or request.max_tokens,
            tool_names=_names(request) if request.tools or request.functions else _NO_NAMES,
            ignored=_unsent(request),
            abandon="close",
            passes="openai-chat" in request.accepts,
            model=request.model or profile.name or profile.model,
            usage_wanted=request.include_usage,
            chunks=request.stream,
            legacy=request.legacy_functions,
            several=request.n > 1,
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        return answer_of(outgoing, body)

    def decoder(self, outgoing: Outgoing) -> ByteDecoder:
        return PassingDecoder(outgoing) if outgoing.passes else TypedReader(outgoing)


def _as_received(request: ChatRequest, profile: Profile, stream: bool) -> bytes | None:
    """Return the client's own bytes with the model's name and the request for usage changed.

    Return None if more has to be changed.
    """
    raw, body = request.raw, request.body
    if not raw or request.stream is not stream or not _STEERING.isdisjoint(body):
        return None
    if stream and not request.include_usage:
        if "stream_options" in body:
            return None
        raw = splice.with_member(raw, _USAGE_WANTED)
    elif not stream and "stream_options" in body:
        return None
    return raw if request.model == profile.model else splice.with_model(raw, body, profile.model)


def _written(request: ChatRequest, profile: Profile, stream: bool, changes: Mapping[str, Any]) -> bytes:
    body = {
        **{name: value for name, value in request.body.items() if name not in _STEERING},
        "model": profile.model,
        **changes,
        **_streaming(request, stream),
    }
    sent = {name: value for name, value in body.items() if value is not None}
    return jsontext.write(sent, large=request.large)


def _unsent(request: ChatRequest) -> tuple[str, ...]:
    """Return the members that are not passed on: `_STEERING`, and unknown ones of the native door."""
    native = request.unread if request.paired else ()
    if _STEERING.isdisjoint(request.body):
        return native
    return (*sorted(_STEERING.intersection(request.body)), *native)


def _limit(changes: Mapping[str, Any]) -> int | None:
    return changes.get("max_completion_tokens") or changes.get("max_tokens")


def _names(request: ChatRequest) -> frozenset[str]:
    return frozenset(tool.function.name for tool in request.offered if tool.function)


def _count(request: ChatRequest) -> int:
    texts = [text for message in request.messages for text in _texts(message)]
    offered = [*request.body.get("tools", ()), *request.body.get("functions", ())]
    return count_messages(texts, offered)


def _texts(message: Message) -> list[str]:
    """Return the texts of a message that count as tokens; other parts are left out."""
    content = message.content
    parts = [content] if isinstance(content, str) else [part.text or "" for part in content or ()]
    return ["".join(parts)]


def _changes(request: ChatRequest, profile: Profile) -> dict[str, Any]:
    """Return the members that are sent with another value than the client's."""
    return _limits(request, profile) | _temperature(request, profile)


def _limits(request: ChatRequest, profile: Profile) -> dict[str, Any]:
    """Return the token limits that differ from the client's, because the model's limits are lower.

    A client that sets no limit gets none, except native clients, whose limit includes the prompt.
    """
    if request.total_length is not None:
        prompt_tokens = _count(request)
        wanted = budget.wanted_output(request, profile, prompt_tokens)
        return {"max_tokens": budget.clamped(wanted, prompt_tokens, profile.context)}
    most, context = profile.max_output, profile.context
    if most is None and context is None:
        return {}
    prompt_tokens = _count(request) if context is not None else 0
    asked = {name: request.body[name] for name in _LIMITS if name in request.body}
    given = {
        name: limit and budget.clamped(min(limit, most) if most else limit, prompt_tokens, context)
        for name, limit in asked.items()
    }
    return {name: limit for name, limit in given.items() if limit != asked[name]}


def _temperature(request: ChatRequest, profile: Profile) -> dict[str, Any]:
    most = profile.max_temperature
    return {"temperature": most} if most is not None and (request.temperature or 0) > most else {}


def _streaming(request: ChatRequest, stream: bool) -> dict[str, Any]:
    """Return the members about streaming; the value None removes a member."""
    if not stream:
        return {"stream": None, "stream_options": None}
    given = request.body.get("stream_options", {})
    options = {name: value for name, value in given.items() if value is not None}
    return {"stream": True, "stream_options": {**options, "include_usage": True}}
