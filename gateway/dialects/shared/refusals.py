"""Decides what a backend's report of a failure means to the client: one pure reader for every dialect.

`refusal` reads an answer with another status than 200; `reported` reads a JSON value of an answer with status
200, whole or an event of a stream; `report_of` reads what a stream marks as an error. All three give the same
error for the same report: whose fault it is, the code, and the words that go on.

Nothing of a body is repeated but what it says about a field. Values that came with the request stand
in those texts in quotes, or beside them in `input` and `ctx`: none of them is read.
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
"""Most characters of a backend's own words, in an error's message."""

# From the first opening quote to the last closing one: an apostrophe inside a word is neither.
_QUOTED = re.compile(
    r"(?<!\w)'.*'(?!\w)|(?<!\w)\".*\"(?!\w)|`.*`|“.*”|‘.*’|「.*」|(?<!\w)['\"`“「].*$", re.DOTALL
)
_QUOTED_AT_MOST = 1_000
"""Characters in which quotes are looked for: each opening one costs a search for its end."""
_CAUSE = re.compile(r"(?:jinja )?exception: ?", re.IGNORECASE)
_DUMP = re.compile(
    r"; (?:messages|tools) =|\binput_value=|,? ?'?input'?: |[\s,]at row \d|For further information|Traceback"
)
"""Where a text goes over into the request's own values, or into the server's program."""
_FASTCHAT_RANGE = re.compile(r"- '(\w{1,64})'$")
_FIELD = re.compile(r"[\w.\[\]]+")
"""A name of a field: what names one speaks of the request."""
_FILTERED = "content_filter"
_FILTER_WORD = "content_policy_violation"
"""The word by which clients know a content filter's refusal."""
_ABOUT_THE_REQUEST = (400, 422, 501)
_OF_TOOL_STREAMS = (400, 422, 500, 501)
_NO_MODEL = (1211, 40301)
_ASKED_WRONGLY = "The backend does not know what the gateway asks it for; the gateway's log tells why."
_REPORTING = ("error", "error_type", "error_message", "errorcode", "errormessage")
_NOT_SO = (404, 405, 406, 410, 411, 415, 417, 421, 426, 431)
"""Statuses by which a server says that nothing is asked of it in this way, here."""
_OF_ACCOUNTS = (401, 402, 403, 407)
_BUSY = (408, 425, 429, 503, 529)


def refusal(status: int, body: bytes, field: Field = waits.no_field) -> GatewayError:
    """The error for a backend's answer with another status than 200; `field` gives its headers."""
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
"""Members by which an object with choices may report a failure all the same."""


def reported(value: Any) -> GatewayError | None:
    """The error that a JSON value of a 200 reports, in the place of an answer or of a piece of one.

    None where it is no report: an answer, or anything else. What has choices is a report only where it says
    so by `error` or `error_code`.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    if "choices" in value and _SAYING_SO.isdisjoint(value) and value.get("object") != "error":
        return None  # an answer like most: this is asked of every one
    if value.get("error") or value.get("error_code") or value.get("object") == "error":
        return _judged(None, reports.read_value(value))
    if (base := value.get("base_resp")) and isinstance(base, dict) and base.get("status_code"):  # MiniMax
        return _judged(None, reports.read_value(value))
    if "choices" in value or not _looks_like_a_report(value):
        return None
    return _judged(None, reports.read_value(value))


def report_of(text: str) -> GatewayError:
    """The error for the data of an event whose type is `error`, whatever its form."""
    return _judged(None, reports.read_text(text))


def told_in(text: str) -> GatewayError | None:
    """The error that a plain text in the place of JSON tells of; None where its words are not known."""
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[", "<")):  # JSON that broke off, or markup
        return None
    error = report_of(text[: reports.WORDS])
    return None if type(error) is UpstreamError else error


def _looks_like_a_report(value: dict[str, Any]) -> bool:
    """Whether an object without choices says that something failed, by members that no answer has."""
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


# --- whose fault it is -----------------------------------------------------------------------------


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
    """The status that a failure ought to have had.

    FastChat answers 400 whatever happened: the first three digits of its code are the true one. Where a
    server answers 5xx, or has sent 200 already, the body is the more precise.
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
    """What a code says for certain."""
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


# --- words that go on ------------------------------------------------------------------------------


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
    """A refusal of the gateway itself: the hint tells the operator what to look at."""
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
    if number == 40302:  # FastChat's text holds the value, then the name: only the name is read
        found = _FASTCHAT_RANGE.search(report.words)
        return _said("The value is out of range.", found[1] if found else None)
    if 40_000 <= number < 60_000 and report.param is None:  # its texts hold what was sent
        return _said("", None)
    words = report.words
    if report.bare and not wordings.REQUEST.search(words):
        return _said("", None)
    return _said(_cause(words), report.param, quotes=report.permitted)


def _cause(words: str) -> str:
    """What a text says itself, without a template's source, a dump of the request or a traceback."""
    *_, last = _CAUSE.split(words)
    found = _DUMP.search(last)
    return last[: found.start()] if found else last


def _filtered(report: FailureReport) -> UpstreamRejected:
    words = _clean(_cause(report.words))
    message = f"The backend refused the request: its content filter does not let it pass ({_FILTER_WORD})"
    return UpstreamRejected(f"{message}: {words}" if words else f"{message}.", code=_FILTERED)


def _clean(text: str, *, quotes: bool = False) -> str:
    """A text on one line, cut, and with nothing in it that stands in quotes unless `quotes` may stay."""
    text = text if len(text) <= _QUOTED_AT_MOST else text[:_QUOTED_AT_MOST]
    kept = text if quotes else _QUOTED.sub("…", text)
    words = " ".join(kept.split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def _said(text: str, param: str | None, *, quotes: bool = False) -> UpstreamRejected:
    words = _clean(text, quotes=quotes)
    where = f"The backend refused {param}" if param else "The backend refused the request"
    return UpstreamRejected(f"{where}: {words}" if words else f"{where}.", param=param)
