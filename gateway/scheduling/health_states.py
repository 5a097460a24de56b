"""The words for the health of a backend: its states, the results of probes, the reasons for an outage."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

State: TypeAlias = Literal["up", "ramping", "paused", "half_open", "down", "sick"]
"""The states of a backend, as shown in metrics and on the admin plane."""
Probe: TypeAlias = Literal["ok", "refused", "failed", "bad_status", "timeout", "busy"]
"""The results of a probe. `failed`: the connection broke. `busy`: the probe timed out while requests of this
gateway were in flight."""
Errand: TypeAlias = Literal["probe", "trial"]
"""What the prober does for a backend: a probe (a cheap GET) or a trial (a small generation request)."""

STATES: tuple[State, ...] = get_args(State)
PROBES: tuple[Probe, ...] = get_args(Probe)
REASONS = frozenset(
    {
        "refused",
        "connect",
        "upstream_5xx",
        "truncated",
        "bad_payload",
        "first_token_timeout",
        "stall",
        "total_timeout",
        "probe_failed",
        "probe_bad_status",
        "probe_timeout",
    }
)
"""The reasons for which a backend can be out of service."""
