"""The values that every dialect accepts: all dialects and parameters, at each bound and beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Dialect, Profile
from gateway.dialects.shared import allowed
from gateway.dialects.shared.allowed import AllowedRange
from gateway.errors import BadRequest
from gateway.formats.openai import MAX_INTEGER, read_chat

REFUSED = "refused"
REPORTED = "reported"

SAMPLES: dict[str, list[Any]] = {
    "temperature": [-0.1, 0, 1e-9, 2, 2.1, "1", True, None],
    "top_p": [-0.1, 0, 1, 1.1, "1", True, None],
    "max_tokens": [-2, 1, MAX_INTEGER, MAX_INTEGER + 1, 1.5, "1", True, None],
    "max_completion_tokens": [-2, 1, MAX_INTEGER, MAX_INTEGER + 1, 1.5, "1", True, None],
    "repetition_penalty": [-1, 0, 1e-9, 1.1, 2, 2.1, 3, 10**400, "1", True, None],
    "presence_penalty": [-2.1, -2, 2, 2.1, "1", None],
    "frequency_penalty": [-2.1, -2, 2, 2.1, "1", None],
}
EVERYWHERE: dict[str, AllowedRange] = {
    "temperature": AllowedRange(0, 2),
    "top_p": AllowedRange(0, 1),
    "max_tokens": AllowedRange(1, MAX_INTEGER),
    "max_completion_tokens": AllowedRange(1, MAX_INTEGER),
    "presence_penalty": AllowedRange(-2, 2),
    "frequency_penalty": AllowedRange(-2, 2),
}
PENALTY = {"chatglm3": AllowedRange(0, above=True), "glm4": AllowedRange(0, 2, above=True)}
"""The dialects that send a repetition penalty on, and what their servers take."""

CASES = [
    pytest.param(dialect, name, value, id=f"{dialect.name}-{name}-{str(value)[:12]}")
    for dialect in DIALECTS.values()
    for name, values in SAMPLES.items()
    for value in values
]


def body(**members: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], **members}).encode()


def ask(dialect: Dialect, **members: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    outgoing = dialect.ask(read_chat(body(**members)), Profile(model="m"), stream=False)
    return json.loads(outgoing.body), outgoing.ignored


def wrong(dialect: Dialect, name: str, value: Any) -> bool:
    """Return True if the value must be refused: for its type, by the API, or by this dialect's server."""
    if value is None:
        return False
    if isinstance(value, str | bool) or (isinstance(value, float) and name.startswith("max")):
        return True
    if name in EVERYWHERE:
        return not EVERYWHERE[name].takes(value)
    return value == 10**400 or (dialect.name in PENALTY and not PENALTY[dialect.name].takes(value))


@pytest.mark.parametrize(("dialect", "name", "value"), CASES)
def test_value_outside_its_range_is_refused_by_name_and_any_other_is_sent_or_reported(
    dialect: Dialect, name: str, value: Any
) -> None:
    if wrong(dialect, name, value):
        with pytest.raises(BadRequest) as caught:
            ask(dialect, **{name: value})
        assert caught.value.param == name
        assert name in caught.value.message or value == 10**400
        return
    sent, ignored = ask(dialect, **{name: value})
    neutral = value is None or (name.endswith("penalty") and value == 0)
    length = name.startswith("max") and {"max_tokens", "max_length"} & sent.keys()
    assert name in sent or name in ignored or neutral or length


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
def test_sent_number_is_one_that_half_precision_takes(dialect: Dialect) -> None:
    for temperature in (1e-9, 0.001, 0.0099):
        sent, _ = ask(dialect, temperature=temperature)
        if dialect.name in ("chatglm", "chatglm2"):
            assert (sent["temperature"], sent["top_p"]) == (0.1, 0.01)
        elif dialect.name in ("chatglm3", "glm4v"):
            assert sent["temperature"] == 0


TOOL = {"type": "function", "function": {"name": "f"}}
CALLING = [name for name, dialect in DIALECTS.items() if "tools" in dialect.honours] + ["chatglm-cpp"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=str)
@pytest.mark.parametrize("tools", [[TOOL], None], ids=["others-offered", "none-offered"])
@pytest.mark.parametrize("form", ["tool_choice", "function_call"])
def test_choice_of_a_function_that_is_not_offered_is_refused(
    dialect: Dialect, tools: list[Any] | None, form: str
) -> None:
    choice = {"type": "function", "function": {"name": "g"}} if form == "tool_choice" else {"name": "g"}
    offered = "tools" if form == "tool_choice" else "functions"
    given = tools and (tools if form == "tool_choice" else [tool["function"] for tool in tools])
    profile = Profile(model="m", tools="ignore", family="chatglm3")
    with pytest.raises(BadRequest) as caught:
        dialect.ask(read_chat(body(**{form: choice, offered: given})), profile, stream=False)
    assert caught.value.param == form


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in CALLING if name != "openai"], ids=str)
@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\rb", "a\u2028b", " f", "f\n"])
def test_function_whose_name_no_answer_could_hold_is_refused(dialect: Dialect, name: str) -> None:
    profile = Profile(model="m", family="chatglm3")
    for members, param in (
        ({"tools": [TOOL, {"type": "function", "function": {"name": name}}]}, "tools[1].function.name"),
        ({"functions": [{"name": name}]}, "functions[0].name"),
    ):
        with pytest.raises(BadRequest) as caught:
            dialect.ask(read_chat(body(**members)), profile, stream=False)
        assert caught.value.param == param


@pytest.mark.parametrize("dialect", [DIALECTS[name] for name in CALLING], ids=str)
@pytest.mark.parametrize(
    "function",
    [
        pytest.param({"name": "获取天气"}, id="chinese-name"),
        pytest.param({"name": "f", "description": None}, id="null-description"),
        pytest.param({"name": "f", "parameters": {}}, id="empty-parameters"),
        pytest.param(
            {
                "name": "f",
                "parameters": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
            },
            id="type-list",
        ),
    ],
)
def test_usual_shapes_of_functions_are_sent(dialect: Dialect, function: dict[str, Any]) -> None:
    profile = Profile(model="m", family="chatglm3")
    tools = [{"type": "function", "function": function}]
    outgoing = dialect.ask(read_chat(body(tools=tools)), profile, stream=False)
    assert outgoing.tool_names == {function["name"]}


@pytest.mark.parametrize(
    ("range_", "words"),
    [
        (AllowedRange(0, 2), "at least 0 and at most 2"),
        (AllowedRange(0, 2, above=True), "above 0 and at most 2"),
        (AllowedRange(0, above=True), "above 0"),
        (AllowedRange(1, MAX_INTEGER), "at least 1 and at most 2147483647"),
        (AllowedRange(0.5, 1.5), "at least 0.5 and at most 1.5"),
    ],
)
def test_range_is_told_in_words(range_: AllowedRange, words: str) -> None:
    assert range_.words == words


def test_refusal_names_the_parameter_and_its_range() -> None:
    with pytest.raises(BadRequest, match=r"^repetition_penalty must be above 0 and at most 2 for this model"):
        ask(DIALECTS["glm4"], repetition_penalty=3)


def test_every_dialect_states_its_ranges() -> None:
    unchecked = {name for name, dialect in DIALECTS.items() if dialect.ranges is allowed.NOTHING}
    assert unchecked == {"openai"}, "a server that answers 400 itself"
