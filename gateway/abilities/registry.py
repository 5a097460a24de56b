"""The list of abilities, and the choice of those that a request needs."""

from __future__ import annotations

from gateway.abilities.base import Ability, EventFilter, Pipeline, Wanted
from gateway.abilities.forced_call import ForcedCall
from gateway.abilities.pieces import AnswerSplitter
from gateway.abilities.prompted_tools import PromptedTools
from gateway.abilities.reasoning import ReasoningSplit
from gateway.abilities.stop import StopSequences
from gateway.abilities.structured import StructuredOutput
from gateway.abilities.tool_text import ToolTextRepair
from gateway.abilities.usage import UsageCounter
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.formats.events import Event, Usage
from gateway.formats.openai import ChatRequest

ABILITIES: tuple[type[Ability], ...] = (
    ReasoningSplit,
    StopSequences,
    ToolTextRepair,
    PromptedTools,
    ForcedCall,
    StructuredOutput,
)
"""All abilities, in the order in which events pass through them. A new ability is added here.

After them, `pipeline` adds the splitter of complete answers, for clients that read a stream, and the token
counter.
"""


def prepared(request: ChatRequest, dialect: Dialect, profile: Profile) -> tuple[ChatRequest, Wanted]:
    """Return the request that the dialect translates, and the abilities that its answer needs.

    If there are any, the backend's bytes do not pass to the client unread. Raises `BadRequest`.
    """
    given = request.body
    wanted = tuple(
        [
            ability
            for ability in ABILITIES
            if not ability.asked_by.isdisjoint(given) and ability.wanted(request, dialect, profile)
        ]
    )
    if not wanted:
        return request, wanted
    for ability in wanted:
        request = ability.prepare(request, dialect, profile)
    return request.without_passing(), wanted


def pipeline(
    request: ChatRequest, dialect: Dialect, outgoing: Outgoing, wanted: Wanted, last: Event | None
) -> Pipeline | None:
    """Return the pipeline that an answer needs; None for a complete answer that needs no change.

    Args:
        wanted: the abilities that `prepared` returned.
        last: the last event that has arrived.
    """
    splits = request.stream and not outgoing.streams
    if not (wanted or splits or outgoing.streams) and isinstance(last, Usage):
        return None
    filters: list[EventFilter] = [ability.begin(request, dialect, outgoing) for ability in wanted]
    if splits:
        filters.append(AnswerSplitter())
    return Pipeline(*filters, UsageCounter(outgoing.prompt_tokens, dialect.cjk))
