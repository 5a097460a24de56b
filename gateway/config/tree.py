"""Config: the whole of config.toml as one frozen value, with the views that others read."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator

from gateway.config.backend import BackendSettings
from gateway.config.key import KeySettings
from gateway.config.model import ModelSettings
from gateway.config.section import (
    AdminSettings,
    DiscoverySettings,
    HealthSettings,
    LogSettings,
    QueueSettings,
    RetriesSettings,
    Section,
    ServerSettings,
    TimeoutsSettings,
)
from gateway.config.value_types import tuple_of


class Config(Section):
    """config.toml, checked whole. Only `backends` is needed; everything else has a default.

    A Config is never changed: a reload makes a new one.
    """

    server: ServerSettings = ServerSettings()
    """The data plane: where clients connect."""
    admin: AdminSettings = AdminSettings()
    """The admin plane: probes, metrics, version."""
    log: LogSettings = LogSettings()
    """What is logged."""
    queue: QueueSettings = QueueSettings()
    """The fair queue in front of each model."""
    timeouts: TimeoutsSettings = TimeoutsSettings()
    """How long a backend may take."""
    retries: RetriesSettings = RetriesSettings()
    """Repeats on another backend."""
    health: HealthSettings = HealthSettings()
    """How backends are found dead and alive."""
    discovery: DiscoverySettings = DiscoverySettings()
    """How backends are found in DNS."""
    models: Annotated[tuple[ModelSettings, ...], BeforeValidator(tuple_of)] = ()
    """Settings of models; models without settings need no table."""
    backends: Annotated[tuple[BackendSettings, ...], BeforeValidator(tuple_of)] = ()
    """The model servers."""
    keys: Annotated[tuple[KeySettings, ...], BeforeValidator(tuple_of)] = ()
    """The clients' keys."""

    @cached_property
    def resolved_models(self) -> tuple[ModelSettings, ...]:
        """Every model that is served, `backends` holding the names of all that serve it.

        First those with a table of their own, then those that only backends list, each in file order.
        """
        listed = {name: ModelSettings(name=name) for backend in self.backends for name in backend.models}
        models = {model.name: model for model in self.models}
        models |= {name: model for name, model in listed.items() if name not in models}
        return tuple(self._with_backends(model) for model in models.values())

    def _with_backends(self, model: ModelSettings) -> ModelSettings:
        listing = tuple(backend.name for backend in self.backends if model.name in backend.models)
        return model.model_copy(update={"backends": tuple(dict.fromkeys((*model.backends, *listing)))})

    @cached_property
    def services(self) -> tuple[BackendSettings, ...]:
        """List the tables with `discover`: each stands for the servers that DNS names."""
        return tuple(backend for backend in self.backends if backend.discover is not None)

    @cached_property
    def names(self) -> dict[str, ModelSettings]:
        """Every name and alias clients may ask for, with its resolved model."""
        return {name: model for model in self.resolved_models for name in (model.name, *model.aliases)}

    def fallbacks_of(
        self, model: ModelSettings, why: Literal["outage", "context"]
    ) -> tuple[ModelSettings, ...]:
        """List the models that may answer in place of a resolved one, the nearest first.

        Its own fallbacks come before theirs.
        """
        found: dict[str, ModelSettings] = {}
        following = [model]
        while following:
            lists = [one.fallbacks if why == "outage" else one.context_fallbacks for one in following]
            following = [self.names[name] for names in lists for name in names]
            following = [one for one in following if one.name not in found]
            found |= {one.name: one for one in following}
        return tuple(found.values())

    @property
    def auth_required(self) -> bool:
        """Whether clients need a key: `auth = "keys"`, or keys are there and `auth` is not "none"."""
        return self.server.auth == "keys" or (self.server.auth is None and bool(self.keys))

    def backends_of(self, model: ModelSettings) -> tuple[BackendSettings, ...]:
        """List the backends of a resolved model, in the order of its list."""
        by_name = {backend.name: backend for backend in self.backends}
        return tuple(by_name[name] for name in model.backends)

    def timeouts_for(self, model: ModelSettings, backend: BackendSettings) -> TimeoutsSettings:
        """Give the time-outs of one try: the backend's over the model's over the global ones."""
        return self.timeouts.merged(model.timeouts, backend.timeouts)

    def health_of(self, backend: BackendSettings) -> HealthSettings:
        """Give the health checks of one backend: its own over the global ones."""
        return self.health.merged(backend.health)
