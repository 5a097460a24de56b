"""docs/metrics.md and docs/logs.md tell of every metric, label, outcome, event and field, and of no other.

`python -m tests.guards.test_telemetry_docs` renews the table of docs/metrics.md.
"""

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.telemetry.comparison import ComparedAnswer, Comparison
from gateway.telemetry.logs.events import EventLog
from gateway.telemetry.logs.handler import Handler
from gateway.telemetry.logs.lines import JsonLines
from gateway.telemetry.logs.request_lines import access_fields
from gateway.telemetry.metrics.exporter import OUTCOMES
from gateway.telemetry.metrics.families import FAMILIES, REPAIRS, markdown_table
from gateway.telemetry.receipt import Receipt

ROOT = Path(__file__).parents[2]
METRICS_PAGE = ROOT / "docs" / "metrics.md"
METRICS = METRICS_PAGE.read_text(encoding="utf-8")
LOGS = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")

BEGIN = "<!-- families: begin; made by `python -m tests.guards.test_telemetry_docs` -->"
END = "<!-- families: end -->"


def renewed(page: str) -> str:
    """The page with its table made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{markdown_table()}\n{END}{tail}"


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found is not None, f"there is no section {title!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The words in code style in the first cells of a section's tables."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def told(logs: EventLog, stream: io.StringIO) -> Iterator[dict[str, Any]]:
    """One line of every event that `Logs` can write."""
    logs.settled(Receipt("r", "chat", 0.0))
    logs.started("1", data="a", admin="b", backends=1)
    logs.stopped("SIGTERM")
    logs.backend_changed("b", False, "refused")
    logs.backend_changed("b", True, "answered")
    logs.reloaded("ok", "SIGHUP", "0123456789ab")
    logs.discovered("b", "ok", members=1, left_out=0, added={"b-0": "10.0.0.1"}, removed={})
    logs.auth_failed("wrong")
    side = ComparedAnswer("b", "ok", "stop", 1, 0.1, 0.2)
    logs.shadowed(Comparison("r", "m", "new", side, side, same_text=True))
    logs.note("message")
    error = BadRequest("message")
    error.__cause__ = ValueError()
    logs.crash("r", error)
    yield from map(json.loads, stream.getvalue().splitlines())
    foreign = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "message", (), None)
    yield json.loads(JsonLines().format(foreign))
    yield json.loads(logs.handler.notice(1))


def lines() -> list[dict[str, Any]]:
    stream = io.StringIO()
    handler = Handler(stream, json=True)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("gateway", "DEBUG")  # its own: no other test's, and no global state
    logger.addHandler(handler)
    return list(told(EventLog(logger, handler), stream))


def repairs_in_code() -> set[str]:
    """Every word that the gateway's code gives to `Repair` or `AskWhole`."""
    calls = (
        node
        for path in (ROOT / "gateway").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args
    )
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in ("Repair", "AskWhole")
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_the_table_of_metrics_is_the_one_the_families_make() -> None:
    assert renewed(METRICS) == METRICS, "renew it: python -m tests.guards.test_telemetry_docs"


def test_every_label_is_explained_and_no_other() -> None:
    assert sorted(first_cells(section(METRICS, "Labels"))) == sorted(
        {label for family in FAMILIES for label in family.labels}
    )


def test_every_outcome_is_explained_and_no_other() -> None:
    assert sorted(first_cells(section(METRICS, "Outcomes"))) == sorted(OUTCOMES)


def test_every_repair_is_explained_and_no_other() -> None:
    assert sorted(first_cells(section(METRICS, "Repairs"))) == sorted(REPAIRS)


def test_the_repairs_that_have_a_label_are_those_that_the_code_makes() -> None:
    assert repairs_in_code() == REPAIRS


def test_the_example_queries_use_metrics_that_exist() -> None:
    queries = "".join(re.findall(r"```promql\n(.*?)```", METRICS, re.DOTALL))
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"gateway_\w+", queries)}
    assert used
    assert used <= {family.name for family in FAMILIES}


def test_every_field_of_a_requests_line_is_explained_in_order_and_no_other() -> None:
    fields = list(access_fields(Receipt("r", "chat", 0.0)))
    assert first_cells(section(LOGS, "The line of a request")) == fields[1:]
    assert fields[0] == "event"


def test_every_event_is_explained_and_no_other() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", section(LOGS, "Events"), re.MULTILINE)
    assert sorted(documented) == sorted({line["event"] for line in lines()})


@pytest.mark.parametrize("line", [pytest.param(line, id=line["event"]) for line in lines()])
def test_every_line_has_the_fields_and_the_level_that_are_documented(line: dict[str, Any]) -> None:
    common = first_cells(section(LOGS, "Every line"))
    assert [name for name in line if name in common] == common
    row = re.search(rf"^\| `{line['event']}` \| (.*?) \| (.*?) \|", section(LOGS, "Events"), re.MULTILINE)
    assert row is not None
    assert row[1] in (line["level"], "any", "see below")
    if row[2] != "see below":
        assert {*line} - {*common} <= {*re.findall(r"`(\w+)`", row[2])}


def test_the_example_lines_have_real_fields() -> None:
    example = json.loads(re.findall(r"```json\n(.*?)\n```", LOGS, re.DOTALL)[0])
    assert {*example} <= {"ts", "level", *access_fields(Receipt("r", "chat", 0.0))}


if __name__ == "__main__":
    METRICS_PAGE.write_text(renewed(METRICS), encoding="utf-8")
