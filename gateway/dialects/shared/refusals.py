"""Maps a backend's report of a failure to a `GatewayError`. Pure, and used by every dialect.

`refusal` reads an answer whose status is not 200. `reported` reads a JSON value from an answer with status
200: a complete answer, or one event of a stream. `report_of` reads the data of a stream event that is
marked as an error. The same report results in the same error in all three: who is at fault, the error code,
and the message for the client.

A client gets only what a report says about a field, never values of its own request. Such values are in
quotes in the report's text, or in its members `input` and `ctx`. Neither is copied.

Source: FastAPI's 422 (pydantic 1 and 2), OpenAI's error envelope, FastChat's `ErrorResponse`, vLLM, SGLang,
llama.cpp's server, Text Generation Inference, bigmodel's list of codes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway.dialects.shared import reports, waits, wordings
from gateway.dialects.shared.finish_reasons import refuses_tool_streams
from gateway.dialects.shared.reports import FailureReport
from gateway.dialects.shared.waits import Field
from gateway.dialects.shared.wordings import Fault
from gateway.errors import (
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamTooLarge,
)

LONGEST = 200
"""Maximum number of characters of a backend's own text in an error message."""

# Matches from the first opening quote to the last closing quote. An apostrophe inside a word is not a quote.
_QUOTED = re.compile(
    r"(?<!\w)'.*'(?!\w)|(?<!\w)\".*\"(?!\w)|`.*`|“.*”|‘.*’|「.*」|(?<!\w)['\"`“「].*$", re.DOTALL
)
_QUOTED_AT_MOST = 1_000
"""Number of characters of a text that are searched for quotes.

Every opening quote costs a search for its closing quote.
"""
_CAUSE = re.compile(r"(?:jinja )?exception: ?", re.IGNORECASE)
_DUMP = re.compile(
    r"; (?:messages|tools) =|\binput_value=|,? ?'?input'?: |[\s,]at row \d|For further information|Traceback"
)
"""Matches the place where a text begins to show values of the request, or internals of the server."""
_FASTCHAT_RANGE = re.compile(r"- '(\w{1,64})'$")
_FIELD = re.compile(r"[\w.\[\]]+")
"""Matches the name of a field. A report that names a field is about the request."""
_FILTERED = "content_filter"
_FILTER_WORD = "content_policy_violation"
"""OpenAI's code for a refusal by a content filter, which clients look for in the message."""
_ABOUT_THE_REQUEST = (400, 422, 501)
_OF_TOOL_STREAMS = (400, 422, 500, 501)
_NO_MODEL = (1211, 40301)
_ASKED_WRONGLY = "The backend does not know what the gateway asks it for; the gateway's log tells why."
_REPORTING = ("error", "error_type", "error_message", "errorcode", "errormessage")
_NOT_SO = (404, 405, 406, 410, 411, 415, 417, 421, 426, 431)
"""Statuses that mean that the server does not serve this path, method or media type."""
_OF_ACCOUNTS = (401, 402, 403, 407)
_BUSY = (408, 425, 429, 503, 529)


def refusal(status: int, body: bytes, field: Field = waits.no_field) -> GatewayError:
    """Return the error for a backend's answer whose status is not 200.

    `field` returns the value of a header of the answer.
    """
    if 300 <= status < 400:
        return UpstreamMisconfigured(
            "The backend answered with a redirect, which is never followed.",
            hint=f"answered {status}, a redirect, which is never followed: is the url right?",
        )
    if status < 300:
        return UpstreamError(f"The backend failed (HTTP {status}).")
    error = _judged(status, reports.read_body(body), field)
    error.no_tool_streams = status in _OF_TOOL_STREAMS and refuses_tool_streams(body)
    return error


_SAYING_SO = frozenset({"error", "error_code", "base_resp"})
"""Members that report a failure even in an object that has choices."""


