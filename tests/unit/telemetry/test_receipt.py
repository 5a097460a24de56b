"""The derived values of a receipt, and several hooks used as one."""

from gateway.telemetry.receipt import Hooks, Receipt


def receipt(**values: float) -> Receipt:
    made = Receipt("r-1", "chat", received=100.0)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Recorder:
    """A hook that records its calls."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def settled(self, receipt: Receipt) -> None:
        self.told.append(("settled", receipt.request_id))

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        self.told.append(("queue_wait", model, outcome, seconds))

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        self.told.append(("backend_changed", backend, up, reason))

    def auth_failed(self, reason: str) -> None:
        self.told.append(("auth_failed", reason))


def test_a_request_lasts_from_its_first_byte_to_the_end_of_its_answer() -> None:
    assert receipt(finished=102.5).seconds == 2.5


def test_a_request_that_is_not_over_has_no_length_yet() -> None:
    assert receipt().seconds == 0.0


def test_a_client_is_first_queued_then_before_the_first_token_then_streaming() -> None:
    assert receipt().phase == "queued"
    assert receipt(granted=101.0).phase == "before_first"
    assert receipt(granted=101.0, first_token=102.0).phase == "streaming"


def test_every_hook_is_told_of_everything_in_order() -> None:
    first, second = Recorder(), Recorder()
    hooks = Hooks(first, second)
    hooks.settled(receipt())
    hooks.queue_wait("m", "granted", 0.5)
    hooks.backend_changed("gpu-0", False, "refused")
    hooks.auth_failed("wrong")
    assert first.told == second.told
    assert first.told == [
        ("settled", "r-1"),
        ("queue_wait", "m", "granted", 0.5),
        ("backend_changed", "gpu-0", False, "refused"),
        ("auth_failed", "wrong"),
    ]


def test_a_hook_that_is_added_is_told_from_then_on() -> None:
    first, late = Recorder(), Recorder()
    hooks = Hooks(first)
    hooks.auth_failed("missing")
    hooks.add(late)
    hooks.auth_failed("wrong")
    assert len(first.told) == 2
    assert late.told == [("auth_failed", "wrong")]
