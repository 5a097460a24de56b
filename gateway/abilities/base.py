"""What an ability is: emulation of something that a backend lacks, for one generation.

Each ability is a class with these steps, of which it overrides those that it needs:

    wanted    whether a request needs it on a backend; bytes then do not pass unread
    prepare   changes the request before it is translated
    feed      takes one event of the answer, returns those that go on
    flush     returns what was held back, at a good end only
    judge     looks at a whole answer before any of it is given, and may ask again, once

`done` tells that the rest of the answer is of no use to the client. `registry` lists the abilities in the
order in which events pass through them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.formats.events import Event
from gateway.formats.openai import ChatRequest


@dataclass(frozen=True, slots=True)
class Accept:
    """The answer is good as it is."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The answer is not what was asked: `request` is to be sent instead; `reason` goes on the receipt."""

    request: ChatRequest
    reason: str


Judgement: TypeAlias = Accept | AskAgain
ACCEPT = Accept()


class EventFilter(ABC):
    """Changes the events of one generation on their way to the client. Owned by one attempt, not reused."""

    done: bool = False

    @abstractmethod
    def feed(self, event: Event) -> list[Event]:
        """Take one event; return what goes on."""

    def flush(self) -> list[Event]:
        """Return what was held back, now that the generation has ended well."""
        return []


class Ability(EventFilter):
    """One ability at work on one generation."""

    judges: ClassVar[bool] = False
    """Whether it has to see the whole answer before any of it is given. Such requests are asked whole."""

    @classmethod
    def prepare(cls, request: ChatRequest, profile: Profile) -> ChatRequest:  # noqa: ARG003 - most change nothing
        """Return the request as the dialect is to translate it."""
        return request

    @classmethod
    @abstractmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect) -> bool:
        """Whether a request needs it on the backends of a dialect."""

    @classmethod
    @abstractmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Ability:
        """Return one for an answer to this request."""

    def judge(self, events: list[Event]) -> Judgement:  # noqa: ARG002 - most accept everything
        """Accept a whole answer, or ask again. Called once, with the events as the dialect decoded them."""
        return ACCEPT


Wanted: TypeAlias = tuple[type[Ability], ...]
"""The abilities that a request needs on a backend, in order."""


class Pipeline:
    """Several filters, one after another."""

    def __init__(self, *filters: EventFilter) -> None:
        self._filters = filters
        self._judges = [one for one in filters if isinstance(one, Ability) and one.judges]
        self.done = False

    @property
    def judges(self) -> bool:
        """Whether `judge` has to be asked before anything is given."""
        return bool(self._judges)

    def judge(self, events: list[Event]) -> Judgement:
        """Return the first judgement that asks again, else `ACCEPT`."""
        for ability in self._judges:
            if isinstance(judgement := ability.judge(events), AskAgain):
                return judgement
        return ACCEPT

    def feed(self, event: Event) -> list[Event]:
        """Take one event; return what has passed through all abilities."""
        events = [event]
        for ability in self._filters:
            events = [out for one in events for out in ability.feed(one)]
            self.done = self.done or ability.done
        return events

    def flush(self) -> list[Event]:
        """Return what the abilities held back; it passes through those behind."""
        events: list[Event] = []
        for ability in self._filters:
            events = [out for one in events for out in ability.feed(one)]
            events += ability.flush()
        return events
