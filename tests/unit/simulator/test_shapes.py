from __future__ import annotations

import json

import pytest

from gateway.simulator.brain import BrainTool
from gateway.simulator.shapes import models_reply, offered, random_id, usage

SCHEMA = {"type": "object", "properties": {}}


def test_models_page_has_one_card() -> None:
    (card,) = json.loads(models_reply("glm-4").body)["data"]
    assert list(card) == ["id", "object", "created", "owned_by", "root", "parent", "permission"]
    assert card["id"] == "glm-4"


def test_usage_adds_up() -> None:
    assert usage(3, 4) == {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        pytest.param(
            [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
            [BrainTool("f", "", SCHEMA)],
            id="nested",
        ),
        pytest.param(
            [{"name": "f", "description": "d", "parameters": SCHEMA}],
            [BrainTool("f", "d", SCHEMA)],
            id="flat",
        ),
        pytest.param([{"name": "f", "parameters": None}], [BrainTool("f")], id="null-parameters"),
        pytest.param([{}, 5], [], id="nothing-with-a-name"),
        pytest.param(None, [], id="none"),
        pytest.param({"some": "object"}, [], id="object"),
    ],
)
def test_tools_are_found_in_either_shape(tools: object, found: list[BrainTool]) -> None:
    assert offered(tools) == found


def test_random_identity_has_its_prefix_and_length() -> None:
    assert random_id("call_", 24).startswith("call_")
    assert len(random_id("call_", 24)) == 29
    assert random_id("", 24) != random_id("", 24)
