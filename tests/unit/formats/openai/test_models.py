"""The list of models."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from gateway.formats import openai
from gateway.formats.openai import Message

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "clock", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}

message_of = TypeAdapter(Message).validate_python


def test_models_are_listed_and_shown_alike() -> None:
    listed = json.loads(openai.write_models(["a", "b"], 5))
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["a", "b"]
    assert json.loads(openai.write_model("a", 5)) == listed["data"][0]
