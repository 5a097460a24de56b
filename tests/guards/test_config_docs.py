"""docs/configuration.md holds the reference tables that the tree makes, and config.toml is valid."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from gateway.config import DIALECTS, load, schema
from gateway.config.backend import DIALECT_KEYS
from gateway.config.reference import BEGIN, END, reference, rewritten

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def all_keys() -> list[tuple[str, str]]:
    """Every (table, key) of the schema."""
    tables = schema()["$defs"]
    return [(table, key) for table in tables for key in tables[table]["properties"]]


def test_the_reference_tables_are_the_ones_the_tree_makes() -> None:
    assert rewritten(PAGE) == PAGE, "renew them: python -m gateway.config.reference docs/configuration.md"


@pytest.mark.parametrize(("table", "key"), all_keys())
def test_every_key_has_a_row_and_a_meaning(table: str, key: str) -> None:
    reference_part = PAGE[PAGE.index(BEGIN) : PAGE.index(END)]
    rows = re.findall(
        rf"^\| `(?:\w+\.)*{re.escape(key)}` \| (.+?) \| (.+?) \| (.+) \|$", reference_part, re.MULTILINE
    )
    assert rows
    assert schema()["$defs"][table]["properties"][key]["description"].endswith(".")


def test_the_tables_are_made_the_same_way_every_time() -> None:
    assert reference() == reference()


def test_the_page_explains_every_dialect_and_its_own_keys() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]*)\|$", PAGE, re.MULTILINE))
    documented = {dialect: set(re.findall(r"`(\w+)`", rows[dialect])) for dialect in DIALECTS}
    assert documented == {
        dialect: {key for key, takers in DIALECT_KEYS.items() if dialect in takers} for dialect in DIALECTS
    }


def test_the_example_file_is_valid() -> None:
    config = load(ROOT / "config.toml", {})
    assert [model.name for model in config.resolved_models] == ["chatglm2-6b", "chatglm3-6b"]


def test_the_schema_is_a_schema_and_can_be_written() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()
