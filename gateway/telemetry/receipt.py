"""The record of one request: the only thing that metrics, logs and ledger ever see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from gateway.formats.events import Usage

Door: TypeAlias = Literal["chat", "native", "models", "other"]
Phase: TypeAlias = Literal["queued", "before_first", "streaming"]
"""Where a request was when its client left."""
CanaryResult: TypeAlias = Literal["taken", "returned", "forbidden", "unfit"]
"""What became of a request that fell to a canary: it went there, and stayed, or came back when that failed;
or it never went, as its key may not use the canary, or as the canary cannot take it."""

LONGEST_ASKED = 64
"""Most characters of an unknown model's name that are kept."""


class AttemptRecord(NamedTuple):
    """One try on one backend. `outcome` is "ok" or an outcome of the error table; `seconds` is its length."""

    backend: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CanaryRecord:
    """That a request fell to the share of its model's canary, `model`."""

    model: str
    result: CanaryResult


@dataclass(slots=True, eq=False)
class Receipt:
    """What happened to one request. Times are monotonic seconds; None means "never came to that".

    Filled along the way by the path and its door, and shown to the hooks once, when all is over.
    `model` is a configured name or "other", `answered` the model that took its place, if one did;
    `ignored` and `repairs` are words of our own. `asked` is the name that a client gave where `model` stayed
    "other", cut at `LONGEST_ASKED`: for a terminal alone, as it may be anything.
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
        """From the first byte of the request to the last of the answer."""
        return (self.finished or self.received) - self.received

    @property
    def phase(self) -> Phase:
        """Where the request is now, as far as a leaving client is concerned."""
        if self.granted is None:
            return "queued"
        return "before_first" if self.first_token is None else "streaming"


class Hook(Protocol):
    """Somebody who is told. Methods never block and never raise."""

    def settled(self, receipt: Receipt) -> None:
        """Take note of a request that is over; its receipt, which may be kept, does not change any more."""

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Take note of a ticket's end: `granted`, `left`, or the outcome of its refusal."""

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Take note of a backend that went down or came back."""

    def auth_failed(self, reason: str) -> None:
        """Take note of a refused key: `missing`, `wrong` or `expired`."""


class Hooks:
    """Several hooks as one."""

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = list(hooks)

    def add(self, hook: Hook) -> None:
        """Tell one more from now on."""
        self._hooks.append(hook)

    def settled(self, receipt: Receipt) -> None:
        """Tell all."""
        for hook in self._hooks:
            hook.settled(receipt)

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Tell all."""
        for hook in self._hooks:
            hook.queue_wait(model, outcome, seconds)

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Tell all."""
        for hook in self._hooks:
            hook.backend_changed(backend, up, reason)

    def auth_failed(self, reason: str) -> None:
        """Tell all."""
        for hook in self._hooks:
            hook.auth_failed(reason)
