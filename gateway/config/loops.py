"""Whether a backend is one of the gateway's own listeners: each request would then ask the gateway again.

What is an address of this machine only its sockets tell; so this is no rule of `load`, which does no I/O
besides files. `serve`, `check` and reloads ask here.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from gateway.config.address import Address
from gateway.config.backend import BackendSettings
from gateway.config.fault import ConfigError, ConfigFault, ValueProblem, faults_in, spelled
from gateway.config.lines import locate
from gateway.config.tree import Config

_Ip: TypeAlias = IPv4Address | IPv6Address

_LOOPBACK: frozenset[_Ip] = frozenset({ip_address("127.0.0.1"), ip_address("::1")})
_HOSTS = Path("/etc/hosts")


def refuse_loops(config: Config, file: Path | None = None) -> None:
    """Raise ConfigError for backends that are a listener of this configuration.

    `file` is where it was loaded from; None: it comes from options.
    """
    complaints = list(loops_in(config))
    if file is None and complaints:
        raise ConfigError(ConfigFault("options", 0, spelled(one.path), one.message) for one in complaints)
    if file is not None and complaints:
        raise ConfigError(faults_in(str(file), locate(file.read_text(encoding="utf-8-sig")), complaints))


def loops_in(config: Config) -> Iterator[ValueProblem]:
    """Complain about each backend that is one of the gateway's own listeners."""
    planes = {"server.listen": config.server.address, "admin.listen": config.admin.address}
    for index, backend in enumerate(config.backends):
        for key, address in planes.items():
            if backend.discover is None and leads_to(backend, address):
                yield ValueProblem(
                    ("backends", index, "url"),
                    f"is the gateway's own address ({key} is {address}); give the address of the model "
                    f"server, and let one of them listen on another port, such as {_elsewhere(key)}",
                )


def _elsewhere(key: str) -> str:
    section, port = key.partition(".")[0], 8080 if key.startswith("server") else 9080
    return f'listen = "127.0.0.1:{port}" in [{section}]'


def leads_to(backend: BackendSettings, address: Address) -> bool:
    """Whether the backend's URL reaches what listens on `address` of this machine. Asks no name server."""
    parts = urlsplit(backend.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if address.path or not address.port or port != address.port:
        return False
    hosts = backend.addresses or (parts.hostname or "",)
    heard = _ips(address.host)
    everywhere = any(ip.is_unspecified for ip in heard)
    for host in hosts:
        reached = {_LOCAL.get(ip, ip) for ip in _ips(host)}
        if reached & heard or (everywhere and any(_is_ours(ip) for ip in reached)):
            return True
    return False


_LOCAL: dict[_Ip, _Ip] = {
    ip_address("0.0.0.0"): ip_address("127.0.0.1"),  # noqa: S104 - what connecting to it means
    ip_address("::"): ip_address("::1"),
}


def _ips(host: str) -> frozenset[_Ip]:
    """The addresses of a host, as far as they are known without a name server."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return _LOOPBACK
    with contextlib.suppress(ValueError):
        found = ip_address(name.partition("%")[0])
        return frozenset({getattr(found, "ipv4_mapped", None) or found})
    if name[:1].isdigit():
        with contextlib.suppress(OSError):  # 127.1, 0x7f000001 and 2130706433 are addresses too
            return frozenset({IPv4Address(socket.inet_aton(name))})
    return _named(name)


def _named(name: str) -> frozenset[_Ip]:
    """What the file of hosts says of a name; this machine's own name is every loopback address as well."""
    own = socket.gethostname().lower()
    found: set[_Ip] = set(_LOOPBACK) if name in (own, own.partition(".")[0]) else set()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in _HOSTS.read_text(encoding="utf-8").splitlines():
            address, *names = line.partition("#")[0].lower().split() or [""]
            if name in names:
                with contextlib.suppress(ValueError):
                    found.add(ip_address(address.partition("%")[0]))
    return frozenset(found)


def _is_ours(ip: _Ip) -> bool:
    """Whether an address is one of this machine: only those can be bound."""
    if ip.is_loopback:
        return True
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ip), 0))
        return True
    return False
