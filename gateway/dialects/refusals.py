"""What a backend's refusal means to the client: one pure function over status and body, for every dialect.

Nothing of a backend's body is echoed but what validators say about a field. Values that came with the
request stand in those texts in quotes, or beside them in `input` and `ctx`: none of them is read.
Source: FastAPI's 422 (pydantic 1 and 2), OpenAI's error envelope, FastChat's `ErrorResponse`.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.errors import (
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRejected,
)
from gateway.wire import jsontext

LONGEST = 200
"""Most characters of a backend's own words, in an error's message."""
LONGEST_WAIT = 60.0
"""Most seconds a backend may tell us to stay away."""

LONGEST_SEARCHED = 4096
"""Most bytes of a body in which a model is looked for."""

_SECONDS = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")
_TOO_LONG = re.compile(r"maximum context length|context window|context_length_exceeded", re.IGNORECASE)
# From the first opening quote to the last closing one: an apostrophe inside a word is neither.
_QUOTED = re.compile(
    r"(?<!\w)'.*'(?!\w)|(?<!\w)\".*\"(?!\w)|`.*`|“.*”|‘.*’|「.*」|(?<!\w)['\"`“「].*$", re.DOTALL
)
_NO_MODEL = re.compile(
    r"\bmodel\b.{0,300}\b(?:not exist|not found|not supported|unknown)", re.IGNORECASE | re.DOTALL
)
_OUR_FAULT = (401, 403)
_FILTERED = "content_filter"
"""The one word of a refusal that programs ask for, besides the context's length."""
_PERMITTED = ("literal_error", "enum", "value_error.const", "type_error.enum")
"""Types of pydantic's complaints whose text quotes the values that would be right."""
_FASTCHAT_RANGE = re.compile(r"- '(\w{1,64})'$")


def refusal(
    status: int, body: bytes, retry_after: str | None = None, date: str | None = None
) -> GatewayError:
    """The error for a backend's answer with another status than 200.

    `retry_after` and `date` are the texts of those headers.
    """
    if status in (400, 422):
        return _rejected(_parsed(body), seconds(retry_after, date))
    if status in (429, 503):
        return UpstreamBusy("The backend is busy.", retry_after=seconds(retry_after, date))
    if status in _OUR_FAULT:
        return UpstreamError("The backend refused the gateway's own credentials.")
    if status in (404, 405):
        return _not_found(status, body)
    if 300 <= status < 400:
        return UpstreamError("The backend answered with a redirect, which is never followed.")
    return UpstreamError(f"The backend failed (HTTP {status}).")


def _not_found(status: int, body: bytes) -> UpstreamNotFound:
    """Nothing at this path, or no model of this name: both are faults of our configuration."""
    named = _NO_MODEL.search(body[:LONGEST_SEARCHED].decode("utf-8", "replace"))
    what = "served_name or models" if named else "the dialect or the url"
    return UpstreamNotFound(
        "The backend does not know what the gateway asks it for; the gateway's log tells why.",
        hint=f"answered {status}: is {what} right?",
    )


def seconds(header: str | None, date: str | None = None) -> float | None:
    """Retry-After in seconds, between 0 and `LONGEST_WAIT`; None for what is neither a number nor a date.

    A moment is held against the server's own clock, which is what its `date` header shows; without one the
    longest wait is the only one that is surely not too short.
    """
    if header is None:
        return None
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return min(max(float(text), 0.0), LONGEST_WAIT)
    then, now = _moment(header), _moment(date)
    if then is None:
        return None
    return LONGEST_WAIT if now is None else min(max((then - now).total_seconds(), 0.0), LONGEST_WAIT)


def _moment(header: str | None) -> datetime | None:
    """An HTTP date; None for anything else. One without a zone is in none we know."""
    try:
        moment = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None


def _parsed(body: bytes) -> Any:
    try:
        return jsontext.read_lenient(body)
    except ValueError:
        return None


def _rejected(answer: Any, retry_after: float | None) -> GatewayError:
    match answer:
        case {"object": "error", "code": code}:
            return _fastchat(code, answer.get("message"), retry_after)
        case {"error": dict() as error}:
            return _openai(error)
        case {"detail": [dict() as problem, *_]}:
            return _validation(problem)
        case {"detail": str() as detail}:
            return _said(detail, None)
    return UpstreamRejected("The backend refused the request.")


def _validation(problem: dict[str, Any]) -> UpstreamRejected:
    """One complaint of pydantic's. Quotes stay only where they hold what is permitted, not what was sent."""
    message, loc = problem.get("msg"), problem.get("loc")
    steps = [step for step in loc if isinstance(step, str | int)] if isinstance(loc, list) else []
    steps = steps[1:] if steps[:1] == ["body"] else steps
    # A body that is no JSON is located by its character, which is no field.
    param = jsontext.name_of(tuple(steps[:8])) if steps and isinstance(steps[0], str) else None
    text = message if isinstance(message, str) else ""
    return _said(text, param, quotes=problem.get("type") in _PERMITTED)


def _openai(error: dict[str, Any]) -> GatewayError:
    message, param = error.get("message"), error.get("param")
    text = message if isinstance(message, str) else ""
    if error.get("code") == "context_length_exceeded" or _TOO_LONG.search(text):
        return _too_long()
    named = param[:64] if isinstance(param, str) and param else None
    return _said(text, named, code=_FILTERED if error.get("code") == _FILTERED else None)


def _fastchat(code: Any, message: Any, retry_after: float | None) -> GatewayError:
    """FastChat answers 400 whatever happened; the first three digits of its code are the true status."""
    status = code // 100 if isinstance(code, int) else 0
    if code == 40303:
        return _too_long()
    if code == 40302:  # its text holds the value, then the name: only the name is read
        found = _FASTCHAT_RANGE.search(message) if isinstance(message, str) else None
        return _said("The value is out of range.", found[1] if found else None)
    if status == 429:
        return UpstreamBusy("The backend is busy.", retry_after=retry_after)
    if status >= 500:
        return UpstreamError("The backend failed and answered HTTP 400.")
    if status == 401 or code == 40301:
        return UpstreamError("The backend refused the gateway's own credentials or model name.")
    return UpstreamRejected("The backend refused the request.")


def _too_long() -> ContextExceeded:
    return ContextExceeded(
        "The messages and the answer asked for do not fit into this model's context. Shorten the messages.",
        param="messages",
    )


def _said(text: str, param: str | None, *, quotes: bool = False, code: str | None = None) -> UpstreamRejected:
    kept = text if quotes else _QUOTED.sub("…", text)
    words = " ".join(kept.split())
    words = words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"
    where = f"The backend refused {param}" if param else "The backend refused the request"
    return UpstreamRejected(f"{where}: {words}" if words else f"{where}.", param=param, code=code)
