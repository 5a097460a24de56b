"""How a change of the configuration reaches the parts of the gateway.

A `Part` prepares its share of a `ConfigChange` and returns a `Commit`. Preparing can fail and changes
nothing; committing cannot fail. The gateway prepares all parts before it commits the first one, so that a
configuration is taken over as a whole or not at all. `compose` lists the parts in the order in which they
commit.

The functions below derive from a configuration what single parts need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gateway import config
from gateway.dispatch.dispatcher import Dispatcher
from gateway.scheduling.balancers import Balancer, balancer
from gateway.scheduling.health import HealthRules
from gateway.scheduling.scheduler import BackendTable
from gateway.tenancy.keys import Keyring
from gateway.upstream.backend import Backend, limits, probe_path, profile
from gateway.upstream.health_monitor import HealthMonitor
from gateway.upstream.prober import ProbeTarget, trial_for

Commit: TypeAlias = Callable[[], None]
"""Makes one part use a new configuration. Does not fail."""


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A new configuration, before it is used.

    Attributes:
        settings: the configuration; each service is replaced by the servers that DNS names for it.
        fleet: its backends by name. Backends whose server has not changed are the same objects as before.
        gone: the former backends, by name, that are not part of it.
    """

    settings: config.Config
    fleet: dict[str, Backend]
    gone: Mapping[str, Backend]


Part: TypeAlias = Callable[[ConfigChange], Commit]
"""Prepares one part of the gateway for a change. May raise `OSError`; changes nothing by itself."""


def backends_part(change: ConfigChange) -> Commit:
    """Prepare the backends: retire those that are gone, give the others their new settings."""

    def commit() -> None:
        for backend in change.gone.values():
            backend.retired = True
        for settings in change.settings.backends:
            change.fleet[settings.name].settings = settings

    return commit


def health_part(health_monitor: HealthMonitor) -> Part:
    """Return the part of the health monitor."""

    def prepare(change: ConfigChange) -> Commit:
        rules = health_rules(change.settings)

        def commit() -> None:
            # First without the backends that are gone: one that returns under the same name starts anew.
            health_monitor.reconfigure({name: one for name, one in rules.items() if name not in change.gone})
            health_monitor.reconfigure(rules)

        return commit

    return prepare


def dispatcher_part(dispatcher: Dispatcher, balancers: BalancerSet) -> Part:
    """Return the part of the dispatcher and the models' balancers."""

    def prepare(change: ConfigChange) -> Commit:
        queue = change.settings.queue
        made = balancers.made_for(change.settings)
        table = backend_table(change.settings, made)

        def commit() -> None:
            balancers.keep(made)
            dispatcher.reconfigure(table, length=queue.length, timeout=queue.timeout, size=queue.bytes)

        return commit

    return prepare


class BalancerSet:
    """The balancers of all models. A model that keeps its policy over a reload keeps its balancer's state.

    `chance` returns a random number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._made: Made = {}

    def made_for(self, settings: config.Config) -> Made:
        """Return each model's policy and balancer: the present balancer if the policy has not changed."""
        return {model.name: self._made_for(model) for model in settings.resolved_models}

    def _made_for(self, model: config.ModelSettings) -> tuple[str, Balancer]:
        present = self._made.get(model.name)
        if present is not None and present[0] == model.balance:
            return present
        return model.balance, balancer(model.balance, self._chance)

    def keep(self, made: Made) -> None:
        """Use these balancers from now on."""
        self._made = made


Made: TypeAlias = dict[str, tuple[str, Balancer]]
"""For each model its balancing policy and its balancer."""


def backend_table(settings: config.Config, made: Made) -> BackendTable:
    """Return the slots, models, weights and balancers for the dispatcher."""
    return BackendTable(
        slots=slots(settings),
        models={model.name: model.backends for model in settings.resolved_models},
        weights={backend.name: backend.weight for backend in settings.backends},
        balancers={name: one for name, (_, one) in made.items()},
        kinds={
            (model.name, one.name): (one.dialect, profile(one, model))
            for model in settings.resolved_models
            for one in settings.backends_of(model)
        },
    )


def slots(settings: config.Config) -> dict[str, int]:
    """Return the number of slots of each backend."""
    return {backend.name: backend.slots for backend in settings.backends}


def keyring(settings: config.Config) -> Keyring | None:
    """Return the keys that requests are checked against; None if no key is required."""
    return Keyring(settings.keys) if settings.auth_required else None


def health_rules(settings: config.Config) -> dict[str, tuple[int, HealthRules]]:
    """Return the number of slots and the health rules of each backend."""
    return {one.name: (one.slots, _rules(settings.health_of(one))) for one in settings.backends}


def _rules(health: config.HealthSettings) -> HealthRules:
    interval = health.interval if health.probes else None
    return HealthRules(health.fall, health.rise, health.slow_start, interval)


def probe_targets(settings: config.Config, fleet: Mapping[str, Backend]) -> dict[str, ProbeTarget]:
    """Return how each backend is probed. Its trial generation is for the first model that it serves."""
    targets: dict[str, ProbeTarget] = {}
    for backend in settings.backends:
        health, dialect = settings.health_of(backend), fleet[backend.name].dialect
        model = next(one for one in settings.resolved_models if backend.name in one.backends)
        targets[backend.name] = ProbeTarget(
            path=probe_path(backend),
            timeout=health.timeout,
            trial=trial_for(dialect, fleet[backend.name].profile(model)),
            limits=limits(settings.timeouts_for(model, backend)),
            probed=health.probes,
        )
    return targets
