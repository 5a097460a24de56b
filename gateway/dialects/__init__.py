"""The languages of the servers, one file each: pure translators from OpenAI's chat and back.

`base` says what a dialect is; `folding`, `fitting`, `counting`, `budget`, `cutter`, `losses`, `native` and
`openai_like` hold what several share; `refusals` reads what every server says instead of an answer. Dialects
do not know one another. `DIALECTS` lists them by the name used in config.toml; the
relay asks it, and nobody else makes one.
"""

from __future__ import annotations

from types import MappingProxyType

from gateway.dialects.base import Dialect
from gateway.dialects.chatglm import ChatGLM
from gateway.dialects.chatglm2 import ChatGLM2
from gateway.dialects.chatglm2_openai import ChatGLM2OpenAI
from gateway.dialects.chatglm3 import ChatGLM3
from gateway.dialects.chatglm3_native import ChatGLM3Native
from gateway.dialects.chatglm_cpp import ChatGLMCpp
from gateway.dialects.chatglm_cpp_native import ChatGLMCppNative
from gateway.dialects.chatglm_stream import ChatGLMStream
from gateway.dialects.glm4 import GLM4
from gateway.dialects.glm4v import GLM4V
from gateway.dialects.openai import OpenAI

DIALECTS: MappingProxyType[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            ChatGLM(),
            ChatGLM2(),
            ChatGLM2OpenAI(),
            ChatGLM3(),
            ChatGLM3Native(),
            GLM4(),
            GLM4V(),
            ChatGLMCpp(),
            ChatGLMCppNative(),
            ChatGLMStream(),
            OpenAI(),
        )
    }
)
"""Every dialect by its name in config.toml."""
