"""The record of one request, and the hooks that receive it.

Metrics and logs see nothing else of a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gateway.formats.events import Usage

Door: TypeAlias = Literal["chat", "native", "models", "other"]
Phase: TypeAlias = Literal["queued", "before_first", "streaming"]
"""The phase in which a request was when its client disconnected."""
CanaryResult: TypeAlias = Literal["taken", "returned", "forbidden", "unfit"]
"""What happened to a request that was selected for a canary. `taken`: the canary answered it. `returned`: the
canary failed, and the model itself was asked. `forbidden`: the client's key may not use the canary. `unfit`:
the canary cannot process the request."""

LONGEST_ASKED = 64
"""Maximum number of characters kept of an unknown model name."""


class AttemptRecord(NamedTuple):
    """One attempt on one backend.

    `outcome` is "ok" or an outcome of the error table. `seconds` is the duration of the attempt.
    """

    backend: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CanaryRecord:
    """Records that a request was selected for its model's canary `model`, and the result."""

    model: str
    result: CanaryResult


@dataclass(slots=True, eq=False)
class Receipt:
    """What happened to one request. Times are monotonic seconds; None means that the event did not happen.

    The path and the door fill it in. It is passed to the hooks once, after the end of the request. `model`
    is a configured name or "other". `answered` is the model that answered in its place, if another one did.
    `ignored` and `repairs` contain only words defined by the gateway. `asked` is the model name that the
    client sent if `model` is "other", cut to `LONGEST_ASKED` characters. It may be any text, so it is shown
    only on a terminal.
    """

    request_id: str
    door: Door
    received: float
    method: str = ""
    path: str = ""
    model: str = "other"
    tenant: str = ""
    stream: bool = False
    status: int = 0
    outcome: str = "internal"
    error: str = ""
    backend: str = ""
    dialect: str = ""
    attempts: tuple[AttemptRecord, ...] = ()
    retries: tuple[str, ...] = ()
    queue_seconds: float = 0.0
    granted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    finished: float | None = None
    upstream_seconds: float = 0.0
    usage: Usage | None = None
    finish: str = ""
    ignored: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    left_while: Phase | None = None
    answered: str = ""
    canary: CanaryRecord | None = None
    asked: str = ""

    @property
    def seconds(self) -> float:
        """The time from the first byte of the request to the last byte of the answer."""
        return (self.finished or self.received) - self.received

    @property
    def phase(self) -> Phase:
        """The current phase of the request, for the case that the client disconnects now."""
        if self.granted is None:
            return "queued"
        return "before_first" if self.first_token is None else "streaming"


class Hook(Protocol):
    """Receives the records of requests and other events. Its methods never block and never raise."""

    def settled(self, receipt: Receipt) -> None:
        """Record a finished request. The receipt does not change any more, so the hook may keep it."""

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Record the end of a ticket: `granted`, `left`, or the outcome of its refusal."""

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Record that a backend went out of service or returned."""

    def auth_failed(self, reason: str) -> None:
        """Record a refused key: `missing`, `wrong` or `expired`."""


class Hooks:
    """Several hooks used as one."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = list(hooks)

    def add(self, hook: Hook) -> None:
        """Add a hook."""
        self._hooks.append(hook)

    def settled(self, receipt: Receipt) -> None:
        """Call all hooks."""
        for hook in self._hooks:
            hook.settled(receipt)

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Call all hooks."""
        for hook in self._hooks:
            hook.queue_wait(model, outcome, seconds)

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Call all hooks."""
        for hook in self._hooks:
            hook.backend_changed(backend, up, reason)

    def auth_failed(self, reason: str) -> None:
        """Call all hooks."""
        for hook in self._hooks:
            hook.auth_failed(reason)
