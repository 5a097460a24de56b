import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.config import schema

EXAMPLE = (Path(__file__).parents[3] / "config.toml").read_text(encoding="utf-8")


def errors(data: object) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema()).iter_errors(data)]


def test_the_example_file_fits_the_schema() -> None:
    assert errors(tomllib.loads(EXAMPLE)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"serverr": {}},
        {"queue": {"timeout": "60"}},
        {"queue": {"length": -1}},
        {"log": {"level": "warn"}},
        {"backends": [{"name": "a"}]},
    ],
)
def test_an_editor_sees_the_usual_mistakes(change: dict[str, Any]) -> None:
    assert errors(tomllib.loads(EXAMPLE) | change)


def test_toml_has_no_null_and_so_has_the_schema() -> None:
    assert "null" not in json.dumps(schema())


def test_every_key_has_a_title_and_a_description() -> None:
    tables = schema()["$defs"].values()
    keys = [described for table in tables for described in table["properties"].values()]
    assert all("description" in described for described in keys)
    assert all("title" in described for described in keys if "$ref" not in described)
