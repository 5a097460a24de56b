"""A comparison of a shadow's answer with the caller's: only two complete answers are compared in full."""

from dataclasses import replace

from gateway.telemetry.comparison import ComparedAnswer, Comparison

SIDE = ComparedAnswer("gpu-0", "ok", "stop", 100, 0.5, 2.0)


def test_both_have_answered_only_if_both_are_whole() -> None:
    failed = replace(SIDE, outcome="stall")
    outcomes = [
        Comparison("r", "m", "new", caller, copy, None).both_answered
        for caller in (SIDE, failed)
        for copy in (SIDE, failed)
    ]
    assert outcomes == [True, False, False, False]
