"""The terminal format: short lines in which no text from a client can move the cursor."""

from __future__ import annotations

import io
import logging
from typing import Any, Literal, TypeAlias

import pytest

from gateway.formats.events import Usage
from gateway.telemetry.logs.events import EventLog, configure
from gateway.telemetry.logs.request_lines import access_fields
from gateway.telemetry.logs.terminal import TerminalLines, banner, in_colour, reachable
from gateway.telemetry.receipt import Receipt
from tests.unit.telemetry.logs.test_events import loggers_as_they_were as loggers_as_they_were

Form: TypeAlias = Literal["terminal", "console", "json"]


def line(*, colour: bool = False, **values: Any) -> str:
    """Return the line of one request without its time."""
    told: dict[str, Any] = {"door": "chat", "method": "POST", "path": "/v1/chat/completions", "status": 200}
    told |= {"model": "chatglm2-6b", "backend": "gpu-0", "outcome": "ok", "finished": 104.5}
    receipt = Receipt("r-1", received=100.0, **(told | values))
    record = logging.makeLogRecord({"fields": access_fields(receipt), "levelno": logging.INFO})
    text = TerminalLines(colour=colour).format(record)
    return text.partition("  ")[2]


def test_a_request_is_one_short_line() -> None:
    told = line(usage=Usage(12, 85, "backend"), queue_seconds=1.25, stream=True)
    assert told == "200  chatglm2-6b (stream)  gpu-0  12+85 tokens  waited 1.25 s  4.50 s"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param({}, "200  chatglm2-6b  gpu-0  4.50 s", id="without-counts"),
        pytest.param({"answered": "glm-4"}, "200  chatglm2-6b -> glm-4  gpu-0  4.50 s", id="fallback"),
        pytest.param(
            {"status": 503, "outcome": "queue_full", "error": "queue_full", "backend": ""},
            "503  chatglm2-6b  -  4.50 s  queue_full",
            id="refused",
        ),
        pytest.param(
            {"door": "models", "method": "GET", "path": "/v1/models", "backend": ""},
            "200  GET /v1/models  -  4.50 s",
            id="list-of-models",
        ),
        pytest.param(
            {"ignored": ("seed", "temprature")},
            "200  chatglm2-6b  gpu-0  4.50 s  ignored: seed, temprature",
            id="ignored-fields",
        ),
    ],
)
def test_a_request_line_tells_what_differs(values: dict[str, Any], told: str) -> None:
    assert line(**values) == told


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "a\rb", "\u202egnp", "\u061cgnp", "\x9b31m"])
def test_control_characters_of_a_path_and_of_ignored_fields_are_escaped(text: str) -> None:
    told = line(door="other", path=f"/{text}", ignored=(text,))
    assert told.isprintable()
    assert "\x1b" not in told


def test_a_long_path_is_cut() -> None:
    assert len(line(door="other", path="/" + "x" * 100_000)) < 2_000


@pytest.mark.parametrize(("status", "colour"), [(200, 32), (404, 33), (503, 31)])
def test_the_status_is_coloured_by_its_class(status: int, colour: int) -> None:
    assert line(colour=True, status=status).startswith(f"\x1b[{colour}m{status}\x1b[0m  ")


def logged() -> tuple[EventLog, io.StringIO]:
    stream = io.StringIO()
    return configure("terminal", "info", stream), stream


def told_of(asked: str, model: str = "other", form: Form = "terminal") -> str:
    """Return the log output in this format for a request for the model `asked`."""
    stream = io.StringIO()
    logs = configure(form, "info", stream)
    receipt = Receipt("r-1", "chat", 100.0, status=404, outcome="client_error", error="model_not_found")
    receipt.asked, receipt.model, receipt.finished = asked, model, 100.0
    logs.settled(receipt)
    logs.flush()
    return stream.getvalue()


