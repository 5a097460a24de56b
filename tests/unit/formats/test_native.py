from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.formats import native
from gateway.formats.native import NativeRequest


def read(**body: Any) -> NativeRequest:
    return native.read_request(json.dumps(body).encode())


def test_a_bare_prompt_is_enough() -> None:
    request = read(prompt="你好")
    assert (request.prompt, request.history) == ("你好", ())
    assert (request.max_length, request.temperature, request.top_p) == (None, None, None)


def test_everything_said_is_read() -> None:
    request = read(prompt="q", history=[["a", "b"]], max_length=20000, temperature=0.1, top_p=0.7, extra=[1])
    assert request.history == (("a", "b"),)
    assert (request.max_length, request.temperature, request.top_p) == (20000, 0.1, 0.7)


@pytest.mark.parametrize("name", ["history", "max_length", "temperature", "top_p"])
def test_null_is_not_given(name: str) -> None:
    assert read(**{"prompt": "q", name: None}) == read(prompt="q")


@pytest.mark.parametrize("name", ["max_length", "temperature", "top_p"])
def test_zero_is_not_given_as_the_servers_take_it(name: str) -> None:
    assert read(**{"prompt": "q", name: 0}) == read(prompt="q")


def test_an_empty_prompt_is_taken() -> None:
    assert read(prompt="").prompt == ""


def test_a_null_half_is_empty() -> None:
    assert read(prompt="q", history=[["a", None], [None, "b"]]).history == (("a", ""), ("", "b"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param({}, "prompt", id="no-prompt"),
        pytest.param({"prompt": None}, "prompt", id="null-prompt"),
        pytest.param({"prompt": 5}, "prompt", id="number-prompt"),
        pytest.param({"prompt": "q", "history": "ab"}, "history", id="history-a-text"),
        pytest.param({"prompt": "q", "history": {}}, "history", id="history-an-object"),
        pytest.param({"prompt": "q", "history": [[], ["a"]]}, "history[0]", id="no-items"),
        pytest.param({"prompt": "q", "history": [["a", "b"], ["a"] * 3]}, "history[1]", id="three-items"),
        pytest.param({"prompt": "q", "history": ["ab"]}, "history[0]", id="two-letters"),
        pytest.param({"prompt": "q", "history": [{"role": "x", "content": "y"}]}, "history[0]", id="roles"),
        pytest.param({"prompt": "q", "history": [["a", 1]]}, "history[0]", id="number-half"),
        pytest.param({"prompt": "q", "max_length": "9"}, "max_length", id="length-a-text"),
        pytest.param({"prompt": "q", "max_length": 1.5}, "max_length", id="length-a-fraction"),
        pytest.param({"prompt": "q", "max_length": True}, "max_length", id="length-a-truth"),
        pytest.param({"prompt": "q", "max_length": -1}, "max_length", id="length-negative"),
        pytest.param({"prompt": "q", "temperature": "hot"}, "temperature", id="temperature-a-text"),
        pytest.param({"prompt": "q", "temperature": True}, "temperature", id="temperature-a-truth"),
        pytest.param({"prompt": "q", "temperature": 2.1}, "temperature", id="temperature-too-high"),
        pytest.param({"prompt": "q", "top_p": 1.1}, "top_p", id="top_p-too-high"),
        pytest.param({"prompt": "q", "top_p": -0.1}, "top_p", id="top_p-negative"),
    ],
)
def test_what_a_server_would_choke_on_or_misread_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**body)
    assert caught.value.param == param


def test_the_history_is_kept_just_as_it_came() -> None:
    assert read(prompt="q", history=[["a", None]]).given == [["a", None]]


def test_the_answer_repeats_the_callers_own_history() -> None:
    asked = read(prompt="q", history=[["a", None]])
    raw = native.write_answer(asked, "r", "2026-11-22 18:00:00")
    assert json.loads(raw) == {
        "response": "r",
        "history": [["a", None], ["q", "r"]],
        "status": 200,
        "time": "2026-11-22 18:00:00",
    }


def test_an_error_is_json_with_its_status() -> None:
    assert json.loads(native.write_error("No.", 503)) == {"detail": "No.", "status": 503}
