"""GLM-4V behind its own `glm4v_server.py`: questions with images.

It knows no system role, wants strict turns, says neither why nor that it has ended (an empty delta and a
clean close are the end), and counts tokens below nothing. Images are URLs which the server, not the
gateway, reads. Source: THUDM/GLM-4 `basic_demo/glm4v_server.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from gateway.dialects import budget
from gateway.dialects.base import Decoder, Dialect, Outgoing, Profile
from gateway.dialects.counting import count_messages
from gateway.dialects.fitting import Sent, messages_to_fit
from gateway.dialects.folding import AGREED, JOINT, told
from gateway.dialects.losses import lost
from gateway.dialects.native import refuse_tools
from gateway.dialects.openai_like import ChunkDecoder, only_choice, read_object, required_text, sampling
from gateway.errors import BadRequest, UpstreamTruncated
from gateway.wire import jsontext
from gateway.wire.events import Delta, Event, Finish
from gateway.wire.openai import ChatRequest, Message, text_of

Content: TypeAlias = str | list[dict[str, Any]]
"""A text, or parts as the client sent them."""

_SENT = frozenset({"temperature", "top_p", "max_tokens", "max_completion_tokens"})
_PARTS = ("text", "image_url")