@pytest.mark.usefixtures("loggers_as_they_were")
def test_an_unknown_model_is_shown_by_the_name_that_was_asked_for() -> None:
    assert told_of("gpt-4").partition("  ")[2] == "404  gpt-4  -  0.00 s  model_not_found\n"
    assert "\x1b" not in told_of("\x1b[31mred")
    assert told_of("a\nb").count("\n") == 1
    assert "  chatglm2-6b  " in told_of("an-alias", "chatglm2-6b")


@pytest.mark.usefixtures("loggers_as_they_were")
@pytest.mark.parametrize("form", ["console", "json"])
def test_the_name_of_an_unknown_model_is_in_no_kept_log(form: Form) -> None:
    told = told_of("sk-a-key-by-mistake", form=form)
    assert "model_not_found" in told
    assert "mistake" not in told


def test_other_events_are_words_with_their_fields() -> None:
    logs, stream = logged()
    logs.backend_changed("gpu-1", False, "refused")
    assert stream.getvalue().partition("  ")[2] == "backend down  backend=gpu-1  reason=refused\n"


def test_a_note_is_its_message() -> None:
    logs, stream = logged()
    logs.note("This server cuts prompts.", level="warning", backend="gpu-1")
    assert stream.getvalue().partition("  ")[2] == "This server cuts prompts.  backend=gpu-1\n"


def test_the_banner_names_urls_models_backends_and_the_config_file() -> None:
    logs, stream = logged()
    lines = banner(
        version="1.2.3",
        url="http://127.0.0.1:8000",
        admin_url="http://127.0.0.1:9090",
        models={"chatglm2-6b": ["gpu-0", "gpu-1"], "glm-4": []},
        usable={"gpu-0": True, "gpu-1": False},
        config="config.toml",
    )
    logs.welcomed(lines)
    assert stream.getvalue().splitlines() == [
        "",
        "ChatGLM gateway 1.2.3",
        "OpenAI API   http://127.0.0.1:8000/v1",
        "ChatGLM API  http://127.0.0.1:8000/",
        "Admin        http://127.0.0.1:9090",
        "Config       config.toml",
        "Backends     1 up, 1 down (gpu-1)",
        "Models",
        "  chatglm2-6b: gpu-0, gpu-1",
        "  glm-4: no server found yet",
        "Ctrl-C ends it.",
        "",
    ]


def test_the_banner_of_many_models_and_backends_fits_on_a_screen() -> None:
    lines = banner(
        version="1.2.3",
        url="http://127.0.0.1:8000",
        admin_url="http://127.0.0.1:9090",
        models={f"m-{number}": [f"gpu-{card}" for card in range(50)] for number in range(1000)},
        usable={f"gpu-{card}": card < 10 for card in range(50)},
        config="config.toml",
    )
    assert len(lines) <= 22
    assert "Backends     10 up, 40 down (gpu-10, gpu-11, gpu-12, gpu-13 and 36 more)" in lines
    assert "  m-0: gpu-0, gpu-1, gpu-2, gpu-3 and 46 more" in lines
    assert "  and 988 more: http://127.0.0.1:8000/v1/models" in lines


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://[::1]:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://10.0.0.5:80", "http://10.0.0.5:80"),
        ("http+unix:///run/a:b.sock", "http+unix:///run/a:b.sock"),
    ],
)
def test_an_address_that_stands_for_all_is_told_as_one_that_can_be_asked(url: str, asked: str) -> None:
    assert reachable(url) == asked


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        pytest.param(Terminal(), {}, True, id="terminal"),
        pytest.param(io.StringIO(), {}, False, id="pipe"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="NO_COLOR"),
        pytest.param(Terminal(), {"NO_COLOR": ""}, True, id="empty-NO_COLOR"),
        pytest.param(Terminal(), {"TERM": "dumb"}, False, id="dumb-terminal"),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    stream: io.StringIO, environment: dict[str, str], coloured: bool
) -> None:
    assert in_colour(stream, environment) is coloured


def test_without_standard_output_there_is_no_colour() -> None:
    assert not in_colour(None, {})
