"""One event is one line, whatever its fields contain, and messages of foreign errors are left out."""

import json
import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, UpstreamError
from gateway.telemetry.logs.lines import (
    LIMIT,
    MAX_CAUSES,
    MAX_FRAMES,
    ConsoleLines,
    JsonLines,
    cut,
    describe,
    timestamp,
    to_json,
)

SECRET = "sk-canary-1234"

NASTY = [
    pytest.param("a\r\nb", id="line-ends"),
    pytest.param("\x1b[31mred\x1b[0m", id="ansi"),
    pytest.param('say "hi" \\', id="quotes"),
    pytest.param("\x00\x07\x7f", id="control"),
    pytest.param("\x85\x9b31m", id="c1"),
    pytest.param("one\u2028two\u2029three", id="unicode-line-ends"),
    pytest.param("\u202egnp.exe \u2066x\u2069", id="bidi"),
    pytest.param("\ud800 half", id="lone-surrogate"),
    pytest.param("智谱清言 👋", id="chinese"),
]

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def record(fields: dict[str, Any] | None = None, **values: Any) -> logging.LogRecord:
    made = logging.LogRecord("gateway", logging.INFO, "file.py", 1, "message", (), None)
    made.created = 1_700_000_000.1234
    if fields is not None:
        made.fields = fields
    vars(made).update(values)
    return made


def foreign(name: str, message: str, *args: object, error: BaseException | None = None) -> dict[str, Any]:
    """Return the JSON line of a record that is not from the gateway."""
    told = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord(name, logging.ERROR, "file.py", 1, message, args, told)
    line: dict[str, Any] = json.loads(JsonLines().format(made))
    return line


