"""The wire protocols of the servers, one file each.

Pure translators from OpenAI's chat format and back.

`base`: `Dialect` and `Translator`; `chatglm`: ChatGLM-6B's `api.py`; `chatglm2`: ChatGLM2-6B's `api.py`;
`chatglm2_openai`: ChatGLM2-6B's `openai_api.py`; `chatglm3`: ChatGLM3's `api_server.py`; `chatglm3_native`:
ChatGLM3 behind `POST /`; `glm4`: GLM-4's `glm_server.py`; `glm4v`: GLM-4V's `glm4v_server.py`;
`chatglm_cpp`: chatglm.cpp's `openai_api.py`; `chatglm_cpp_native`: chatglm.cpp's `langchain_api.py`;
`chatglm_stream`: the community's web-stream-demo; `openai`: vLLM, SGLang, llama.cpp and other
OpenAI-compatible servers; `shared`: code that several dialects use.

Rule: Dialects do not import one another. `DIALECTS` lists all dialects by their names in config.toml; no
other code creates a dialect.
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
