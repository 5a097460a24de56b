"""The table of docs/abilities.md says what happens to each ability on each dialect, as the code does it.

`python -m tests.guards.test_ability_docs` renews the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.abilities.registry import prepared
from gateway.dialects import DIALECTS
from gateway.dialects.base import Profile
from gateway.errors import BadRequest
from gateway.formats import jsontext, openai

PAGE = Path(__file__).parents[2] / "docs" / "abilities.md"
TEXT = PAGE.read_text(encoding="utf-8")
BEGIN = "<!-- abilities: begin; made by `python -m tests.guards.test_ability_docs` -->"
END = "<!-- abilities: end -->"

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}

ABILITIES: dict[str, dict[str, Any]] = {
    "stream": {"stream": True},
    "`stop`": {"stop": "x"},
    "`n`": {"n": 2},
    "`json_object`": {"response_format": {"type": "json_object"}},
    "`json_schema`": {"response_format": SCHEMA},
    "tools": {"tools": [TOOL]},
    "`tool_choice` required": {"tools": [TOOL], "tool_choice": "required"},
    "pictures": {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, PICTURE]}]},
    "`seed`": {"seed": 1},
    "`logprobs`": {"logprobs": True},
    "`frequency_penalty`": {"frequency_penalty": 1},
}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MEANINGS = (
    "server: the server does it; gateway: the gateway adds it; opt-in: the gateway adds it with `emulate`; "
    "reported: it is lost, and named in `x-gateway-ignored`; refused: 400."
)


def state(dialect: str, body: dict[str, Any]) -> str:
    """What happens to a request on the backends of a dialect: one word."""
    found = _state(dialect, body, Profile("m"))
    if (
        found == "refused"
        and _state(dialect, body, Profile("m", emulate=("tools", "structured"))) == "gateway"
    ):
        return "opt-in"
    return found


def _state(name: str, body: dict[str, Any], profile: Profile) -> str:
    dialect = DIALECTS[name]
    request = openai.read_chat(jsontext.write(REQUEST | body))
    if request.n > 1 and "n" not in dialect.honours:
        return "gateway"  # one generation for each choice
    try:
        asked, abilities = prepared(request, dialect, profile)
        outgoing = dialect.ask(asked, profile, stream=request.stream)
    except BadRequest:
        return "refused"
    if abilities or (request.stream and not outgoing.streams):
        return "gateway"
    return "reported" if outgoing.ignored else "server"


def table() -> str:
    """The table of docs/abilities.md."""
    head = f"| dialect | {' | '.join(ABILITIES)} |\n{'|---' * (len(ABILITIES) + 1)}|\n"
    rows = (
        f"| `{dialect}` | {' | '.join(state(dialect, body) for body in ABILITIES.values())} |\n"
        for dialect in DIALECTS
    )
    return f"{head}{''.join(rows)}\n{MEANINGS}\n"


def renewed(page: str) -> str:
    """The page with its table made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n{END}{tail}"


def test_table_is_the_one_the_code_makes() -> None:
    assert renewed(TEXT) == TEXT, "renew it: python -m tests.guards.test_ability_docs"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_structured_output_is_never_lost(dialect: str) -> None:
    for name in ("`json_object`", "`json_schema`"):
        assert state(dialect, ABILITIES[name]) in ("server", "gateway")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tools_and_demanded_calls_are_possible_on_every_dialect(dialect: str) -> None:
    for name in ("tools", "`tool_choice` required"):
        assert state(dialect, ABILITIES[name]) in ("server", "gateway", "opt-in"), name


if __name__ == "__main__":
    PAGE.write_text(renewed(TEXT), encoding="utf-8")