def raised(error: BaseException) -> BaseException:
    """Return the error with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_json_line_starts_with_time_level_and_event() -> None:
    line = JsonLines().format(record({"event": "start", "version": "1"}))
    assert line == '{"ts":"2023-11-14T22:13:20.123Z","level":"info","event":"start","version":"1"}'


def test_a_console_line_is_readable_and_leaves_out_what_is_empty() -> None:
    fields = {
        "event": "request",
        "status": 200,
        "stream": False,
        "queue_ms": 0.0,
        "error": None,
        "repairs": [],
    }
    line = ConsoleLines().format(record(fields | {"ignored": ("seed", "n"), "finish": "", "path": "/a b"}))
    expected = "INFO    request status=200 stream=false queue_ms=0.0 ignored=seed,n "
    assert line == f'2023-11-14T22:13:20.123Z {expected}path="/a b"'


def test_times_are_utc_with_milliseconds_even_at_a_whole_second() -> None:
    assert timestamp(0.0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("formatter", [JsonLines(), ConsoleLines()], ids=["json", "console"])
def test_nothing_in_a_field_can_leave_its_line(formatter: logging.Formatter, text: str) -> None:
    line = formatter.format(record({"event": "note", text: text, "list": [text], "map": {text: text}}))
    # Field names on the console are constants of the gateway; in JSON they are checked as well.
    shown = line if isinstance(formatter, JsonLines) else line.replace(f" {text}=", " ")
    assert UNSAFE.search(shown) is None


@pytest.mark.parametrize("text", NASTY)
def test_a_json_line_reads_back_as_what_was_put_in(text: str) -> None:
    assert json.loads(to_json({"text": text}))["text"] == text.replace("\ud800", "\ufffd")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_makes_one_line_of_json(value: object) -> None:
    line = to_json({"value": value})
    assert UNSAFE.search(line) is None
    assert json.loads(line).keys() == {"value"}


def test_chinese_stays_readable() -> None:
    assert to_json({"model": "智谱"}) == '{"model":"智谱"}'


def test_numbers_that_json_lacks_become_null() -> None:
    assert to_json({"a": float("nan"), "b": float("inf")}) == '{"a":null,"b":null}'


def test_of_a_strange_object_only_its_type_is_told() -> None:
    class Holder:
        def __repr__(self) -> str:
            return SECRET

    assert to_json({"it": Holder(), "raw": SECRET.encode()}) == '{"it":"Holder","raw":"bytes"}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * (LIMIT + 1), id="ascii"),
        pytest.param("智" * LIMIT, id="three-bytes"),
        pytest.param("👋" * LIMIT, id="four-bytes"),
        pytest.param("\ud800" * LIMIT, id="surrogates"),
        pytest.param("x" * 1_000_000, id="a-million"),
    ],
)
def test_a_long_text_is_cut_to_a_kibibyte_on_a_character(text: str) -> None:
    short = cut(text)
    assert LIMIT - 4 < len(short.encode()) <= LIMIT
    assert short.endswith("…")
    assert text.replace("\ud800", "\ufffd").startswith(short[:-1])


def test_a_text_of_exactly_a_kibibyte_is_whole() -> None:
    assert cut("x" * LIMIT) == "x" * LIMIT


# --- errors ----------------------------------------------------------------------------------------


def test_a_foreign_error_is_told_by_type_and_frames_but_not_by_what_it_says() -> None:
    told = describe(raised(ValueError(SECRET)))
    assert told["error"] == "ValueError"
    assert "message" not in told
    assert re.fullmatch(r"telemetry/logs/test_lines\.py:\d+ in raised", told["traceback"][-1])
    assert SECRET not in to_json(told)


def test_an_error_of_our_own_is_told_with_its_message() -> None:
    assert describe(BadRequest("The body is empty."))["message"] == "The body is empty."


def test_the_cause_of_our_own_error_is_told_without_its_message() -> None:
    error = UpstreamError("The backend failed.")
    error.__cause__ = raised(KeyError(SECRET))
    told = describe(error)
    assert [cause["error"] for cause in told["causes"]] == ["KeyError"]
    assert SECRET not in to_json(told)


def test_a_context_counts_as_a_cause_unless_it_was_suppressed() -> None:
    error = RuntimeError()
    error.__context__ = ValueError()
    assert [cause["error"] for cause in describe(error)["causes"]] == ["ValueError"]
    error.__suppress_context__ = True
    assert "causes" not in describe(error)


def test_the_members_of_a_group_are_told() -> None:
    told = describe(ExceptionGroup(SECRET, [ValueError(), ExceptionGroup("inner", [OSError()])]))
    assert [cause["error"] for cause in told["causes"]] == ["ValueError", "ExceptionGroup", "OSError"]
    assert SECRET not in to_json(told)


def test_errors_that_cause_one_another_are_told_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert [cause["error"] for cause in describe(first)["causes"]] == ["KeyError"]


def test_a_long_row_of_causes_ends() -> None:
    error = first = ValueError()
    for _ in range(100):
        error.__cause__ = error = ValueError()
    assert len(describe(first)["causes"]) == MAX_CAUSES


def test_of_a_deep_traceback_the_innermost_frames_are_kept() -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError(SECRET)
        dive(depth - 1)

    with pytest.raises(ValueError, match=SECRET) as caught:
        dive(200)
    frames = describe(caught.value)["traceback"]
    assert len(frames) == MAX_FRAMES
    assert frames[-1].endswith("dive")


# --- records of other libraries --------------------------------------------------------------------


def test_a_foreign_record_becomes_an_event_of_its_own() -> None:
    line = foreign("uvicorn.error", "Uvicorn running on %s (Press CTRL+C to quit)", "http://127.0.0.1:8000")
    assert line["event"] == "log"
    assert line["logger"] == "uvicorn.error"
    assert line["message"] == "Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)"


def test_the_exception_of_a_foreign_record_is_told_without_its_message() -> None:
    line = foreign("uvicorn.error", "Exception in ASGI application\n", error=raised(ValueError(SECRET)))
    assert line["message"] == "Exception in ASGI application"
    assert line["error"] == "ValueError"
    assert SECRET not in json.dumps(line)


def test_the_message_of_a_foreign_record_is_not_replaced_by_that_of_our_error() -> None:
    line = foreign("uvicorn.error", "Exception in ASGI application", error=BadRequest("Ours."))
    assert line["message"] == "Exception in ASGI application"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        pytest.param(
            f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{SECRET}')>",
            "Task exception was never retrieved",
            id="task",
        ),
        pytest.param(
            f"Exception in callback feed(b'{SECRET}')", "Exception in callback feed…", id="callback"
        ),
        pytest.param(
            f"Executing <Task finished result='{SECRET}'> took 0.3 seconds",
            "Executing … took 0.3 seconds",
            id="slow",
        ),
        pytest.param(f"Odd <Task '{SECRET}", "Odd …", id="open-end"),
    ],
)
def test_what_asyncio_quotes_is_not_told(message: str, told: str) -> None:
    assert foreign("asyncio", message)["message"] == told


def test_a_record_without_an_exception_at_hand_has_none() -> None:
    made = record(exc_info=sys.exc_info())
    assert "error" not in json.loads(JsonLines().format(made))
