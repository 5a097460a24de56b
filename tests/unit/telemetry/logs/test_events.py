"""The log line of a request contains what its receipt contains, and nothing that must stay secret."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.errors import TABLE, BadRequest
from gateway.formats.events import Usage
from gateway.telemetry.comparison import ComparedAnswer, Comparison
from gateway.telemetry.logs.events import EventLog, Level, configure
from gateway.telemetry.receipt import AttemptRecord, CanaryRecord, Receipt

LOGGERS = ("gateway", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Restore the process-wide loggers after the test."""
    before = {
        logger: (logger.handlers[:], logger.level, logger.propagate)
        for logger in map(logging.getLogger, LOGGERS)
    }
    yield
    for logger, (handlers, level, propagate) in before.items():
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def log(level: Level = "info", *, access: bool = True) -> tuple[EventLog, io.StringIO]:
    stream = io.StringIO()
    return configure("json", level, stream, access=access), stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def receipt(**values: Any) -> Receipt:
    told: dict[str, Any] = {
        "request_id": "r-1",
        "door": "chat",
        "received": 100.0,
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "chatglm2-6b",
        "tenant": "team",
        "stream": True,
        "status": 200,
        "outcome": "ok",
        "backend": "gpu-0",
        "dialect": "chatglm2",
        "attempts": [AttemptRecord("gpu-1", "connect", 0.5), AttemptRecord("gpu-0", "ok", 3.0)],
        "retries": ["connect"],
        "queue_seconds": 1.0,
        "first_token": 102.0,
        "finished": 104.56789,
        "upstream_seconds": 3.25,
        "usage": Usage(7, 11, "estimate"),
        "finish": "stop",
        "ignored": ("seed",),
        "repairs": ["no_finish"],
    }
    return Receipt(**(told | values))


def test_a_request_has_one_line_with_the_fields_of_its_receipt() -> None:
    logs, stream = log()
    logs.settled(receipt())
    (line,) = lines(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "r-1",
        "door": "chat",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "chatglm2-6b",
        "answered": None,
        "canary": None,
        "tenant": "team",
        "stream": True,
        "status": 200,
        "outcome": "ok",
        "error": None,
        "backend": "gpu-0",
        "dialect": "chatglm2",
        "attempts": 2,
        "retries": ["connect"],
        "queue_ms": 1000.0,
        "upstream_ms": 3250.0,
        "first_token_ms": 2000.0,
        "duration_ms": 4567.9,
        "prompt_tokens": 7,
        "completion_tokens": 11,
        "usage_source": "estimate",
        "finish": "stop",
        "ignored": ["seed"],
        "repairs": ["no_finish"],
        "left_while": None,
    }


@pytest.mark.parametrize(
    "count", [10**400, 10**5000, float("nan"), float("inf")], ids=["e400", "e5000", "nan", "inf"]
)
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_nonsense_count_keeps_no_line_from_being_written(count: Any, format: Any) -> None:  # noqa: A002
    stream = io.StringIO()
    logs = configure(format, "info", stream)
    logs.settled(receipt(usage=Usage(count, count, "backend")))
    logs.settled(receipt())
    logs.flush()
    assert stream.getvalue().count("r-1") == 2


def test_a_query_string_is_not_logged() -> None:
    logs, stream = log()
    logs.settled(receipt(path="/v1/models?api_key=sk-secret"))
    assert lines(stream)[0]["path"] == "/v1/models"
    assert "sk-secret" not in stream.getvalue()


def test_a_megabyte_of_path_is_one_short_line() -> None:
    logs, stream = log()
    logs.settled(receipt(path="/\r\n\x1b[2J" + "x" * 1_000_000, method="M" * 1_000_000))
    assert stream.getvalue().count("\n") == 1
    assert len(stream.getvalue()) < 4096


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        pytest.param("ok", "info", id="good"),
        pytest.param("client_error", "info", id="the-client's-fault"),
        pytest.param("client_gone", "info", id="left"),
        pytest.param("upstream_4xx", "info", id="refused-by-a-backend"),
        pytest.param("queue_full", "warning", id="overload"),
        pytest.param("stall", "warning", id="a-backend's-fault"),
        pytest.param("internal", "error", id="our-fault"),
        pytest.param("never heard of", "warning", id="unknown"),
    ],
)
def test_a_line_is_as_loud_as_its_outcome(outcome: str, level: str) -> None:
    logs, stream = log()
    logs.settled(receipt(outcome=outcome))
    assert lines(stream)[0]["level"] == level


