"""The server programs that can be simulated, one file each.

`chatglm`: ChatGLM-6B and ChatGLM2-6B; `chatglm2_openai`: ChatGLM2-6B's `openai_api.py`; `chatglm3`:
ChatGLM3's `api_server.py`; `chatglm3_native`: ChatGLM3 behind `POST /`; `glm4`: GLM-4; `glm4v`: GLM-4V;
`chatglm_cpp`: chatglm.cpp's `openai_api.py`; `chatglm_cpp_native`: its `langchain_api.py`;
`chatglm_stream`: the web-stream-demo; `openai`: an OpenAI-like server; `jsoncall`: tool calls as JSON;
`pythoncall`: tool calls as Python.

Rule: A program knows routes and quirks, nothing else: pace, faults and counting are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.simulator.dialects.chatglm import ChatGLM2Program, ChatGLMProgram
from gateway.simulator.dialects.chatglm2_openai import ChatGLM2OpenAIOnPydantic2, ChatGLM2OpenAIProgram
from gateway.simulator.dialects.chatglm3 import ChatGLM3Of2023, ChatGLM3Of2024, ChatGLM3Program
from gateway.simulator.dialects.chatglm3_native import ChatGLM3NativeProgram, GLM4Native
from gateway.simulator.dialects.chatglm_cpp import ChatGLMCppOfGLM4, ChatGLMCppOfV3, ChatGLMCppProgram
from gateway.simulator.dialects.chatglm_cpp_native import ChatGLMCppNativeProgram
from gateway.simulator.dialects.chatglm_stream import ChatGLMStreamProgram
from gateway.simulator.dialects.glm4 import GLM4Program
from gateway.simulator.dialects.glm4v import GLM4VProgram
from gateway.simulator.dialects.openai import OpenAIProgram
from gateway.simulator.program import Program

DIALECTS: Mapping[str, Mapping[str, type[Program]]] = {
    "chatglm": {"": ChatGLMProgram},
    "chatglm2": {"": ChatGLM2Program},
    "chatglm2-openai": {"pydantic-1": ChatGLM2OpenAIProgram, "pydantic-2": ChatGLM2OpenAIOnPydantic2},
    "chatglm3": {"2024-05": ChatGLM3Program, "2024-01": ChatGLM3Of2024, "2023-11": ChatGLM3Of2023},
    "chatglm3-native": {"chatglm3": ChatGLM3NativeProgram, "glm4": GLM4Native},
    "glm4": {"": GLM4Program},
    "glm4v": {"": GLM4VProgram},
    "chatglm-cpp": {"": ChatGLMCppProgram, "chatglm3": ChatGLMCppOfV3, "glm4": ChatGLMCppOfGLM4},
    "chatglm-cpp-native": {"": ChatGLMCppNativeProgram},
    "chatglm-stream": {"": ChatGLMStreamProgram},
    "openai": {"": OpenAIProgram},
}
"""Every dialect by its name on the command line, and its variants; the first variant is the default."""


def find_program(dialect: str, variant: str | None) -> type[Program]:
    """The program of that name; ValueError names what there is."""
    if dialect not in DIALECTS:
        raise ValueError(f"unknown dialect {dialect!r}; one of {', '.join(DIALECTS)}")
    variants = DIALECTS[dialect]
    chosen = next(iter(variants)) if variant is None else variant
    if chosen not in variants:
        known = ", ".join(name for name in variants if name) or "none"
        raise ValueError(f"unknown variant {variant!r} of {dialect}; there are: {known}")
    return variants[chosen]
