"""The languages of the servers, one file each: pure translators from OpenAI's chat and back.

`base` says what a dialect is; `folding`, `budget`, `losses`, `native` and `openai_like` hold what several
share. Dialects do not know one another. `DIALECTS` lists them by the name used in config.toml; the
relay asks it, and nobody else makes one.
"""

from __future__ import annotations

from types import MappingProxyType

from gateway.dialects.base import Dialect
from gateway.dialects.chatglm import ChatGLM
from gateway.dialects.chatglm2 import ChatGLM2
from gateway.dialects.chatglm3 import ChatGLM3

DIALECTS: MappingProxyType[str, Dialect] = MappingProxyType(
    {dialect.name: dialect for dialect in (ChatGLM(), ChatGLM2(), ChatGLM3())}
)
"""Every dialect by its name in config.toml."""
