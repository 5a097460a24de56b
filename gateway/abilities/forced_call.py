"""A demanded call (`tool_choice` "required" or a named function) on backends that do not enforce it.

The model is told that it must call, and only the named function is offered. All text is held back. If the
answer has no call, the model is asked once more, and then the request fails with `tool_call_failed`.
"""

from __future__ import annotations

from typing import Any

from gateway.abilities.base import Ability, Judgement
from gateway.abilities.call_choices import CallChoices, judged
from gateway.abilities.instructions import messages_of, with_instruction
from gateway.abilities.offered_functions import OfferedFunctions
from gateway.dialects.base import Dialect, Outgoing, Profile, has
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest

_REQUIRED = "现在必须调用一个工具，不要直接回答。You must call a tool now; do not answer in plain text."
_NAMED = (
    "现在必须调用工具 {name}，不要直接回答。You must call the tool {name} now; do not answer in plain text."
)


class ForcedCall(Ability):
    """Holds an answer back until it has a call."""

    asked_by = frozenset({"tools", "functions"})

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._functions = OfferedFunctions(request)
        self._choices = CallChoices(self._functions, hold=True)

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        if request.tool_mode != "required" or not has("tools", dialect, profile):
            return False
        return "tool_choice" not in dialect.honours and profile.variant != "2024-05-08"

    @classmethod
    def prepare(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> ChatRequest:  # noqa: ARG003 - an Ability's form
        functions = OfferedFunctions(request)
        text = _NAMED.format(name=functions.named) if functions.named else _REQUIRED
        changes: dict[str, Any] = {"messages": with_instruction(messages_of(request), text)}
        alone = functions.named is not None or len(functions.names) == 1
        if not (alone and "named_tool" in dialect.honours):  # else the server is told by name as well
            members = ("functions", "function_call") if request.legacy_functions else ("tools", "tool_choice")
            changes |= {members[0]: _only(request.body[members[0]], functions), members[1]: "auto"}
        return request.changed(**changes)

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> ForcedCall:  # noqa: ARG003 - an Ability's form
        return cls(request)

    def feed(self, event: Event) -> list[Event]:
        return self._choices.feed(event)

    def judge(self) -> Judgement:
        return judged(self._request, self._functions, self._choices)

    def flush(self) -> list[Event]:
        return self._choices.flush()


def _only(offered: list[dict[str, Any]], functions: OfferedFunctions) -> list[dict[str, Any]]:
    """Return the offered functions, without all others if one is named."""
    names = functions.names
    return [one for one in offered if one.get("function", one).get("name") in names]
