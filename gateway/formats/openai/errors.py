"""The error envelope of the API."""

from __future__ import annotations

from typing import Any

from gateway.errors import GatewayError
from gateway.formats import jsontext


def error_object(error: GatewayError) -> dict[str, Any]:
    """The error envelope: all four members, always."""
    return {
        "error": {
            "message": error.message,
            "type": error.row.type,
            "param": error.param,
            "code": error.code,
        }
    }


def write_error(error: GatewayError) -> bytes:
    """The error envelope as JSON."""
    return jsontext.write(error_object(error))
