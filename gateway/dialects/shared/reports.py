"""Parses a backend's report of a failure, in any known form, into a `FailureReport`.

Makes no decisions.

Known forms: OpenAI's envelope; the flat `{"object": "error", "message", "code"}` of older vLLM, SGLang,
LMDeploy and FastChat; llama.cpp's `exceed_context_size_error` with its counts; bigmodel's numbers (`1261`);
TGI's `error` next to `error_type`; `error_code`/`error_message`; FastAPI's `detail` as text, list or
object; a list that holds one error; JSON inside a text, also after a prefix; pydantic's errors in Python
syntax; plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from gateway.dialects.shared import waits
from gateway.formats import jsontext

WORDS = 2_000
"""Maximum number of characters of a report's text that are kept, half from its start, half from its end."""
_NESTING = 8
"""Maximum depth to which reports inside of reports are read."""
_LONGEST_TEXT = 65_536
"""Maximum length, in characters, of a text that is searched for JSON."""

_WORDS = (
    "message", "msg", "error_message", "error_msg", "errormessage", "errmsg", "description", "faultstring",
)  # fmt: skip
_INNER = ("error", "detail", "errors", "message", "msg", "base_resp", "response", "fault")
_NAMES = (
    "code",
    "type",
    "error_code",
    "error_type",
    "err_code",
    "errcode",
    "errorcode",
    "status",
    "status_code",
    "http_code",
    "error",
)
_DIGITS = re.compile(r"\d{3,5}")
_STATUS_IN_WORDS = re.compile(
    r"\W{0,3}(?:error code|status[_ ]?code|http(?: status)?|status)\W{1,3}([45]\d\d)\b", re.IGNORECASE
)
_PYTHON_COMPLAINT = re.compile(
    r"""'type': '([\w.]{1,64})', 'loc': \(([^()]{0,200})\), 'msg': (?:'([^']{0,300})'|"([^"]{0,300})")"""
)
_JSON = re.compile(r"^\s*[\[\"]|\{")
_STEP = re.compile(r"'([^']{1,64})'|(\d{1,6})")
_MARKUP = re.compile(
    r"[\s\ufeff]*<(?:[!?]|/?(?:html|head|title|body|center|h\d|p|div|pre|span|b|br|hr|script|style|table|svg)\b)",
    re.IGNORECASE,
)

_STATUS_OF_NAME: Mapping[str, int] = MappingProxyType(
    {
        "badrequesterror": 400,
        "bad_request": 400,
        "bad_request_error": 400,
        "invalid_request": 400,
        "invalid_request_error": 400,
        "invalidrequesterror": 400,
        "invalid_argument": 400,
        "invalidparameter": 400,
        "exceed_context_size_error": 400,
        "validation": 422,
        "validationerror": 400,
        "unprocessableentityerror": 422,
        **dict.fromkeys(
            (
                *("invalid_value", "invalid_type", "invalid_json", "unsupported_value"),
                *("unsupported_parameter", "unknown_parameter", "missing_required_parameter"),
                *("integer_above_max_value", "integer_below_min_value", "decimal_above_max_value"),
                *("decimal_below_min_value", "string_above_max_length", "array_above_max_length"),
                *("invalid_image_url", "invalid_image", "invalid_image_format", "invalid_base64_image"),
            ),
            400,
        ),
        "template_error": 422,
        "not_supported_error": 501,
        "notimplementederror": 501,
        "authenticationerror": 401,
        "authentication_error": 401,
        "permissiondeniederror": 403,
        "permission_error": 403,
        "insufficient_quota": 402,
        "billing_error": 402,
        "notfounderror": 404,
        "not_found_error": 404,
        "model_not_found": 404,
        "request_too_large": 413,
        "ratelimiterror": 429,
        "rate_limit_error": 429,
        "rate_limit_exceeded": 429,
        "overloaded": 503,
        "overloaded_error": 503,
        "unavailable_error": 503,
        "serviceunavailableerror": 503,
        "internalservererror": 500,
        "internal_server_error": 500,
        "server_error": 500,
    }
)
"""The HTTP status for each error name."""
_FOR_ANY = frozenset({"invalid_request_error", "server_error"})
"""Names that some servers use for every error. A number in the same report is more precise."""


@dataclass(frozen=True, slots=True)
class FailureReport:
    """What a backend's report says about a failure.

    Attributes:
        words: the text of the report.
        status: the HTTP status that the body itself states, as a number or by a name.
        number: a code of four or five digits, as bigmodel and FastChat use them.
        names: the codes and types of the report that are words, in lower case.
        param: the name of the field that the report is about.
        permitted: True if quotes in `words` hold permitted values, which may be shown to the client.
        bare: True if the report is plain text, not JSON.
        context: the context length in tokens, if a member states it.
        tokens: the length of the prompt in tokens, if a member states it.
        rest: the seconds to wait, if a member states them.
    """

    words: str = ""
    status: int | None = None
    number: int | None = None
    names: frozenset[str] = frozenset()
    param: str | None = None
    permitted: bool = False
    bare: bool = False
    context: int | None = None
    tokens: int | None = None
    rest: float | None = None


NOTHING = FailureReport()
"""The report for a body that says nothing readable."""

PERMITTED = ("literal_error", "enum", "value_error.const", "type_error.enum")
"""Types of pydantic errors whose text quotes the permitted values."""


def read_body(body: bytes) -> FailureReport:
    """Parse the body of an answer whose status is not 200."""
    try:
        value = jsontext.read_lenient(body)
    except ValueError:
        value = body.decode("utf-8", "replace")
    return read_text(value) if isinstance(value, str) else read_value(value)


