"""Members: the servers that DNS knows of a service, as backends of a configuration like any others.

A table with `discover` is a service. It stands for servers that are not known when the file is read;
`expanded` puts a backend for each of them in its place, so that everybody else knows backends alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from gateway.config.backend import BackendSettings
from gateway.config.tree import Config


@dataclass(frozen=True, slots=True, order=True)
class ServiceMember:
    """One server of a service.

    `name` tells it from the others: its address, or the target and port of its SRV record. `addresses` are
    tried in their order. A `port` or `weight` of None is that of the table.
    """

    name: str
    addresses: tuple[str, ...]
    port: int | None = None
    weight: int | None = None


Members: TypeAlias = Mapping[str, Mapping[int, ServiceMember]]
"""The members of services, by the service's name and the member's number."""


def service_host(service: BackendSettings) -> str:
    """The name that DNS is asked for."""
    return urlsplit(service.url).hostname or ""


def member_name(service: str, number: int) -> str:
    """The name of a member as a backend."""
    return f"{service}-{number}"


def expanded(config: Config, members: Members) -> Config:
    """Put the members in the place of their services; a service without any leaves no backend behind.

    Models stay, also those that nobody serves then.
    """
    if not config.services:
        return config
    made = {
        service.name: [_backend(service, number, one) for number, one in _in_order(service, members)]
        for service in config.services
    }
    backends = tuple(one for backend in config.backends for one in made.get(backend.name, (backend,)))
    names = {service: tuple(one.name for one in its) for service, its in made.items()}
    models = tuple(
        model.model_copy(
            update={"backends": tuple(one for name in model.backends for one in names.get(name, (name,)))}
        )
        for model in config.resolved_models
    )
    # Not a copy: that would take the views with it which were made of the services.
    fields = {name: getattr(config, name) for name in Config.model_fields}
    return Config.model_validate(fields | {"models": models, "backends": backends})


def _in_order(service: BackendSettings, members: Members) -> list[tuple[int, ServiceMember]]:
    return sorted(members.get(service.name, {}).items())


def _backend(service: BackendSettings, number: int, member: ServiceMember) -> BackendSettings:
    changes = {
        "name": member_name(service.name, number),
        "url": _url(service, member.port),
        "addresses": member.addresses,
        "discover": None,
        "weight": member.weight or service.weight,
    }
    return service.model_copy(update=changes)


def _url(service: BackendSettings, port: int | None) -> str:
    """The URL of a member: of the domain itself, without the `_service._proto` of an SRV name.

    A dot at the end tells DNS that a name is complete; in `Host` and in certificates there is none.
    """
    parts = urlsplit(service.url)
    labels = service_host(service).rstrip(".").split(".")
    while service.discover == "srv" and len(labels) > 1 and labels[0].startswith("_"):
        del labels[0]
    port = parts.port if port is None else port
    return f"{parts.scheme}://{'.'.join(labels)}{'' if port is None else f':{port}'}{parts.path}"
