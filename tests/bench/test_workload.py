"""Bodies: valid for the door they knock at, and as large as asked."""

import json
from dataclasses import replace

import pytest

from tests.bench.workload import WORKLOADS, Workload, body

EACH = [pytest.param(one, id=name) for name, one in WORKLOADS.items()]


@pytest.mark.parametrize("workload", EACH)
def test_a_body_is_hardly_larger_than_asked(workload: Workload) -> None:
    assert workload.prompt <= len(body(workload, relayed=False)) < workload.prompt + 100


@pytest.mark.parametrize("workload", EACH)
def test_a_chat_asks_for_the_model_of_its_workload(workload: Workload) -> None:
    chat = json.loads(body(workload, relayed=False))
    assert chat["model"] == ("m-native" if workload.native else "m")
    assert chat.get("stream", False) is workload.stream


def test_who_only_relays_gets_native_work_in_the_native_form() -> None:
    assert set(json.loads(body(WORKLOADS["native_c32"], relayed=True))) == {
        "prompt", "history", "max_length", "top_p", "temperature",
    }  # fmt: skip


def test_a_stream_must_bring_its_last_two_events() -> None:
    assert WORKLOADS["s100"].expects == 102
    assert replace(WORKLOADS["s100"], stream=False).expects == 0
