"""The words for states, probe results and reasons are complete."""

from __future__ import annotations

from gateway.errors import TABLE
from gateway.scheduling.health_states import PROBES, REASONS, STATES


def test_every_reason_an_error_can_give_is_listed() -> None:
    for kind, row in TABLE.items():
        if row.blames:
            assert row.outcome in REASONS, kind
    assert {f"probe_{end}" for end in ("failed", "bad_status", "timeout")} <= REASONS


def test_states_and_results_keep_the_order_of_the_docs() -> None:
    assert STATES == ("up", "ramping", "paused", "half_open", "down", "sick")
    assert PROBES == ("ok", "refused", "failed", "bad_status", "timeout", "busy")
