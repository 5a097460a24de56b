"""What a reload may change: everything but what was settled when the process began."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from gateway.config.effective import effective
from gateway.config.tree import Config

_FIXED = (
    ("server", "listen"),
    ("server", "reuse_port"),
    ("server", "send_buffer"),
    ("admin", "listen"),
    ("log", "format"),
    ("log", "level"),
    ("log", "access"),
)


def fixed_changes(old: Config, new: Config) -> tuple[str, ...]:
    """List the keys that differ and that only a restart can change, spelled as in the file."""
    return tuple(
        f"{section}.{key}"
        for section, key in _FIXED
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    )


def digest(config: Config) -> str:
    """Twelve hexadecimal digits that tell configurations apart; secrets have no part in them."""
    return sha256(effective(config).encode()).hexdigest()[:12]


def named_files(config: Config) -> Iterator[Path]:
    """Every file that a loaded configuration was made with, besides config.toml itself."""
    for backend in config.backends:
        tls = backend.tls
        yield from _paths(backend.api_key_file, tls.ca_file, tls.cert_file, tls.key_file)
    for key in config.keys:
        yield from _paths(key.key_file)


def _paths(*names: str | None) -> Iterator[Path]:
    return (Path(name) for name in names if name is not None)
