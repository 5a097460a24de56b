from __future__ import annotations

import json

import pytest

from gateway.simulator.brain import Brain, BrainPrompt, BrainTool, CannedBrain, EchoBrain, chop, tokens
from gateway.simulator.exchange import ModelError

WEATHER = BrainTool(
    "get_weather", "", {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
)


def call(name: str, arguments: object) -> str:
    return f"{name}({json.dumps(arguments, ensure_ascii=False)})"


async def said(brain: Brain, prompt: BrainPrompt, reply: str | None = None) -> str:
    return "".join([piece async for piece in brain.answer(prompt, reply).pieces])


async def test_echo_tells_what_it_was_handed() -> None:
    prompt = BrainPrompt("m", "hi", [["a", "b"]], {"top_p": 1, "do_sample": True}, lead="\n ")
    assert await said(EchoBrain(4), prompt) == (
        '\n {"stub": "m", "prompt": "hi", "history": [["a", "b"]], "params": {"do_sample": true, "top_p": 1}}'
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("x @@reply:hello@@", "\n hello", id="reply"),
        pytest.param("@@reply:a\\nb@@", "\n a\nb", id="newline"),
        pytest.param("@@reply:@@", "\n ", id="empty"),
        pytest.param("@@reply:call@@@@raw@@", "call", id="raw"),
    ],
)
@pytest.mark.parametrize("brain", [EchoBrain(4), CannedBrain(4)], ids=["echo", "canned"])
async def test_directive_prescribes_the_answer(brain: Brain, text: str, answer: str) -> None:
    assert await said(brain, BrainPrompt("m", text, lead="\n ")) == answer


async def test_directive_wins_over_a_fixed_reply() -> None:
    assert await said(CannedBrain(4), BrainPrompt("m", "@@reply:directive@@"), "fixed") == "directive"
    assert await said(CannedBrain(4), BrainPrompt("m", "hi"), "fixed") == "fixed"


def test_directives_prescribe_the_pace_and_the_failure() -> None:
    answer = EchoBrain(4).answer(BrainPrompt("m", "@@sleep:1.5@@ @@tsleep:0.25@@"))
    assert (answer.wait, answer.pause) == (1.5, 0.25)
    with pytest.raises(ModelError):
        EchoBrain(4).answer(BrainPrompt("m", "@@raise@@"))


@pytest.mark.parametrize(
    ("question", "part"),
    [
        pytest.param("你好", "我是模拟的 chatglm2-6b", id="chinese"),
        pytest.param("hello", "I am a simulated chatglm2-6b", id="english"),
    ],
)
async def test_canned_answer_names_the_model_in_the_language_of_the_question(
    question: str, part: str
) -> None:
    answer = await said(CannedBrain(4), BrainPrompt("chatglm2-6b", question))
    assert part in answer
    assert question in answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("use get_weather", 'get_weather({"city": "Beijing", "days": 1})', id="named"),
        pytest.param("北京天气怎么样", 'get_weather({"city": "北京", "days": 1})', id="chinese-weather"),
        pytest.param("what is the weather?", 'get_weather({"city": "Beijing", "days": 1})', id="weather"),
    ],
)
async def test_canned_brain_calls_the_tool_that_fits(text: str, answer: str) -> None:
    prompt = BrainPrompt("m", text, lead="\n ", tools=[BrainTool("other"), WEATHER], write_call=call)
    assert await said(CannedBrain(4), prompt) == answer


async def test_canned_brain_calls_nothing_unasked() -> None:
    prompt = BrainPrompt("m", "hello", tools=[WEATHER], write_call=call)
    assert "get_weather" not in await said(CannedBrain(4), prompt)


async def test_canned_brain_calls_the_first_tool_where_it_must() -> None:
    prompt = BrainPrompt("m", "hello", tools=[BrainTool("first"), WEATHER], must_call=True, write_call=call)
    assert await said(CannedBrain(4), prompt) == "first({})"


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        pytest.param({}, {}, id="no-properties"),
        pytest.param({"properties": {"a": {"enum": ["x", "y"]}}}, {"a": "x"}, id="enum"),
        pytest.param(
            {"properties": {"a": {"type": "boolean"}, "b": {}}, "required": ["a"]}, {"a": True}, id="required"
        ),
        pytest.param(
            {"properties": {"a": {"type": "array"}, "b": {"type": "number"}}}, {"a": [], "b": 1.5}, id="types"
        ),
    ],
)
async def test_canned_call_fits_the_schema(schema: dict[str, object], arguments: object) -> None:
    prompt = BrainPrompt("m", "call f", tools=[BrainTool("f", "", schema)], write_call=call)
    assert await said(CannedBrain(4), prompt) == call("f", arguments)


async def test_canned_brain_quotes_the_result_of_a_tool() -> None:
    prompt = BrainPrompt("m", '{"weather": "sunny"}', observation=True, tools=[WEATHER], write_call=call)
    assert await said(CannedBrain(4), prompt) == 'The tool returned: {"weather": "sunny"}'
    assert "晴" in await said(CannedBrain(4), BrainPrompt("m", "晴", observation=True))


async def test_stop_token_counts_as_one() -> None:
    assert tokens("ab<|observation|>") == ["a", "b", "<|observation|>"]
    assert [piece async for piece in chop("abcd<|observation|>e", 4)] == ["abcd", "<|observation|>e"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (["string", "null"], "Beijing"),
        (["null", "integer"], 1),
        (["null"], None),
        ("null", None),
        (None, "Beijing"),
    ],
)
async def test_called_tool_gets_a_value_of_every_kind_of_type(kind: object, value: object) -> None:
    tool = BrainTool("f", parameters={"properties": {"x": {"type": kind}}})
    prompt = BrainPrompt("m", "use f", tools=[tool], write_call=lambda name, given: f"{name} {dict(given)}")
    answer = CannedBrain(100).answer(prompt)
    assert "".join([piece async for piece in answer.pieces]) == f"f {{'x': {value!r}}}"
