"""What a request's receipt says of its errors, and the `x-gateway-*` headers."""

from __future__ import annotations

import pytest

from gateway.api.request_context import gateway_lines, note_error
from gateway.errors import BadRequest, Draining, GatewayError
from gateway.formats.events import Usage
from gateway.telemetry.receipt import AttemptRecord, Receipt


@pytest.mark.parametrize(
    ("error", "outcome"), [(Draining("bye"), "shutdown"), (BadRequest("x"), "client_error")]
)
def test_an_error_is_noted_and_a_status_that_was_sent_stays(error: GatewayError, outcome: str) -> None:
    receipt = Receipt("r", "chat", 0, status=200)
    note_error(receipt, error)
    assert (receipt.status, receipt.outcome) == (200, outcome)


# --- what the gateway tells of its own -------------------------------------------------------------


def told(receipt: Receipt) -> dict[str, str]:
    return dict(line.decode().split(": ", 1) for line in gateway_lines(receipt))


def test_a_request_that_came_nowhere_has_nothing_to_tell() -> None:
    assert told(Receipt("r", "chat", 0)) == {}


def test_the_way_of_a_request_is_told() -> None:
    receipt = Receipt("r", "chat", 0, backend="b", queue_seconds=1.2345, ignored=("seed", "logprobs"))
    receipt.attempts = (AttemptRecord("a", "connect", 0.1), AttemptRecord("b", "ok", 0.1))
    receipt.usage = Usage(1, 2, "estimate")
    assert told(receipt) == {
        "x-gateway-backend": "b",
        "x-gateway-attempts": "2",
        "x-gateway-queue-ms": "1234",
        "x-gateway-ignored": "seed,logprobs",
        "x-gateway-usage": "estimate",
    }


@pytest.mark.parametrize(("retries", "attempts"), [((), "1"), (("connect",), "2")])
def test_the_try_under_way_counts(retries: tuple[str, ...], attempts: str) -> None:
    receipt = Receipt("r", "chat", 0, backend="b", retries=retries)
    receipt.attempts = tuple(AttemptRecord("a", "connect", 0.1) for _ in retries)
    assert told(receipt)["x-gateway-attempts"] == attempts


def test_who_counts_is_not_told_before_it_is_known() -> None:
    receipt = Receipt("r", "chat", 0, usage=Usage(1, 2, "backend"))
    assert gateway_lines(receipt, counted=False) == []
