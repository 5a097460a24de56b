from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import Profile
from gateway.dialects.shared import budget
from gateway.errors import BadRequest, ContextExceeded
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat


def read(**body: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "q"}], **body}).encode())


def native(max_length: int) -> ChatRequest:
    return chat_of_pairs(NativeRequest("q", max_length=max_length), "m", empty_halves=True)


@pytest.mark.parametrize(
    ("request_", "profile", "wanted"),
    [
        pytest.param(read(), Profile("m"), 1024, id="default"),
        pytest.param(read(), Profile("m", default_output=9), 9, id="configured-default"),
        pytest.param(read(max_tokens=5), Profile("m"), 5, id="asked"),
        pytest.param(read(max_tokens=5, max_completion_tokens=6), Profile("m"), 6, id="newer-name"),
        pytest.param(read(max_tokens=500), Profile("m", max_output=50), 50, id="capped"),
        pytest.param(read(max_tokens=5), Profile("m", max_output=50), 5, id="under-the-cap"),
        pytest.param(native(120), Profile("m"), 20, id="native-counts-the-prompt-in"),
        pytest.param(native(50), Profile("m"), 1, id="native-leaves-at-least-one"),
        pytest.param(native(80000), Profile("m", max_output=50), 50, id="native-capped"),
    ],
)
def test_the_answers_length_is_what_the_client_wants_within_the_models(
    request_: ChatRequest, profile: Profile, wanted: int
) -> None:
    assert budget.wanted_output(request_, profile, 100) == wanted


@pytest.mark.parametrize(("prompt", "margin"), [(0, 0), (1, 2), (9, 10), (10, 11), (11, 13), (100, 110)])
def test_the_margin_is_a_tenth_rounded_up(prompt: int, margin: int) -> None:
    assert budget.with_margin(prompt) == margin


def test_a_prompt_must_leave_room_behind_its_margin() -> None:
    assert budget.fits(99, 110)
    assert not budget.fits(100, 110)
    budget.require_room(99, 110)
    with pytest.raises(ContextExceeded) as caught:
        budget.require_room(100, 110)
    assert caught.value.param == "messages"
    assert caught.value.message == ContextExceeded.told(110, 100, estimated=True).message


def test_the_total_counts_prompt_margin_and_answer_within_the_context() -> None:
    assert budget.total_length(read(), 100, 24, 2048) == 134
    assert budget.total_length(read(), 100, 80000, 2048) == 2048


def test_a_native_clients_own_total_is_kept() -> None:
    request = native(200)
    wanted = budget.wanted_output(request, Profile("m"), 120)
    assert budget.total_length(request, 120, wanted, 2048) == 200
    assert budget.total_length(native(40960), 120, 40840, 2048) == 2048


@pytest.mark.parametrize("needed", [0, 1, 2, 7, 8])
def test_no_more_is_dropped_than_must_be(needed: int) -> None:
    assert budget.fewest_dropped(8, lambda dropped: dropped >= needed) == needed


def test_all_is_dropped_where_nothing_helps() -> None:
    assert budget.fewest_dropped(8, lambda _: False) == 8
    assert budget.fewest_dropped(0, lambda _: False) == 0


def test_a_very_long_chat_is_tried_a_few_times_only() -> None:
    tried: list[int] = []

    def fits(dropped: int) -> bool:
        tried.append(dropped)
        return dropped >= 10**5

    assert budget.fewest_dropped(10**6, fits) == 10**5
    assert len(tried) <= 20


@pytest.mark.parametrize(
    ("wanted", "prompt", "context", "clamped"),
    [
        (50, 100, 1000, 50),
        (5000, 100, 1000, 900),
        (50, 100, None, 50),
        (50, 1000, 1000, 1),
        (50, 2000, 1000, 1),
    ],
)
def test_a_budget_is_clamped_to_what_the_prompt_leaves(
    wanted: int, prompt: int, context: int | None, clamped: int
) -> None:
    assert budget.clamped(wanted, prompt, context) == clamped


@pytest.mark.parametrize(
    ("counted", "most", "total", "reason"),
    [
        pytest.param(9, 10, 200, "stop", id="under-both"),
        pytest.param(10, 10, 200, "length", id="at-the-budget"),
        pytest.param(99, 1000, 200, "stop", id="under-the-total"),
        pytest.param(100, 1000, 200, "length", id="at-the-total"),
        pytest.param(10**6, None, None, "stop", id="no-limits"),
    ],
)
def test_the_reason_is_told_from_the_count(
    counted: int, most: int | None, total: int | None, reason: str
) -> None:
    assert budget.finish_reason(counted, most, 100, total) == reason


def test_four_stops_are_taken() -> None:
    assert budget.stops_for(read(stop=list("abcd"))) == ("a", "b", "c", "d")
    assert budget.stops_for(read()) == ()


@pytest.mark.parametrize("stop", [list("abcde"), [""], "", ["a", ""]])
def test_a_fifth_stop_or_an_empty_one_is_refused(stop: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        budget.stops_for(read(stop=stop))
    assert caught.value.param == "stop"
