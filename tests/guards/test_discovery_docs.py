"""docs/discovery.md names every way to ask and every result, and no other; its examples are valid."""

import re
from pathlib import Path

from gateway.config import parse
from gateway.config.backend import BackendSettings
from gateway.config.messages import choices_of
from gateway.config.section import DiscoverySettings
from gateway.scheduling.endpoints import RESULTS
from gateway.telemetry.metrics.families import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "discovery.md").read_text(encoding="utf-8")


def first_cells(header: str) -> list[str]:
    """The words in code style in the first column of the table with this header."""
    table = PAGE.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    cells = [line.strip("| ").split(" | ")[0] for line in table.splitlines()[2:]]
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def test_every_way_to_ask_is_explained_and_no_other() -> None:
    assert first_cells("`discover`") == list(choices_of(BackendSettings.model_fields["discover"].annotation))


def test_every_result_is_explained_and_no_other() -> None:
    assert first_cells("result") == list(RESULTS)


def test_the_examples_are_valid_and_show_the_defaults() -> None:
    service, table = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    config = parse(table + service, file="discovery.md", folder=Path(), environ={})
    assert config.discovery.model_copy(update={"nameservers": ()}) == DiscoverySettings()
    assert config.services[0].max_discovered == 32


def test_metrics_that_are_named_exist() -> None:
    named = set(re.findall(r"gateway_\w+", PAGE))
    assert named
    assert named <= {family.name for family in FAMILIES}
