"""docs/command-line.md tells of every command and option there is, and of no other."""

import re
from pathlib import Path

import click
import pytest

from gateway.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
COMMANDS = sorted(main.commands)


def section_of(command: str) -> str:
    found = re.search(rf"^## `gateway {command}`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/command-line.md has no section for {command}"
    return found[1]


def options_of(command: str) -> dict[str, click.Option]:
    parameters = main.commands[command].params
    return {name: option for option in parameters if isinstance(option, click.Option) for name in option.opts}


def documented_rows(command: str) -> dict[str, str]:
    """Every option of the section's table with its default as written."""
    rows = re.findall(r"^\| (`-.*?) \| (.*?) \|", section_of(command), re.MULTILINE)
    return {name: default for names, default in rows for name in re.findall(r"`(-[\w-]+)`", names)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented_and_no_other(command: str) -> None:
    assert set(documented_rows(command)) == set(options_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_defaults_are_the_real_ones(command: str) -> None:
    rows = documented_rows(command)
    shown = {name: option.default for name, option in options_of(command).items() if option.show_default}
    assert {name: rows[name] for name in shown} == {name: f"`{default}`" for name, default in shown.items()}


def test_the_page_has_exactly_the_commands_there_are() -> None:
    assert sorted(re.findall(r"^## `gateway ([\w-]+)`", PAGE, re.MULTILINE)) == COMMANDS


def test_the_overview_links_to_every_command() -> None:
    assert sorted(re.findall(r"\(#gateway-([\w-]+)\)", PAGE)) == COMMANDS


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"{command} {name}"
        for command in COMMANDS
        for name, option in options_of(command).items()
        if not option.help
    ]
    assert silent == []
