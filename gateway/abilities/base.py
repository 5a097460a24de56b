"""What an ability is: a machine over events, one for each generation.

`feed` takes one event and gives those that may go on; `flush` gives what was held back, at a good end
only. `done` tells that the rest of the generation is of no use to the client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.formats.events import Event


class Ability(ABC):
    """One ability at work on one generation. Not shared, not reused."""

    done: bool = False

    @abstractmethod
    def feed(self, event: Event) -> list[Event]:
        """Take one event; give what may go on."""

    def flush(self) -> list[Event]:
        """Give what was held back, now that the generation has ended well."""
        return []


class Pipeline(Ability):
    """Stages one after another."""

    def __init__(self, *stages: Ability) -> None:
        self._stages = stages

    def feed(self, event: Event) -> list[Event]:
        events = [event]
        for stage in self._stages:
            events = [out for one in events for out in stage.feed(one)]
            self.done = self.done or stage.done
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        for stage in self._stages:
            events = [out for one in events for out in stage.feed(one)]
            events += stage.flush()
        return events
