"""What a request asks of the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Claim:
    """A wish for a slot on one of `backends`, which serve `model`, on behalf of `tenant`."""

    model: str
    backends: tuple[str, ...]
    tenant: str = ""
    weight: int = 1
    priority: int = 0
    size: int = 0
    affinity: str = ""