def test_every_outcome_of_the_error_table_is_as_loud_as_its_status() -> None:
    logs, stream = log()
    rows = [row for row in TABLE.values() if row.outcome != "internal"]
    for row in rows:
        logs.settled(receipt(outcome=row.outcome))
    assert [line["level"] == "warning" for line in lines(stream)] == [row.status >= 500 for row in rows]


def test_the_level_silences_what_is_less_important() -> None:
    logs, stream = log("warning")
    logs.settled(receipt())
    logs.started("1.0")
    logs.settled(receipt(outcome="stall"))
    assert [line["outcome"] for line in lines(stream)] == ["stall"]


def test_without_access_lines_the_life_of_backends_and_crashes_are_still_told() -> None:
    logs, stream = log(access=False)
    logs.settled(receipt(outcome="internal"))
    logs.backend_changed("gpu-0", False, "refused")
    logs.crash("r-1", ValueError())
    assert [line["event"] for line in lines(stream)] == ["backend_down", "crash"]


def test_backends_that_go_and_come_are_told_with_the_reason() -> None:
    logs, stream = log()
    logs.backend_changed("gpu-0", False, "connection refused")
    logs.backend_changed("gpu-0", True, "answered")
    down, up = lines(stream)
    assert (down["level"], down["event"], down["backend"]) == ("warning", "backend_down", "gpu-0")
    assert down["reason"] == "connection refused"
    assert (up["level"], up["event"], up["reason"]) == ("info", "backend_up", "answered")


def test_start_and_stop_are_told() -> None:
    logs, stream = log()
    logs.started("1.2.3", listen="127.0.0.1:8000", backends=2)
    logs.stopped("SIGTERM")
    start, stop = lines(stream)
    assert (start["event"], start["version"], start["listen"], start["backends"]) == (
        "start",
        "1.2.3",
        "127.0.0.1:8000",
        2,
    )
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM")


def test_a_note_has_the_level_it_is_given() -> None:
    logs, stream = log()
    logs.note(
        "This server's streams never work; it is asked for whole answers.", level="warning", backend="gpu-0"
    )
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["backend"]) == ("note", "warning", "gpu-0")


def test_refused_keys_are_told_at_debug_level_only() -> None:
    quiet, nothing = log()
    quiet.auth_failed("wrong")
    loud, stream = log("debug")
    loud.auth_failed("wrong")
    assert nothing.getvalue() == ""
    assert lines(stream)[0]["reason"] == "wrong"


def test_a_tickets_end_has_no_line_of_its_own() -> None:
    logs, stream = log("debug")
    logs.queue_wait("chatglm2-6b", "granted", 1.0)
    assert stream.getvalue() == ""


def test_a_crash_is_told_by_type_and_place_and_not_by_its_message() -> None:
    logs, stream = log()
    try:
        json.loads('{"prompt": canary}')
    except ValueError as error:
        logs.crash("r-1", error)
    try:
        int("canary")
    except ValueError as error:
        logs.crash("r-2", error)
    first, second = lines(stream)
    assert (first["level"], first["request_id"], first["error"]) == ("error", "r-1", "JSONDecodeError")
    assert second["traceback"][-1].endswith("test_a_crash_is_told_by_type_and_place_and_not_by_its_message")
    assert "sk-secret" not in stream.getvalue()


def test_a_crash_with_an_error_of_our_own_tells_its_message() -> None:
    logs, stream = log()
    logs.crash("r-1", BadRequest("The body is empty."))
    assert lines(stream)[0]["message"] == "The body is empty."


# --- configure -------------------------------------------------------------------------------------


