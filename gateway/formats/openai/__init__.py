"""OpenAI's chat completions as values. Pure: bytes in, values out, and back.

`request` is what a client asks, `answer` a whole answer, `chunks` a streamed one; `writer` writes both.
`errors` is the error envelope, `models` the list of models. Source: OpenAI's published API description.

Rule: imported as `from gateway.formats import openai`, or by the names that are listed here.
"""

from gateway.formats.openai.answer import (
    AnswerChoice,
    reason_for,
    usage_object,
    write_choices,
    write_completion,
    write_text,
    write_usage,
)
from gateway.formats.openai.chunks import ChunkWriter, tool_object
from gateway.formats.openai.errors import error_object, write_error
from gateway.formats.openai.models import model_object, write_model, write_models
from gateway.formats.openai.request import (
    MAX_INTEGER,
    MEMBERS,
    ChatRequest,
    FunctionCall,
    FunctionDefinition,
    Id,
    Message,
    Name,
    NamedChoice,
    NamedFunction,
    Part,
    Role,
    StopText,
    StreamOptions,
    TokenLimit,
    ToolCall,
    ToolDefinition,
    chat_of_pairs,
    read_chat,
    text_of,
)

__all__ = [
    "MAX_INTEGER",
    "MEMBERS",
    "AnswerChoice",
    "ChatRequest",
    "ChunkWriter",
    "FunctionCall",
    "FunctionDefinition",
    "Id",
    "Message",
    "Name",
    "NamedChoice",
    "NamedFunction",
    "Part",
    "Role",
    "StopText",
    "StreamOptions",
    "TokenLimit",
    "ToolCall",
    "ToolDefinition",
    "chat_of_pairs",
    "error_object",
    "model_object",
    "read_chat",
    "reason_for",
    "text_of",
    "tool_object",
    "usage_object",
    "write_choices",
    "write_completion",
    "write_error",
    "write_model",
    "write_models",
    "write_text",
    "write_usage",
]
