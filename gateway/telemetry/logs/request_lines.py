"""The lines of requests and of shadow copies: their fields, and a fast way to write them as JSON."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from gateway.formats import token_counts
from gateway.telemetry.comparison import ComparedAnswer, Comparison
from gateway.telemetry.logs.lines import LIMIT, timestamp, to_json
from gateway.telemetry.receipt import Receipt

MOST_FRAMES = 256
"""Maximum number of cached line templates."""


class Frames:
    """Makes the JSON lines of requests from cached templates, in a sixth of the time `JsonLines` needs.

    Many requests differ only in an id, times and counts. The JSON text of the other fields is made once and
    kept as a template. The result is equal to what `JsonLines` makes of `access_fields`.
    """

    def __init__(self) -> None:
        self._frames: dict[tuple[object, ...], str] = {}

    def line(self, r: Receipt, level: str, stamp: str) -> str | None:
        """Return the line of a request; None if the request id is unusual or a token count implausible."""
        request_id, usage = r.request_id, r.usage
        if not (request_id.isascii() and request_id.isprintable()) or len(request_id) > LIMIT:
            return None
        if '"' in request_id or "\\" in request_id:
            return None
        source = None if usage is None else usage.source
        if usage is not None and not token_counts.both_plausible(usage.prompt, usage.completion):
            return None
        group = (
            r.status, r.path, r.model, r.tenant, r.backend, source, r.outcome, r.finish,
            r.stream, r.error, r.door, r.method, r.dialect, r.left_while, r.answered, r.canary, level,
        )  # fmt: skip
        first = r.first_token
        return (self._frames.get(group) or self._frame(group, r, level)) % (
            stamp,
            request_id,
            len(r.attempts),
            to_json(r.retries) if r.retries else "[]",
            r.queue_seconds * 1000,
            r.upstream_seconds * 1000,
            "null" if first is None else "%.1f" % ((first - r.received) * 1000),
            r.seconds * 1000,
            "null" if usage is None else usage.prompt,
            "null" if usage is None else usage.completion,
            to_json(r.ignored) if r.ignored else "[]",
            to_json(r.repairs) if r.repairs else "[]",
        )

    def _frame(self, group: tuple[object, ...], receipt: Receipt, level: str) -> str:
        if len(self._frames) >= MOST_FRAMES:
            self._frames.clear()
        told = {"ts": "", "level": level, **access_fields(receipt)}
        frame = ",".join(f'"{name}":{_VARYING.get(name) or _fixed(value)}' for name, value in told.items())
        self._frames[group] = frame = "{" + frame + "}"
        return frame


_VARYING = MappingProxyType(
    {
        "ts": '"%s"',
        "request_id": '"%s"',
        "attempts": "%d",
        "retries": "%s",
        "queue_ms": "%.1f",
        "upstream_ms": "%.1f",
        "first_token_ms": "%s",
        "duration_ms": "%.1f",
        "prompt_tokens": "%s",
        "completion_tokens": "%s",
        "ignored": "%s",
        "repairs": "%s",
    }
)
"""The fields that a template leaves open, with their format."""


def _fixed(value: object) -> str:
    return to_json(value).replace("%", "%%")


def access_fields(receipt: Receipt) -> dict[str, Any]:
    """Return the fields of a request's line. The value is None for an event that did not happen."""
    usage = receipt.usage
    first = None if receipt.first_token is None else receipt.first_token - receipt.received
    return {
        "event": "request",
        "request_id": receipt.request_id,
        "door": receipt.door,
        "method": receipt.method,
        # The query string may contain a key.
        "path": receipt.path.partition("?")[0],
        "model": receipt.model,
        "answered": receipt.answered or None,
        "canary": receipt.canary and receipt.canary.result,
        "tenant": receipt.tenant or None,
        "stream": receipt.stream,
        "status": receipt.status,
        "outcome": receipt.outcome,
        "error": receipt.error or None,
        "backend": receipt.backend or None,
        "dialect": receipt.dialect or None,
        "attempts": len(receipt.attempts),
        "retries": receipt.retries,
        "queue_ms": _milliseconds(receipt.queue_seconds),
        "upstream_ms": _milliseconds(receipt.upstream_seconds),
        "first_token_ms": _milliseconds(first),
        "duration_ms": _milliseconds(receipt.seconds),
        "prompt_tokens": usage and usage.prompt,
        "completion_tokens": usage and usage.completion,
        "usage_source": usage and usage.source,
        "finish": receipt.finish or None,
        "ignored": receipt.ignored,
        "repairs": receipt.repairs,
        "left_while": receipt.left_while,
    }


def shadow_fields(comparison: Comparison) -> dict[str, Any]:
    """Return the fields of a shadow copy's line: those of the copy and those of the caller's answer."""
    caller, mine = comparison.caller, comparison.copy
    return {
        "event": "shadow",
        "request_id": comparison.request_id,
        "model": comparison.model,
        "shadow": comparison.shadow,
        "same_text": comparison.same_text,
        **_side_fields("", mine),
        **_side_fields("caller_", caller),
    }


def _side_fields(prefix: str, side: ComparedAnswer) -> dict[str, Any]:
    told = {
        "backend": side.backend or None,
        "outcome": side.outcome,
        "finish": side.finish or None,
        "characters": side.characters,
        "first_token_ms": _milliseconds(side.first_token),
        "duration_ms": _milliseconds(side.seconds),
    }
    return {prefix + name: value for name, value in told.items()}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


class Stamps:
    """Formats times like `lines.timestamp`, with a cache for the current second."""

    def __init__(self) -> None:
        self._second = -1
        self._head = ""

    def text(self, now: float) -> str:
        """Return the Unix time `now` as ISO 8601 in UTC with milliseconds."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._head = timestamp(second)[: -len("000Z")]
        return f"{self._head}{int((now - second) * 1000):03d}Z"
