"""`HealthMonitor`: the health of all backends. It records what happens to them and informs its listeners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gateway.errors import GatewayError
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.scheduling.health_states import Probe, State
from gateway.telemetry.receipt import Hook

Listener: TypeAlias = Callable[[str], None]
"""Called with the name of a backend whose availability or next probe has changed. Must not block or raise."""


class HealthMonitor:
    """The `BackendHealth` of every backend, with a clock and a source of chance. One for the process.

    `chance` returns a random number from 0 to 1.
    """

    def __init__(
        self,
        healths: Mapping[str, BackendHealth],
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        hook: Hook,
    ) -> None:
        self.healths = dict(healths)
        self._clock = clock
        self._chance = chance
        self._hook = hook
        self._told_up: dict[str, bool] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def reconfigure(self, wanted: Mapping[str, tuple[int, HealthRules]]) -> None:
        """Look after these backends from now on, with these slots and rules; who stays keeps its health."""
        now = self._clock()
        for name in self.healths.keys() - wanted.keys():
            del self.healths[name]
            self._told_up.pop(name, None)
        for name, (slots, rules) in wanted.items():
            if name in self.healths:
                self.healths[name].refit(slots, rules)
            else:
                self.healths[name] = BackendHealth(slots, rules, now)

    # --- events ------------------------------------------------------------------------------------

    def tried(
        self, backend: str, error: GatewayError | None, request: object | None = None, tenant: str = ""
    ) -> None:
        """Record the result of an attempt for a user's request; see `BackendHealth.tried`."""
        health = self.healths.get(backend)
        if health is None:
            return  # what was taken out of the configuration may still end there
        if error is None and health.steady:
            health.tries += 1
            return
        self._learn(
            backend, lambda now: health.tried(error, now, self._chance(), request, tenant), "answered"
        )

    def probed(self, backend: str, end: Probe, rest: float = 0.0) -> None:
        """Record the result of a probe; see `BackendHealth.probed`."""
        health = self.healths[backend]
        self._learn(backend, lambda now: health.probed(end, now, self._chance(), rest), "probed")

    def trialled(self, backend: str, error: GatewayError | None) -> None:
        """Record the result of a trial generation."""
        health = self.healths[backend]
        self._learn(backend, lambda now: health.trialled(error, now, self._chance()), "trial")

    def reserved(self, backend: str) -> None:
        """Record that a trial is due and that no slot is free for it."""
        self._learn(backend, self.healths[backend].reserved, "trial")

    def trying(self, backend: str) -> None:
        """Record that a trial has got its slot."""
        health = self.healths[backend]
        self._learn(backend, lambda _: health.trying(), "trial")

    def deserted(self, backend: str) -> None:
        """Record that a server has closed an idle connection."""
        if (health := self.healths.get(backend)) is not None:
            self._learn(backend, health.deserted, "probed")

    def repeated(self, backend: str) -> bool:
        """Take note that a connection closed as a request went out, which is sent once more: True."""
        if (health := self.healths.get(backend)) is not None:
            self._learn(backend, health.repeated, "probed")
        return True

    def skipped(self, backend: str) -> None:
        """Record that a backend was not probed because it is working on requests."""
        self.healths[backend].skipped(self._clock(), self._chance())

    def _learn(self, backend: str, event: Callable[[float], None], back_by: str) -> None:
        health, now = self.healths[backend], self._clock()
        before = _verdict(health, now)
        event(now)
        usable = health.usable(now)
        if usable != self._told_up.get(backend, True):
            self._told_up[backend] = usable
            self._hook.backend_changed(backend, usable, back_by if usable else health.reason)
        if before != _verdict(health, now):
            for listener in self._listeners:
                listener(backend)

    # --- views -------------------------------------------------------------------------------------

    def up(self, backend: str) -> bool:
        """Return True if the backend may be asked."""
        return self.healths[backend].usable(self._clock())

    def usable(self) -> dict[str, bool]:
        """Return for every backend whether it may be asked."""
        return {name: self.up(name) for name in self.healths}

    def state(self, backend: str) -> State:
        """Return the state of a backend as one word."""
        return self.healths[backend].state(self._clock())

    def __repr__(self) -> str:
        states = ", ".join(f"{name} {self.state(name)}" for name in self.healths)
        return f"<HealthMonitor {states}>"


def _verdict(health: BackendHealth, now: float) -> tuple[object, ...]:
    """What schedulers and probers may ask about a backend's health."""
    return health.usable(now), health.slots_now(now), health.share(now), health.due
