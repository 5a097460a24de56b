"""What is allowed in config.toml and deserves a word: `gateway check` prints it, the exit status stays 0."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.tree import Config


def warnings(config: Config) -> Iterator[str]:
    """Give one line for each; the key stands first."""
    admin = config.admin.address
    if not admin.is_local:
        yield (
            f"admin.listen: {admin} can be reached from outside and asks for no key: metrics and names"
            " of backends are open to everybody there; listen on 127.0.0.1, or keep others out by the network"
        )