def reported(value: Any) -> GatewayError | None:
    """Return the error that a JSON value reports, or None if the value is not an error report.

    The value comes from an answer with status 200: the complete answer, or one event of a stream. An object
    with choices counts as a report only if it also has `error`, `error_code`, a failed `base_resp`, or
    "error" as its `object`.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if "choices" in value and _SAYING_SO.isdisjoint(value) and value.get("object") != "error":
        return None  # fast path: nearly every answer returns here
    if value.get("error") or value.get("error_code") or value.get("object") == "error":
        return _judged(None, reports.read_value(value))
    if (base := value.get("base_resp")) and isinstance(base, dict) and base.get("status_code"):  # MiniMax
        return _judged(None, reports.read_value(value))
    if "choices" in value or not _looks_like_a_report(value):
        return None
    return _judged(None, reports.read_value(value))


def report_of(text: str) -> GatewayError:
    """Return the error for the data of an event whose type is `error`, whatever the form of the data."""
    return _judged(None, reports.read_text(text))


def told_in(text: str) -> GatewayError | None:
    """Return the error that a plain text reports where JSON was expected.

    Returns None if the text has none of the known wordings.
    """
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[", "<")):  # JSON that broke off, or markup
        return None
    error = report_of(text[: reports.WORDS])
    return None if type(error) is UpstreamError else error


def _looks_like_a_report(value: dict[str, Any]) -> bool:
    """Return True if an object without choices has members that only error reports have."""
    value = reports.plainly_named(value)
    if value.get("success") is False or value.get("ok") is False or value.get("status") == "error":
        return True
    if value.get("type") == "error" or any(value.get(name) for name in _REPORTING):
        return True
    if any(value.get(name) for name in ("detail", "error_msg", "errmsg")):
        return "response" not in value
    failed = any(_is_failure(value.get(name)) for name in ("code", "status", "status_code", "http_code"))
    return failed and any(isinstance(value.get(name), str) for name in ("message", "msg"))


def _is_failure(code: Any) -> bool:
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) < 6 else code
    return isinstance(number, int) and not isinstance(number, bool) and number >= 400


# --- who is at fault -------------------------------------------------------------------------------


def _judged(http: int | None, report: FailureReport, field: Field = waits.no_field) -> GatewayError:
    status = _true_status(http, report)
    fault = _fault(status, report)
    if fault == "context":
        return _too_long(report)
    if fault == "filter":
        return _filtered(report)
    if fault == "request":
        return _rejected(status, report)
    if fault == "busy":
        return UpstreamBusy("The backend is busy.", retry_after=waits.rest(field, report.rest, report.words))
    if fault == "configuration":
        return _misconfigured(status, report)
    if status is None:
        failed = UpstreamError("The backend reported an error instead of an answer.")
        failed.status = 500
        return failed
    stated = "" if http is None or http == status else f", though it answered HTTP {http}"
    failed = UpstreamError(f"The backend failed (HTTP {status}{stated}).")
    failed.status = max(status, 500)
    return failed


def _true_status(http: int | None, report: FailureReport) -> int | None:
    """Return the HTTP status that fits the failure, which may differ from the status the server sent.

    FastChat sends 400 for every failure, and the first three digits of its code are the status that fits.
    If the server sent 500 or 200, a status in the body is more precise.
    """
    if report.number is not None and 40_000 <= report.number < 60_000:
        return report.number // 100
    if http is None:
        return report.status
    precise = report.status is not None and (http == 500 or report.status < 500 < http)
    return report.status if precise else http


def _fault(status: int | None, report: FailureReport) -> Fault:
    coded = _fault_of_code(report)
    if coded is not None:
        return coded
    words = report.words
    if (
        status not in (401, 402)
        and wordings.OVERFLOW.search(words)
        and not wordings.NO_OVERFLOW.search(words)
    ):
        return "context"
    if status in _BUSY:
        return "busy"
    if status in (401, 402, 407):
        return "configuration"
    if wordings.FILTERED.search(words):
        return "filter"
    if wordings.UNCONFIGURED.search(words):
        return "configuration"
    if status in (413, 414, *_ABOUT_THE_REQUEST) or wordings.REQUEST.search(words):
        return "request"
    if status is None and report.param and _FIELD.fullmatch(report.param):
        return "request"
    if status is not None and 400 <= status < 500:
        return "configuration"
    return "busy" if wordings.BUSY.search(words) else "server"


def _fault_of_code(report: FailureReport) -> Fault | None:
    """Return the fault that a code names without doubt, or None."""
    names = report.names
    if wordings.OVERFLOW_NAMES & names or (report.context and report.tokens):
        return "context"
    if wordings.FILTER_NAMES & names:
        return "filter"
    if wordings.ACCOUNT_NAMES & names:
        return "configuration"
    if minimax := next((wordings.MINIMAX[name] for name in names if name in wordings.MINIMAX), None):
        return minimax
    number = report.number or 0
    return wordings.BIGMODEL.get(number) or wordings.FASTCHAT.get(number)


# --- messages for the client -----------------------------------------------------------------------


def _too_long(report: FailureReport) -> ContextExceeded:
    context = report.context or _counted(report.words, wordings.CONTEXT_COUNTS)
    return ContextExceeded.told(context, report.tokens or _counted(report.words, wordings.TOKEN_COUNTS))


def _counted(words: str, places: Sequence[re.Pattern[str]]) -> int | None:
    for place in places:
        if found := place.search(words):
            count = int(found[1].replace(",", ""))
            return count if 0 < count < 10**10 else None
    return None


def _misconfigured(status: int | None, report: FailureReport) -> UpstreamMisconfigured:
    """Return the error for a backend that refuses the gateway itself.

    The hint tells the operator which setting to check.
    """
    answered = f"answered {status}" if status else "answered with an error"
    if (
        wordings.NO_MODEL.search(report.words)
        or "model_not_found" in report.names
        or report.number in _NO_MODEL
    ):
        return UpstreamNotFound(_ASKED_WRONGLY, hint=f"{answered}: is served_name or models right?")
    if status in _NOT_SO:
        return UpstreamNotFound(_ASKED_WRONGLY, hint=f"{answered}: is the dialect or the url right?")
    if status is not None and status not in _OF_ACCOUNTS:
        return UpstreamMisconfigured(
            f"The backend did not take the request (HTTP {status}).",
            hint=f"{answered}: is the dialect or the url right?",
        )
    return UpstreamMisconfigured(
        "The backend refused the gateway's own credentials; the gateway's log tells why.",
        hint=f"{answered}: is the backend's api_key right, and its account in order?",
    )


def _rejected(status: int | None, report: FailureReport) -> UpstreamRejected:
    if status in (413, 414):
        return UpstreamTooLarge("The backend refused the request: it is too large for that server.")
    number = report.number or 0
    if number == 40302:  # FastChat's text has the value, then the name; only the name is safe
        found = _FASTCHAT_RANGE.search(report.words)
        return _said("The value is out of range.", found[1] if found else None)
    if 40_000 <= number < 60_000 and report.param is None:  # texts with these codes quote the request
        return _said("", None)
    words = report.words
    if report.bare and not wordings.REQUEST.search(words):
        return _said("", None)
    return _said(_cause(words), report.param, quotes=report.permitted)


def _cause(words: str) -> str:
    """Return a text without template source, dumps of the request, and tracebacks."""
    *_, last = _CAUSE.split(words)
    found = _DUMP.search(last)
    return last[: found.start()] if found else last


def _filtered(report: FailureReport) -> UpstreamRejected:
    words = _clean(_cause(report.words))
    message = f"The backend refused the request: its content filter does not let it pass ({_FILTER_WORD})"
    return UpstreamRejected(f"{message}: {words}" if words else f"{message}.", code=_FILTERED)


def _clean(text: str, *, quotes: bool = False) -> str:
    """Return a text on one line, shortened to `LONGEST`. Quoted parts are removed unless `quotes` is True."""
    text = text if len(text) <= _QUOTED_AT_MOST else text[:_QUOTED_AT_MOST]
    kept = text if quotes else _QUOTED.sub("…", text)
    words = " ".join(kept.split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def _said(text: str, param: str | None, *, quotes: bool = False) -> UpstreamRejected:
    words = _clean(text, quotes=quotes)
    where = f"The backend refused {param}" if param else "The backend refused the request"
    return UpstreamRejected(f"{where}: {words}" if words else f"{where}.", param=param)
