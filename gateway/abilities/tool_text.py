"""Calls that an OpenAI-like server without a tool parser leaves in the text (`repair_tools`).

vLLM, SGLang and llama.cpp return GLM's calls as text if they are started without the parser for them. The
calls are taken out of the text and sent to the client as calls. The request is never sent again.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.abilities.base import Ability
from gateway.abilities.call_choices import CallChoices
from gateway.abilities.offered_functions import OfferedFunctions
from gateway.dialects.base import Dialect, Outgoing, Profile, ToolText
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest
from gateway.formats.structured.calls import Form

FORMS: Mapping[ToolText, tuple[Form, ...]] = {"glm-xml": ("glm-xml", "tags"), "glm4": ("glm4",)}
"""The forms of calls for each value of `repair_tools`."""


class ToolTextRepair(Ability):
    """Takes the calls out of the text of each choice."""

    asked_by = frozenset({"tools", "functions"})

    def __init__(self, request: ChatRequest, forms: tuple[Form, ...]) -> None:
        self._choices = CallChoices(OfferedFunctions(request), forms)

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:  # noqa: ARG003 - an Ability's form
        return bool(profile.repair_tools) and request.tool_mode != "none"

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> ToolTextRepair:  # noqa: ARG003 - an Ability's form
        wanted = outgoing.profile.repair_tools if outgoing.profile else ()
        return cls(request, tuple(form for name in wanted for form in FORMS[name]))

    def feed(self, event: Event) -> list[Event]:
        return self._choices.feed(event)

    def flush(self) -> list[Event]:
        return self._choices.flush()
