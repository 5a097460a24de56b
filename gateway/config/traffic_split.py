"""Canary and Shadow: where a share of a model's requests goes besides the model itself."""

from __future__ import annotations

from pydantic import Field

from gateway.config.section import Section
from gateway.config.value_types import ModelName, Seconds, Share


class CanarySettings(Section):
    """Another model that answers a share of a model's requests in its place."""

    model: ModelName
    """The model that answers them. Its own `canary` does not count for them."""
    share: Share
    """How much of the conversations goes there, from 0 (none) to 1 (all). A conversation stays on its side:
    it is known by `x-session-affinity`, `user` or its first messages."""


class ShadowSettings(Section):
    """Another model that gets a copy of a share of a model's requests; its answers are dropped."""

    model: ModelName
    """The model that gets the copies."""
    share: Share
    """How much of the requests is copied, from 0 (none) to 1 (all); each by chance."""
    at_once: int = Field(default=4, ge=1, le=1000)
    """Most copies of this model's requests that run at a time; more are skipped."""
    timeout: Seconds = 120.0
    """How long a copy may take, then it is given up (seconds). The time-outs of its model count too."""
