"""Config: the whole of config.toml as one frozen value, with the views that others read."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator

from gateway.config.backend import Backend
from gateway.config.key import Key
from gateway.config.kinds import tuple_of
from gateway.config.model import Model
from gateway.config.section import Admin, Discovery, Health, Log, Queue, Retries, Section, Server, Timeouts


class Config(Section):
    """config.toml, checked whole. Only `backends` is needed; everything else has a default.

    A Config is never changed: a reload makes a new one.
    """

    server: Server = Server()
    """The data plane: where clients connect."""
    admin: Admin = Admin()
    """The admin plane: probes, metrics, version."""
    log: Log = Log()
    """What is logged."""
    queue: Queue = Queue()
    """The fair queue in front of each model."""
    timeouts: Timeouts = Timeouts()
    """How long a backend may take."""
    retries: Retries = Retries()
    """Repeats on another backend."""
    health: Health = Health()
    """How backends are found dead and alive."""
    discovery: Discovery = Discovery()
    """How backends are found in DNS."""
    models: Annotated[tuple[Model, ...], BeforeValidator(tuple_of)] = ()
    """Settings of models; models without settings need no table."""
    backends: Annotated[tuple[Backend, ...], BeforeValidator(tuple_of)] = ()
    """The model servers."""
    keys: Annotated[tuple[Key, ...], BeforeValidator(tuple_of)] = ()
    """The clients' keys."""

    @cached_property
    def resolved_models(self) -> tuple[Model, ...]:
        """Every model that is served, `backends` holding the names of all that serve it.

        First those with a table of their own, then those that only backends list, each in file order.
        """
        listed = {name: Model(name=name) for backend in self.backends for name in backend.models}
        models = {model.name: model for model in self.models}
        models |= {name: model for name, model in listed.items() if name not in models}
        return tuple(self._with_backends(model) for model in models.values())

    def _with_backends(self, model: Model) -> Model:
        listing = tuple(backend.name for backend in self.backends if model.name in backend.models)
        return model.model_copy(update={"backends": tuple(dict.fromkeys((*model.backends, *listing)))})

    @cached_property
    def services(self) -> tuple[Backend, ...]:
        """List the tables with `discover`: each stands for the servers that DNS names."""
        return tuple(backend for backend in self.backends if backend.discover is not None)

    @cached_property
    def names(self) -> dict[str, Model]:
        """Every name and alias clients may ask for, with its resolved model."""
        return {name: model for model in self.resolved_models for name in (model.name, *model.aliases)}

    def fallbacks_of(self, model: Model, why: Literal["outage", "context"]) -> tuple[Model, ...]:
        """List the models that may answer in place of a resolved one, the nearest first.

        Its own fallbacks come before theirs.
        """
        found: dict[str, Model] = {}
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

    def backends_of(self, model: Model) -> tuple[Backend, ...]:
        """List the backends of a resolved model, in the order of its list."""
        by_name = {backend.name: backend for backend in self.backends}
        return tuple(by_name[name] for name in model.backends)

    def timeouts_for(self, model: Model, backend: Backend) -> Timeouts:
        """Give the time-outs of one try: the backend's over the model's over the global ones."""
        return self.timeouts.merged(model.timeouts, backend.timeouts)

    def health_of(self, backend: Backend) -> Health:
        """Give the health checks of one backend: its own over the global ones."""
        return self.health.merged(backend.health)
