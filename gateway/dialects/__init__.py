"""The languages of the servers, one file each: pure translators from OpenAI's chat and back.

`base` says what a dialect is; `folding`, `fitting`, `counting`, `budget`, `cutter`, `losses`, `native` and
`openai_like` hold what several share; `refusals` reads what every server says instead of an answer. Dialects
do not know one another. `DIALECTS` lists them by the name used in config.toml; the
relay asks it, and nobody else makes one.
"""

from __future__ import annotations

from types import MappingProxyType

from gateway.dialects.base import Dialect
from gateway.dialects.chatglm import ChatGLMDialect
from gateway.dialects.chatglm2 import ChatGLM2Dialect
from gateway.dialects.chatglm2_openai import ChatGLM2OpenAIDialect
from gateway.dialects.chatglm3 import ChatGLM3Dialect
from gateway.dialects.chatglm3_native import ChatGLM3NativeDialect
from gateway.dialects.chatglm_cpp import ChatGLMCppDialect
from gateway.dialects.chatglm_cpp_native import ChatGLMCppNativeDialect
from gateway.dialects.chatglm_stream import ChatGLMStreamDialect
from gateway.dialects.glm4 import GLM4Dialect
from gateway.dialects.glm4v import GLM4VDialect
from gateway.dialects.openai import OpenAIDialect

DIALECTS: MappingProxyType[str, Dialect] = MappingProxyType(
    {
        dialect.name: dialect
        for dialect in (
            ChatGLMDialect(),
            ChatGLM2Dialect(),
            ChatGLM2OpenAIDialect(),
            ChatGLM3Dialect(),
            ChatGLM3NativeDialect(),
            GLM4Dialect(),
            GLM4VDialect(),
            ChatGLMCppDialect(),
            ChatGLMCppNativeDialect(),
            ChatGLMStreamDialect(),
            OpenAIDialect(),
        )
    }
)
"""Every dialect by its name in config.toml."""
