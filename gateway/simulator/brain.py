r"""The model inside a simulated server: what a program hands to it, and three ways to answer.

`EchoBrain` answers with what it was handed, as JSON; `CannedBrain` with a short sensible sentence in the
language of the question; `gateway.simulator.llama.LlamaBrain` with a real small model. The first two obey
directives in the prompt, so that a test can script them: `@@reply:TEXT@@` (`\n` is a newline),
`@@sleep:S@@` seconds before the answer, `@@tsleep:S@@` before each piece, `@@raise@@` a model error,
`@@raw@@` no leading blank.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.simulator.exchange import ModelError

STOP_TOKEN = "<|observation|>"  # noqa: S105 - a token of the model, no secret
"""The one text that is a single token: a ChatGLM3 model ends a tool call with it."""

_TOKEN = re.compile(re.escape(STOP_TOKEN) + "|.", re.DOTALL)
_REPLY = re.compile(r"@@reply:(.*?)@@", re.DOTALL)
_SLEEP = re.compile(r"@@sleep:([0-9.]+)@@")
_PIECE_SLEEP = re.compile(r"@@tsleep:([0-9.]+)@@")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")

WriteCall = Callable[[str, Mapping[str, object]], str]
"""How a model writes a call of the named function with these arguments."""


@dataclass(frozen=True, slots=True)
class BrainTool:
    """A function offered to the model; `parameters` is its JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrainPrompt:
    """What a server program hands to its model.

    `model` is the model's name; `lead` stands before a plain answer (ChatGLM3: newline and blank);
    `observation` says that the text is a tool's result. `tools` and `write_call` are for brains that call
    them.
    """

    model: str
    text: str
    history: Sequence[object] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    lead: str = ""
    observation: bool = False
    tools: Sequence[BrainTool] = ()
    must_call: bool = False
    write_call: WriteCall | None = None


@dataclass(frozen=True, slots=True)
class BrainAnswer:
    """What a model says: its pieces, the seconds before the first, and the seconds before each."""

    pieces: AsyncGenerator[str, None]
    wait: float = 0.0
    pause: float = 0.0


class Brain(Protocol):
    """A model. One per simulated server, shared by its requests."""

    def answer(self, prompt: BrainPrompt, reply: str | None = None) -> BrainAnswer:
        """Answer a prompt, with `reply` if given. Raises ModelError, at once or while the pieces come."""


class EchoBrain:
    """Answers with the JSON text of what it was handed; the stub that the recordings were made with."""

    def __init__(self, piece_size: int) -> None:
        self._piece_size = piece_size

    def answer(self, prompt: BrainPrompt, reply: str | None = None) -> BrainAnswer:
        """See `Brain`."""
        if "@@raise@@" in prompt.text:
            raise ModelError("the prompt asked for a model error")
        text = self._script(prompt, reply)
        return BrainAnswer(
            chop(text, self._piece_size),
            wait=_seconds(_SLEEP, prompt.text),
            pause=_seconds(_PIECE_SLEEP, prompt.text),
        )

    def _script(self, prompt: BrainPrompt, reply: str | None) -> str:
        lead = "" if "@@raw@@" in prompt.text else prompt.lead
        scripted = _REPLY.search(prompt.text)
        if scripted:
            return lead + scripted[1].replace("\\n", "\n")
        return self.compose(prompt, lead) if reply is None else lead + reply

    def compose(self, prompt: BrainPrompt, lead: str) -> str:
        """The text where nothing is prescribed; a plain answer begins with the lead."""
        heard = {
            "stub": prompt.model,
            "prompt": prompt.text,
            "history": prompt.history,
            "params": dict(sorted(prompt.params.items())),
        }
        return lead + json.dumps(heard, ensure_ascii=False)


class CannedBrain(EchoBrain):
    """Answers with a short sentence that names the model, in Chinese to Chinese and else in English.

    Calls a tool where one was offered and the prompt names it or speaks of the weather; quotes a tool's
    result.
    """

    def compose(self, prompt: BrainPrompt, lead: str) -> str:
        """See `EchoBrain`."""
        chinese = _CHINESE.search(prompt.text) is not None
        if prompt.observation:
            return (
                f"{lead}工具的结果是：{prompt.text}" if chinese else f"{lead}The tool returned: {prompt.text}"
            )
        tool = _wanted(prompt)
        if tool is not None and prompt.write_call is not None:
            return prompt.write_call(tool.name, _arguments(tool, chinese=chinese))
        return lead + _greet(prompt, chinese=chinese)


def tokens(text: str) -> list[str]:
    """A text as tokens: one a character, the stop token in one."""
    return _TOKEN.findall(text)


async def chop(text: str, size: int) -> AsyncGenerator[str, None]:
    """A text in pieces of so many tokens."""
    parts = tokens(text)
    for start in range(0, len(parts), size):
        yield "".join(parts[start : start + size])


def _greet(prompt: BrainPrompt, *, chinese: bool) -> str:
    asked, turns = " ".join(prompt.text.split())[:60], len(prompt.history)
    if chinese:
        before = f"此前有 {turns} 条记录。" if turns else ""
        return f"你好！我是模拟的 {prompt.model}。你说的是：“{asked}”。{before}"
    before = f" Entries before this one: {turns}." if turns else ""
    return f'Hello! I am a simulated {prompt.model}. You said: "{asked}".{before}'


def _seconds(directive: re.Pattern[str], text: str) -> float:
    found = directive.search(text)
    return float(found[1]) if found else 0.0


def _wanted(prompt: BrainPrompt) -> BrainTool | None:
    lowered = prompt.text.lower()
    for tool in prompt.tools:
        if tool.name and tool.name.lower() in lowered:
            return tool
    about = [tool for tool in prompt.tools if "weather" in f"{tool.name} {tool.description}".lower()]
    if "weather" in lowered or "天气" in lowered:
        return next(iter(about or prompt.tools), None)
    return next(iter(prompt.tools), None) if prompt.must_call else None


def _arguments(tool: BrainTool, *, chinese: bool) -> dict[str, object]:
    fields = tool.parameters.get("properties")
    if not isinstance(fields, Mapping):
        return {}
    required = tool.parameters.get("required")
    names = [name for name in fields if not isinstance(required, list) or name in required]
    return {name: _value(fields[name], chinese=chinese) for name in names or fields}


def _value(schema: object, *, chinese: bool) -> object:
    known = schema if isinstance(schema, Mapping) else {}
    choices = known.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    place = "北京" if chinese else "Beijing"
    samples: dict[object, object] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    kind = known.get("type")
    if isinstance(kind, list):  # such as ["string", "null"]
        kind = next((one for one in kind if one != "null"), "null")
    return None if kind == "null" else samples.get(kind, place)
