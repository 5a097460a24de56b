"""What the simulated server saw: the requests, and how many of them generated at once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """One request as it arrived; `finished` turns true when the server has done with it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    finished: bool = False

    @property
    def json(self) -> object:
        """The body as JSON, or None where it is none."""
        try:
            parsed: object = json.loads(self.body)
        except ValueError:
            return None
        return parsed

    def describe(self) -> dict[str, object]:
        """This record as the inspection endpoint shows it."""
        names = ("method", "path", "headers", "body", "json", "finished")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class Recorder:
    """Counts and remembers. One per simulated server.

    A request that generates is in flight from its arrival to the end of its generation: while it waits for
    the gate, and after its client has left, if the server goes on. So `max_in_flight` tells how many a
    client put on the server at once, even where the server takes them one after the other.
    """

    limit: int
    requests: deque[RequestRecord] = field(init=False)
    in_flight: int = 0
    max_in_flight: int = 0
    started: int = 0
    completed: int = 0

    def __post_init__(self) -> None:
        self.requests = deque(maxlen=self.limit)

    def arrive(self, record: RequestRecord, *, generates: bool) -> None:
        """Note a request."""
        self.requests.append(record)
        if generates:
            self.started += 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def settle(self, record: RequestRecord, *, generates: bool, whole: bool) -> None:
        """Note its end; `whole` = answered to the last byte, without a mishap."""
        record.finished = True
        if generates:
            self.in_flight -= 1
            self.completed += whole

    def reset(self) -> None:
        """Forget everything but what is still in flight."""
        self.requests.clear()
        self.max_in_flight = self.in_flight
        self.started = self.completed = 0
