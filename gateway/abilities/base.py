"""What an ability is: emulation of something that a backend lacks, for one generation.

An ability is a class with these steps. It overrides the ones that it needs:

    wanted    returns True if a request needs the ability on a backend; bytes then do not pass unread
    prepare   changes the request before the dialect translates it
    begin     makes the object that works on one answer
    feed      takes one event of the answer, returns the events that go on
    judge     is asked once the answer is complete: accepts it, or asks again with another request
    flush     returns the events that were held back

`done` is True once the rest of the answer is of no use to the client. `registry` lists the abilities in the
order in which events pass through them.

An ability that may ask again holds back all content until its `judge` has accepted the answer, because a
request is never repeated after content has been sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.errors import GatewayError
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest


@dataclass(frozen=True, slots=True)
class Accept:
    """The answer is what was asked for."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The answer is not what was asked for.

    Attributes:
        request: what to send instead, in the form in which clients send requests: it is prepared again.
        reason: a short word for the receipt and the metrics. failure: what the client gets if the request
        cannot be sent again; None if it gets the answer as it is.
    """

    request: ChatRequest
    reason: str
    failure: GatewayError | None


Judgement: TypeAlias = Accept | AskAgain
ACCEPT = Accept()


class EventFilter(ABC):
    """Changes the events of one generation on their way to the client. Used by one attempt, once."""

    done: bool = False

    @abstractmethod
    def feed(self, event: Event) -> list[Event]:
        """Take one event; return the events that go on."""

    def judge(self) -> Judgement:
        """Accept the answer, of which all events have been fed, or ask again. Called before `flush`."""
        return ACCEPT

    def flush(self) -> list[Event]:
        """Return the events that were held back. Called once, when the answer is complete."""
        return []


class Ability(EventFilter):
    """One ability at work on one generation."""

    asked_by: ClassVar[frozenset[str]] = frozenset({"messages"})
    """A request without any of these members does not want the ability; `wanted` is not called for it."""

    @classmethod
    @abstractmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        """Return True if a request needs the ability on the backends with this dialect and profile."""

    @classmethod
    def prepare(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> ChatRequest:  # noqa: ARG003 - a default
        """Return the request that the dialect translates. Raises `BadRequest`."""
        return request

    @classmethod
    @abstractmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Ability:
        """Return the object for one answer to `request`, which is the request before `prepare`."""


Wanted: TypeAlias = tuple[type[Ability], ...]
"""The abilities that a request needs on a backend, in order."""


class Pipeline:
    """Several filters, one after another. `done` is True once one of them is done."""

    def __init__(self, *filters: EventFilter) -> None:
        self._filters = filters
        self.done = False

    def feed(self, event: Event) -> list[Event]:
        """Take one event; return the events that have passed all filters."""
        events = [event]
        for ability in self._filters:
            events = [out for one in events for out in ability.feed(one)]
            self.done = self.done or ability.done
        return events

    def finish(self, may_ask: Callable[[], bool]) -> list[Event] | AskAgain:
        """Return the events that the filters held back, or the judgement of a filter that asks again.

        `may_ask` returns True if the request can be sent again. Raises the failure of the judgement if not.
        """
        events: list[Event] = []
        for ability in self._filters:
            events = [out for one in events for out in ability.feed(one)]
            judgement = ability.judge()
            if isinstance(judgement, AskAgain):
                if may_ask():
                    return judgement
                if judgement.failure is not None:
                    raise judgement.failure
            events += ability.flush()
        return events
