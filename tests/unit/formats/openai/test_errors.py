"""The error envelope."""

from __future__ import annotations

import json

from pydantic import TypeAdapter

from gateway.errors import ContextExceeded, UpstreamError
from gateway.formats import openai
from gateway.formats.openai import Message

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"name": "clock", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}

message_of = TypeAdapter(Message).validate_python


def test_the_error_envelope_has_all_four_members() -> None:
    error = ContextExceeded("Too long.", param="messages")
    assert json.loads(openai.write_error(error)) == {
        "error": {
            "message": "Too long.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
    assert openai.error_object(UpstreamError("No."))["error"]["param"] is None
