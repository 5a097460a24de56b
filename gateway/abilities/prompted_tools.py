"""Tools by prompt: function calling on backends that do not have it. Opt-in: `emulate = ["tools"]`.

The functions go to the model as an instruction, and the calls and results in the history as text. Calls in
the answer are found in any usual form, checked against the functions and their schemas, and given to the
client as calls. If a call names an unknown function, if its arguments do not fit, or if `tool_choice`
demands a call and there is none, the model is shown what is wrong and asked once more.

Text before a call passes as soon as it cannot belong to one; after that the request is not sent again.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.abilities.base import Ability, Judgement
from gateway.abilities.call_choices import CallChoices, judged
from gateway.abilities.instructions import Members, messages_of, with_instruction
from gateway.abilities.offered_functions import OfferedFunctions
from gateway.dialects.base import Dialect, Outgoing, Profile, has
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest

_HEAD = "你可以调用下列工具。You can call these tools:\n"
_HOW = (
    '需要调用工具时，只输出 JSON：{"name": "工具名", "arguments": {参数}}，不要输出其他文字。'
    'To call a tool, reply with this JSON only: {"name": "tool", "arguments": {...}}.'
)
_SEVERAL = " 可以用 JSON 列表一次调用多个。Several calls may stand in one JSON list."
_ONE = " 一次只能调用一个。Call one tool at a time."
_AUTO = "\n不需要工具时直接回答。If no tool is needed, answer in plain text."
_REQUIRED = "\n现在必须调用工具，不要直接回答。You must call a tool now; do not answer in plain text."
_NAMED = "\n现在必须调用工具 {name}。You must call the tool {name} now; do not answer in plain text."
_RESULT = "工具 {name} 的结果 (result of {name}):\n{content}"


class PromptedTools(Ability):
    """Finds the calls in the text of each choice."""

    asked_by = frozenset({"tools", "functions"})

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._functions = OfferedFunctions(request)
        self._choices = CallChoices(self._functions, hold=self._functions.required)

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        if request.tool_mode == "none" or "tools" not in profile.emulate:
            return False
        return not has("tools", dialect, profile)

    @classmethod
    def prepare(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> ChatRequest:  # noqa: ARG003 - an Ability's form
        functions = OfferedFunctions(request)
        messages = _as_text(messages_of(request))
        return request.changed(
            messages=with_instruction(messages, _instruction(request, functions)),
            tools=None,
            tool_choice=None,
            functions=None,
            function_call=None,
            parallel_tool_calls=None,
        )

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> PromptedTools:  # noqa: ARG003 - an Ability's form
        return cls(request)

    def feed(self, event: Event) -> list[Event]:
        return self._choices.feed(event)

    def judge(self) -> Judgement:
        return judged(self._request, self._functions, self._choices)

    def flush(self) -> list[Event]:
        return self._choices.flush()


def _instruction(request: ChatRequest, functions: OfferedFunctions) -> str:
    lines = [_described(one) for one in functions.described()]
    text = _HEAD + "\n".join(lines) + "\n" + _HOW
    if len(lines) > 1 or request.parallel_tool_calls is not None:
        text += _ONE if request.parallel_tool_calls is False else _SEVERAL
    if functions.named:
        return text + _NAMED.format(name=functions.named)
    return text + (_REQUIRED if functions.required else _AUTO)


def _described(function: dict[str, Any]) -> str:
    described = {name: value for name, value in function.items() if value}
    return "- " + json.dumps(described, ensure_ascii=False, separators=(",", ":"))


def _as_text(messages: list[Members]) -> list[Members]:
    """Return the messages with calls and results as text, in the form in which the model is to call."""
    names: dict[str, str] = {}
    out: list[Members] = []
    for message in messages:
        calls = _calls_of(message)
        names.update((call_id, name) for call_id, name, _ in calls if call_id)
        if calls:
            out.append(_with_calls(message, calls))
        elif message.get("role") in ("tool", "function"):
            name = names.get(str(message.get("tool_call_id"))) or message.get("name") or "tool"
            text = _RESULT.format(name=name, content=_text(message.get("content")))
            if out and out[-1].get("from_tools"):
                out[-1] = {**out[-1], "content": f"{out[-1]['content']}\n{text}"}
            else:
                out.append({"role": "user", "content": text, "from_tools": True})
        else:
            out.append(message)
    return [{key: value for key, value in one.items() if key != "from_tools"} for one in out]


def _calls_of(message: Members) -> list[tuple[str, str, str]]:
    """Return the id, the name and the arguments of each call of a message."""
    given = [(one.get("id") or "", one.get("function") or {}) for one in message.get("tool_calls") or ()]
    if not given and message.get("function_call"):
        given = [("", message["function_call"])]
    return [(call_id, one.get("name", ""), one.get("arguments") or "{}") for call_id, one in given]


def _with_calls(message: Members, calls: list[tuple[str, str, str]]) -> Members:
    written = [
        f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
        for _, name, arguments in calls
    ]
    text = written[0] if len(written) == 1 else f"[{', '.join(written)}]"
    said = _text(message.get("content"))
    rest = {key: value for key, value in message.items() if key not in ("tool_calls", "function_call")}
    return {**rest, "content": f"{said}\n{text}" if said else text}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
