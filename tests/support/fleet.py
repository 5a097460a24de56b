"""Every server the gateway can stand in front of, as the end-to-end tests put them behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.simulator import Options

ANSWER = "北京是政治中心，上海是经济中心：“各有千秋”。\nsecond line, é, 𠮷, 🇨🇳👩‍💻!"
"""An answer that is easily broken: Chinese quotes, a newline, an astral character, joined emoji."""

ALIASES = '[[models]]\nname = "m"\naliases = ["chatglm3-6b"]\n'


@dataclass(frozen=True)
class Server:
    """One kind of server: its simulator's options and what the backend's table says besides."""

    id: str
    dialect: str
    variant: str | None = None
    backend: dict[str, Any] = field(default_factory=dict)
    tools: bool = False
    observes: bool = True
    """Whether the wire has tool results as such; else they arrive as text of the user."""

    def options(self, **more: Any) -> Options:
        """The simulator's options."""
        return Options(dialect=self.dialect, variant=self.variant, **more)


SERVERS = [
    Server("chatglm", "chatglm"),
    Server("chatglm2", "chatglm2"),
    Server("chatglm2-openai", "chatglm2-openai"),
    Server("chatglm3-2023-11", "chatglm3", "2023-11", {"variant": "2023-11"}, tools=True),
    Server("chatglm3-2024-01", "chatglm3", "2024-01", tools=True),
    Server("chatglm3-2024-05", "chatglm3", "2024-05", tools=True),
    Server("chatglm3-native", "chatglm3-native"),
    Server("chatglm3-native-glm4", "chatglm3-native", "glm4"),
    Server("glm4", "glm4", tools=True),
    Server("glm4v", "glm4v"),
    Server("chatglm-cpp", "chatglm-cpp"),
    Server(
        "chatglm-cpp-v3",
        "chatglm-cpp",
        "chatglm3",
        backend={"family": "chatglm3"},
        tools=True,
        observes=False,
    ),
    Server("chatglm-cpp-native", "chatglm-cpp-native"),
    Server("chatglm-stream", "chatglm-stream"),
    Server("openai", "openai", tools=True),
]
