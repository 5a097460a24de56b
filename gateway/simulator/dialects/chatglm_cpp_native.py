"""chatglm.cpp `langchain_api.py`: the `POST /` of ChatGLM-6B, but with checked fields."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.simulator.brain import BrainPrompt
from gateway.simulator.dialects.chatglm import native_reply
from gateway.simulator.dialects.chatglm_cpp import MODEL, check_length
from gateway.simulator.exchange import Reply, Request
from gateway.simulator.program import Handler, Program
from gateway.simulator.validation import Field, array, integer, number, pair, read_body, record, text

_REQUEST = record(
    prompt=Field(text),
    history=Field(array(pair(text)), ()),
    max_length=Field(integer(0), 2048),
    top_p=Field(number(0.0, 1.0), 0.7),
    temperature=Field(number(0.0, 2.0), 0.95),
)


class ChatGLMCppNativeProgram(Program):
    """The native server of chatglm.cpp."""

    generating = frozenset({"/"})

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """See `Program`."""
        return {("/", "POST"): self.chat}

    async def chat(self, request: Request) -> Reply:
        """The only endpoint."""
        body = read_body(request, _REQUEST)
        check_length(body["max_length"])
        params = {
            "do_sample": body["temperature"] > 0,
            "max_length": body["max_length"],
            "temperature": body["temperature"],
            "top_p": body["top_p"],
        }
        history: list[list[str]] = list(body["history"])
        messages = [
            {"role": role, "content": content}
            for turn in history
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
        answer = await self.voice.say(request, BrainPrompt(MODEL, body["prompt"], messages, params))
        return native_reply(body["prompt"], history, answer)