def test_a_second_configure_replaces_the_first() -> None:
    _, first = log()
    again, second = log("debug")
    again.started("1.0")
    logging.getLogger("uvicorn.error").info("hello")
    assert first.getvalue() == ""
    assert [line["event"] for line in lines(second)] == ["start", "log"]
    assert len(logging.getLogger("gateway").handlers) == 1


def test_the_root_logger_is_left_alone() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    logs, _ = log()
    logs.started("1.0")
    assert (root.handlers[:], root.level) == before
    assert logging.getLogger("gateway").propagate is False


def test_the_servers_own_lines_take_our_form() -> None:
    _, stream = log()
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("uvicorn.error").debug("too small a thing")
    assert [(line["logger"], line["message"]) for line in lines(stream)] == [
        ("uvicorn.error", "Started server process [7]")
    ]


def test_handlers_that_uvicorn_has_set_are_gone() -> None:
    foreign = io.StringIO()
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler(foreign))
    _, stream = log()
    logging.getLogger("uvicorn.error").warning("once")
    logging.getLogger("uvicorn.access").info('127.0.0.1 - "GET /?key=canary HTTP/1.1" 200')
    assert foreign.getvalue() == ""
    assert [line["message"] for line in lines(stream)] == ["once"]


def test_uvicorns_access_log_is_off_by_its_own_test() -> None:
    log()
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_asyncio_tells_of_lost_errors_in_our_form_and_without_their_message() -> None:
    _, stream = log()
    error = ValueError("canary")
    logging.getLogger("asyncio").error(
        "Task exception was never retrieved\nfuture: %r", error, exc_info=error
    )
    (line,) = lines(stream)
    assert (line["message"], line["error"]) == ("Task exception was never retrieved", "ValueError")
    assert "sk-secret" not in stream.getvalue()


def test_a_console_line_is_one_line_for_people() -> None:
    stream = io.StringIO()
    logs = configure("console", "info", stream)
    logs.settled(receipt(path="/v1/a\nb"))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert " INFO    request request_id=r-1 door=chat method=POST" in text
    assert 'path="/v1/a\\nb"' in text
    assert "left_while" not in text


def test_its_repr_tells_how_it_is_set() -> None:
    logs, _ = log("warning", access=False)
    assert repr(logs) == "<Logs warning access=False>"


def test_a_copy_has_one_line_of_both_sides_and_no_text() -> None:
    logs, stream = log()
    mine = ComparedAnswer("gpu-1", "ok", "length", 90, None, 3.0)
    logs.shadowed(
        Comparison("r-1", "m", "new", ComparedAnswer("gpu-0", "ok", "stop", 100, 0.5, 2.0), mine, False)
    )
    (line,) = lines(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "event": "shadow",
        "request_id": "r-1",
        "model": "m",
        "shadow": "new",
        "same_text": False,
        "backend": "gpu-1",
        "outcome": "ok",
        "finish": "length",
        "characters": 90,
        "first_token_ms": None,
        "duration_ms": 3000.0,
        "caller_backend": "gpu-0",
        "caller_outcome": "ok",
        "caller_finish": "stop",
        "caller_characters": 100,
        "caller_first_token_ms": 500.0,
        "caller_duration_ms": 2000.0,
    }


def test_a_copy_has_no_line_where_requests_have_none_and_one_that_is_skipped_never_has() -> None:
    logs, stream = log(access=False)
    side = ComparedAnswer("gpu-0", "ok", "stop", 1, 0.5, 2.0)
    logs.shadowed(Comparison("r-1", "m", "new", side, side, True))
    logs.shadow_skipped("m", "new", "busy")
    assert lines(stream) == []


@pytest.mark.parametrize("result", ["taken", "returned", "forbidden", "unfit"])
def test_a_request_tells_what_became_of_its_canary(result: Any) -> None:
    logs, stream = log()
    logs.settled(receipt())
    logs.settled(receipt(canary=CanaryRecord("new", result)))
    assert [line["canary"] for line in lines(stream)] == [None, result]