def read_text(text: str) -> FailureReport:
    """Parse a text that may contain JSON."""
    report = _of_text(text, _NESTING)
    return replace(report, bare=True) if report.words == _cut(text) else report


def read_value(value: Any) -> FailureReport:
    """Parse a JSON value of any form."""
    return _read(value, _NESTING)


def _read(value: Any, depth: int) -> FailureReport:
    if depth == 0:
        return NOTHING
    if isinstance(value, dict):
        return _of_object(value, depth)
    if isinstance(value, list):
        return _read(value[0], depth - 1) if value else NOTHING
    return _of_text(value, depth) if isinstance(value, str) else NOTHING


def _of_text(text: str, depth: int) -> FailureReport:
    """Parse a text. JSON inside the text is preferred to the text around it."""
    if depth > 1 and len(text) <= _LONGEST_TEXT and (found := _JSON.search(text, 0, WORDS)):
        try:
            inner = _read(jsontext.read_lenient(text[found.start() :]), depth - 1)
        except ValueError:
            inner = NOTHING
        if inner != NOTHING:
            return inner
    if _MARKUP.match(text):
        return NOTHING
    if found := _PYTHON_COMPLAINT.search(text, 0, WORDS * 2):
        return _complaint(found[1], found[3] or found[4] or "", _python_steps(found[2]))
    stated = _STATUS_IN_WORDS.match(text)
    return FailureReport(words=_cut(text), status=int(stated[1]) if stated else None)


def plainly_named(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its member names in lower case.

    `Error` is then the same as `error`, and `errorCode` the same as `errorcode`.
    """
    return {name.lower(): member for name, member in value.items()}


def _of_object(value: dict[str, Any], depth: int) -> FailureReport:
    value = plainly_named(value)
    if isinstance(value.get("loc"), list | tuple) and "msg" in value:
        return _complaint(value.get("type"), value["msg"], list(value["loc"]))
    if "status_msg" in value:
        return _of_minimax(value)
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("error"):
        value["error"] = value.get("error") or choices[0]["error"]  # OpenRouter
    own = _own(value)
    for name in _INNER:
        member = value.get(name)
        text = isinstance(member, str) and (not own.words or "{" in member)
        if text or isinstance(member, dict | list):
            inner = _read(member, depth - 1)
            if inner != NOTHING:
                return _joined(own, inner)
    return own


def _own(value: dict[str, Any]) -> FailureReport:
    """Parse the members of an object itself, without the objects inside of it."""
    numbers, names = _codes(value)
    status = next((one for one in numbers if 400 <= one < 600), None)
    named = next((_STATUS_OF_NAME[name] for name in names if name in _STATUS_OF_NAME), None)
    only_general = all(name in _FOR_ANY for name in names if name in _STATUS_OF_NAME)
    param = value.get("param")
    return FailureReport(
        words=next((_cut(text) for name in _WORDS if isinstance(text := value.get(name), str) and text), ""),
        status=(status or named) if only_general else named,
        number=next((one for one in numbers if one >= 1000), None),
        names=frozenset(names),
        param=param[:64] if isinstance(param, str) and param else None,
        context=_count(value.get("n_ctx")),
        tokens=_count(value.get("n_prompt_tokens")),
        rest=waits.in_members(value),
    )


def _of_minimax(value: dict[str, Any]) -> FailureReport:
    """Parse MiniMax's `base_resp`, whose codes have other meanings than those of other servers."""
    words, code = value["status_msg"], value.get("status_code")
    names = frozenset({f"base_resp {code}"} if isinstance(code, int | str) else ())
    return FailureReport(words=_cut(words) if isinstance(words, str) else "", names=names)


def _codes(value: dict[str, Any]) -> tuple[list[int], list[str]]:
    numbers: list[int] = []
    names: list[str] = []
    for code in _stated(value):
        if isinstance(code, int) and not isinstance(code, bool):
            numbers.append(code)
        elif isinstance(code, str) and _DIGITS.fullmatch(code):
            numbers.append(int(code))
        elif isinstance(code, str) and code:
            names.append(code[:64].lower())
    return numbers, names


def _stated(value: dict[str, Any]) -> Iterator[Any]:
    return (value[name] for name in _NAMES if name in value)


def _joined(outer: FailureReport, inner: FailureReport) -> FailureReport:
    """Merge a report with the report inside of it. Values of the inner report are preferred."""
    return replace(
        inner,
        words=inner.words or outer.words,
        status=inner.status or outer.status,
        number=inner.number or outer.number,
        names=inner.names | outer.names,
        param=inner.param or outer.param,
        context=inner.context or outer.context,
        tokens=inner.tokens or outer.tokens,
        rest=outer.rest if inner.rest is None else inner.rest,
    )


def _complaint(kind: Any, message: Any, loc: list[Any]) -> FailureReport:
    """Return the report for one pydantic error."""
    steps = [step for step in loc if isinstance(step, str | int)]
    steps = steps[1:] if steps[:1] == ["body"] else steps
    # For a body that is not JSON, pydantic gives the position of a character, not a field.
    param = jsontext.name_of(tuple(steps[:8])) if steps and isinstance(steps[0], str) else None
    words = _cut(message) if isinstance(message, str) else ""
    return FailureReport(words=words, status=422, param=param, permitted=kind in PERMITTED)


def _python_steps(loc: str) -> list[str | int]:
    return [found[1] or int(found[2]) for found in _STEP.finditer(loc)]


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 10**10 else None


def _cut(text: str) -> str:
    """Shorten a text to about `WORDS` characters, with its start and its end.

    The cause of a template error is at the end.
    """
    return text if len(text) <= WORDS else f"{text[: WORDS // 2]} … {text[-WORDS // 2 :]}"
