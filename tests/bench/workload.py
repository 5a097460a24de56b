"""What is asked of a target, and the bodies it is asked with."""

from __future__ import annotations

import json
from dataclasses import dataclass

SENTENCE = "请介绍一下这座城市的历史、气候和值得一去的地方。"
SYSTEM = "你是一位细心的助手。"
PATH = "/v1/chat/completions"
EVENTS = 100
"""Events of a stream before its last two: the one with the finish reason, and `[DONE]`."""


@dataclass(frozen=True)
class Workload:
    """One kind of load. `seconds` bounds when requests begin; `rate` (requests a second) 0 is a closed loop.

    `gap_us` is the pause of the mock between two events of a stream. `native` asks for the model on a
    ChatGLM2-6B backend; targets that only relay get that server's own body on `POST /`, so that what goes on
    behind is the same.
    """

    name: str
    clients: int
    seconds: float
    prompt: int = 1000
    rate: int = 0
    stream: bool = False
    native: bool = False
    gap_us: int = 0

    @property
    def figure(self) -> str:
        """The name of what is compared: CPU for each event of a stream, else for each request."""
        return "us_event" if self.stream else "us_request"

    @property
    def expects(self) -> int:
        """`data:` lines that every answer must hold."""
        return EVENTS + 2 if self.stream else 0


PACE = 20_000
"""Microseconds between two events: 50 a second."""

WORKLOADS = {
    one.name: one
    for one in (
        Workload("c1", clients=1, seconds=1.5),
        Workload("c32", clients=32, seconds=2.5),
        Workload("c256", clients=256, seconds=2.5),
        Workload("r100", clients=32, seconds=3, rate=100),
        Workload("s10", clients=10, seconds=2.2, stream=True, gap_us=PACE),
        Workload("s100", clients=100, seconds=2.2, stream=True, gap_us=PACE),
        Workload("s500", clients=500, seconds=2.2, stream=True, gap_us=PACE),
        Workload("native_c32", clients=32, seconds=2.5, native=True),
        Workload("p32k", clients=16, seconds=1.5, prompt=32_768),
    )
}


def body(workload: Workload, *, relayed: bool) -> bytes:
    """The body of its requests, the shortest of whole sentences with `prompt` bytes.

    `relayed`: for a target that passes any path on, and so gets native work in the native form.
    """
    native = workload.native and relayed
    shell = len(_encoded("", workload, native=native))
    count = max(1, -(-(workload.prompt - shell) // len(SENTENCE.encode())))
    return _encoded(SENTENCE * count, workload, native=native)


def _encoded(text: str, workload: Workload, *, native: bool) -> bytes:
    return json.dumps(_native(text) if native else _chat(text, workload), ensure_ascii=False).encode()


def _native(text: str) -> dict[str, object]:
    return {
        "prompt": text,
        "history": [[SYSTEM, "好的。"]],
        "max_length": 2048,
        "top_p": 0.9,
        "temperature": 0.1,
    }


def _chat(text: str, workload: Workload) -> dict[str, object]:
    chat: dict[str, object] = {
        "model": "m-native" if workload.native else "m",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        "temperature": 0.1,
        "top_p": 0.9,
        "max_tokens": 256,
    }
    return {**chat, "stream": True} if workload.stream else chat
