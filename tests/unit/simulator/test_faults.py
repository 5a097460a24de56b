from __future__ import annotations

import pytest

from gateway.simulator.faults import ALWAYS, FaultError, SimulatedFault, SimulatedFaults, parse_fault


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        pytest.param("reset", SimulatedFault("reset"), id="kind-alone"),
        pytest.param("status:503", SimulatedFault("status", 503), id="with-value"),
        pytest.param("slow:0.5*3", SimulatedFault("slow", 0.5, 3), id="with-times"),
        pytest.param(
            "hang*always@/health", SimulatedFault("hang", 0, ALWAYS, "/health"), id="always-on-a-path"
        ),
        pytest.param({"kind": "cut", "value": 2, "times": 2}, SimulatedFault("cut", 2, 2), id="object"),
        pytest.param(
            {"kind": "close", "times": "always", "path": "any"},
            SimulatedFault("close", 0, ALWAYS, "any"),
            id="object-any",
        ),
        pytest.param(SimulatedFault("empty"), SimulatedFault("empty"), id="ready-made"),
    ],
)
def test_fault_is_read_in_every_spelling(spec: object, fault: SimulatedFault) -> None:
    assert parse_fault(spec) == fault


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        pytest.param("explode", "unknown fault 'explode'", id="unknown-kind"),
        pytest.param("status", "needs a number", id="value-missing"),
        pytest.param("status:7", "from 200 to 599", id="no-status"),
        pytest.param("reset*often", "cannot read", id="bad-times"),
        pytest.param({"kind": "reset", "when": "now"}, "unknown keys of a fault: when", id="unknown-key"),
        pytest.param({"kind": "slow", "value": "long"}, "could not convert", id="bad-value"),
        pytest.param(7, "a text or an object", id="number"),
    ],
)
def test_fault_that_cannot_be_understood_says_why(spec: object, complaint: str) -> None:
    with pytest.raises(FaultError, match=complaint):
        parse_fault(spec)


def test_fault_is_used_up_after_its_times() -> None:
    faults = SimulatedFaults(["reset*2", "close"])
    taken = [faults.take("/", generates=True) for _ in range(4)]
    assert [fault.kind if fault else None for fault in taken] == ["reset", "reset", "close", None]


def test_fault_for_always_never_wears_off() -> None:
    faults = SimulatedFaults(["status:500*always"])
    assert all(faults.take("/", generates=True) for _ in range(10))
    faults.clear()
    assert len(faults) == 0


def test_fault_without_a_path_spares_requests_that_do_not_generate() -> None:
    faults = SimulatedFaults(["reset"])
    assert faults.take("/health", generates=False) is None
    assert faults.take("/v1/chat/completions", generates=True) == SimulatedFault("reset")


def test_fault_with_a_path_waits_for_it_behind_others() -> None:
    faults = SimulatedFaults(["reset", "status:503@/health", "hang@any"])
    assert faults.take("/health", generates=False) == SimulatedFault("status", 503, 1, "/health")
    assert faults.take("/v1/models", generates=False) == SimulatedFault("hang", path="any")


def test_one_bad_fault_in_a_list_queues_none() -> None:
    faults = SimulatedFaults()
    with pytest.raises(FaultError):
        faults.extend(["reset", "explode"])
    assert len(faults) == 0
