"""docs/health.md names every state, result, reason and probe path, and no other; its example is valid."""

import re
from pathlib import Path

from gateway.config import parse
from gateway.dialects import DIALECTS
from gateway.scheduling.health_states import PROBES, REASONS, STATES

PAGE = (Path(__file__).parents[2] / "docs" / "health.md").read_text(encoding="utf-8")


def rows(title: str, header: str) -> list[list[str]]:
    """The cells of the table with this first column in a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = section.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_cells(title: str, header: str) -> list[str]:
    return [word for row in rows(title, header) for word in words(row[0])]


def test_every_state_is_explained_in_order_and_no_other() -> None:
    assert first_cells("States", "state") == list(STATES)


def test_every_reason_is_explained_and_no_other() -> None:
    assert sorted(first_cells("Reasons", "reason")) == sorted(REASONS)


def test_every_result_of_a_probe_is_explained_and_no_other() -> None:
    assert first_cells("Probes", "result") == [*PROBES, "trial_ok", "trial_failed"]


def test_every_dialects_probe_is_named_and_no_other() -> None:
    documented = {name: words(row[1])[0] for row in rows("Probes", "dialect") for name in words(row[0])}
    assert documented == {name: dialect.probe for name, dialect in DIALECTS.items()}


def test_the_example_is_valid() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse(example, file="health.md", folder=Path(), environ={})
    (backend,) = config.backends
    assert config.health_of(backend).timeout == 120
    assert backend.health.path == "/docs"
