"""The list of models."""

from __future__ import annotations

from typing import Any

from gateway.formats import jsontext


def model_object(name: str, created: int) -> dict[str, Any]:
    """One entry of the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "chatglm-gateway"}


def write_models(names: list[str], created: int) -> bytes:
    """The list of models."""
    return jsontext.write({"object": "list", "data": [model_object(name, created) for name in names]})


def write_model(name: str, created: int) -> bytes:
    """One model."""
    return jsontext.write(model_object(name, created))
