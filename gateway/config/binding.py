"""Whether an address could be listened on right now; `gateway check` asks before `gateway serve` fails."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from pathlib import Path

from gateway.config.address import Address
from gateway.config.loading import Given
from gateway.config.tree import Config

_CHATGLM = 8000
"""The port that the model servers of ChatGLM have written in their programs."""
_REASONS = {
    errno.EADDRINUSE: "is in use by another program, perhaps a gateway that runs already; stop it, or choose "
    "another port",
    errno.EACCES: "may not be bound by this user; choose a port above 1023, or grant the right",
    errno.EADDRNOTAVAIL: "is no address of this machine; use one it has, 127.0.0.1 or 0.0.0.0",
}


def obstacles(config: Config, path: Path | None = None, given: Given | None = None) -> list[str]:
    """Say of each plane whose address cannot be bound why, with its key and the remedy.

    `path` and `given` are what the config came from, as for `load`: the command that is proposed repeats
    them, and moves every plane that is in the way of another program.
    """
    planes = {
        ("server", "--listen", 8080): config.server.address,
        ("admin", "--admin-listen", 9080): config.admin.address,
    }
    reasons = {plane: why for plane, address in planes.items() if (why := obstacle(address)) is not None}
    given = given or {}
    words = ["gateway", "serve", *_source(path, given)]
    for (table, option, first), address in planes.items():
        if (table, option, first) in reasons and not address.path:
            words += [option, str(_beside(address, first))]
        elif "listen" in given.get(table, {}):
            words += [option, given[table]["listen"]]
    command = shlex.join(words)
    return [
        f"{plane[0]}.listen: {why}" + ("" if planes[plane].path else f", such as: {command}")
        for plane, why in reasons.items()
    ]


def _source(path: Path | None, given: Given) -> list[str]:
    """The options of `gateway serve` that tell where its config comes from."""
    words = [] if path is None else ["--config", str(path)]
    backends = given.get("backends", [])
    for backend in backends:
        words += ["--backend", backend["url"]]
    for backend in backends[:1]:  # all are of one kind
        words += ["--dialect", backend["dialect"], "--model", backend["models"][0]]
    return words


def _beside(address: Address, first: int) -> Address:
    """Another address of the same host that is free."""
    others = (Address(address.host, port) for port in range(first, first + 20))
    return next((one for one in others if obstacle(one) is None), Address(address.host, first))


def obstacle(address: Address) -> str | None:
    """Say why `address` cannot be bound, with the remedy; None if it can. Leaves nothing bound behind."""
    try:
        if address.path:
            return _socket_obstacle(Path(address.path))
        _try_to_bind(address)
    except socket.gaierror:
        return f"{address} has a host name that cannot be resolved; use an address"
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be bound: {error.strerror}")
        if (error.errno, address.port) == (errno.EADDRINUSE, _CHATGLM):
            reason = (
                "is in use by another program (a ChatGLM server takes port 8000 itself); stop it, or choose "
                "another port"
            )
        return f"{address} {reason}"
    return None


def _try_to_bind(address: Address) -> None:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, target in found:
        with socket.socket(family, kind, protocol) as probe:
            # Servers set it too: without it, the remains of an old connection would look like a program.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(target)
            probe.listen(1)


def _socket_obstacle(path: Path) -> str | None:
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"unix:{path} cannot be made; its folder is missing or not writable"
    if path.exists() and not path.is_socket():
        return f"unix:{path} exists and is no socket; remove it, or choose another path"
    return f"unix:{path} {_REASONS[errno.EADDRINUSE]}" if path.exists() and _answers(path) else None


def _answers(path: Path) -> bool:
    """Tell a living socket from the file a program left behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(str(path)) == 0
