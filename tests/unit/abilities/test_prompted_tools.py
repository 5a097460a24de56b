"""Tools by prompt: what small models write becomes calls of the offered functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest, ToolCallFailed, UnsupportedParameter
from gateway.formats.events import Delta, Event
from tests.support.opened import opened
from tests.support.path import open_path, reasons, text
from tests.support.servers import Servers, native, streaming, talk

EMULATED = '[[models]]\nname = "m"\nemulate = ["tools", "structured"]\n'
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "天气 weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CALC = {"type": "function", "function": {"name": "calc", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [WEATHER, CALC]
BEIJING = '{"city": "北京"}'
CALL = ("get_weather", {"city": "北京"})


def calls(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of an answer, assembled from its pieces in the way of a client."""
    found: dict[int, list[str]] = {}
    for event in opened(events):
        for piece in event.tools if isinstance(event, Delta) else ():
            call = found.setdefault(piece.index, ["", ""])
            call[0] += piece.name or ""
            call[1] += piece.arguments
    return [(name, json.loads(arguments)) for name, arguments in found.values()]


AS_ASKED = '{"name": "get_weather", "arguments": {"city": "北京"}}'
FORMS = [
    pytest.param(AS_ASKED, "", id="as-asked"),
    pytest.param("好的，我查一下。\n" + AS_ASKED, "好的，我查一下。", id="text-before"),
    pytest.param('```json\n{"name": "get_weather", "arguments": {"city": "北京"}}\n```', "", id="fence"),
    pytest.param('{"tool": "get_weather", "args": {"city": "北京"}}', "", id="other-member-names"),
    pytest.param(
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"北京\\"}"}', "", id="arguments-as-text"
    ),
    pytest.param(
        '{"tool_calls": [{"type": "function", "function": ' + AS_ASKED + "}]}", "", id="openai-form"
    ),
    pytest.param("{'name': 'get_weather', 'arguments': {'city': '北京',}}", "", id="python"),
    pytest.param("{“name”：“get_weather”，“arguments”：{“city”：“北京”}}", "", id="chinese-punctuation"),
    pytest.param('{"get_weather": {"city": "北京"}}', "", id="name-as-key"),
    pytest.param('{"name": "get_weather", "city": "北京"}', "", id="flat"),
    pytest.param('{"name": "get_weather", "arguments": {"city": "北京"', "", id="cut"),
    pytest.param('{"name": "GetWeather", "arguments": {"City": "北京"}}', "", id="other-case"),
    pytest.param(f"<tool_call>{AS_ASKED}</tool_call>", "", id="tags"),
    pytest.param(
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value></tool_call>",
        "",
        id="glm-xml",
    ),
    pytest.param(
        '我需要工具\nAction: get_weather\nAction Input: {"city": "北京"}\nObservation: 晴',
        "我需要工具",
        id="react",
    ),
    pytest.param('动作：get_weather\n动作输入：{"city": "北京"}', "", id="react-chinese"),
    pytest.param('get_weather\n{"city": "北京"}', "", id="glm4"),
    pytest.param('get_weather(city="北京")', "", id="python-call"),
    pytest.param(
        '{"name": "get_weather", "arguments": {"city": "北京"}}\n结果是晴天。', "", id="text-behind"
    ),
]


@pytest.mark.parametrize(("said", "before"), FORMS)
@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2"])
@pytest.mark.parametrize("stream", [False, True])
async def test_call_in_any_usual_form_is_a_call(said: str, before: str, dialect: str, stream: bool) -> None:
    async with open_path(Servers(a=native(said)), dialect, EMULATED) as scene:
        events = await scene.answer(tools=TOOLS, stream=stream)
    assert calls(events) == [CALL]
    assert text(events).strip() == before
    assert reasons(events) == {0: "tool_calls"}
    assert scene.receipt.retries == ()


@pytest.mark.parametrize(("said", "before"), FORMS)
@pytest.mark.parametrize("size", [1, 3, 7])
async def test_call_in_a_stream_is_a_call_however_the_stream_is_cut(
    said: str, before: str, size: int
) -> None:
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    async with open_path(Servers(a=streaming(*talk(*pieces))), "openai", EMULATED, capabilities=[]) as scene:
        events = await scene.answer(tools=TOOLS, stream=True)
    assert calls(events) == [CALL]
    assert text(events).strip() == before
    assert reasons(events) == {0: "tool_calls"}


PLAIN = [
    "你好！我是 ChatGLM。",
    'A list: [1, 2] and {"a": 1}.',
    "```python\nprint(1)\n```\ndone",
    "The get_weather tool tells the weather.",
    "calc is a function",
    "Action films are great.",
    "{not json",
    "<tool",
    "",
]


@pytest.mark.parametrize("said", PLAIN[:-1])
@pytest.mark.parametrize("size", [1, 4, 100])
async def test_text_without_a_call_goes_on_unchanged(said: str, size: int) -> None:
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    async with open_path(Servers(a=streaming(*talk(*pieces))), "openai", EMULATED, capabilities=[]) as scene:
        events = await scene.answer(tools=TOOLS, stream=True)
    assert text(events) == said
    assert reasons(events) == {0: "stop"}
    assert calls(events) == []


async def test_text_before_a_call_passes_while_the_stream_arrives() -> None:
    said = talk("一", "二", '{"name": "calc",', ' "arguments": {}}')
    async with open_path(Servers(a=streaming(*said)), "openai", EMULATED, capabilities=[]) as scene:
        events = await scene.answer(tools=TOOLS, stream=True)
    deltas = [(one.text, len(one.tools)) for one in events if isinstance(one, Delta)]
    assert deltas == [("一", 0), ("二", 0), ("", 1)]


async def test_several_calls_are_several_calls() -> None:
    said = '[{"name": "calc", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "x"}}]'
    for reply in (said, said[1:-1].replace("}}, {", "}}\n{")):
        async with open_path(Servers(a=native(reply)), "chatglm2", EMULATED) as scene:
            assert calls(await scene.answer(tools=TOOLS)) == [("calc", {}), ("get_weather", {"city": "x"})]
        async with open_path(Servers(a=native(reply)), "chatglm2", EMULATED) as scene:
            only = await scene.answer(tools=TOOLS, parallel_tool_calls=False)
        assert calls(only) == [("calc", {})]


async def test_model_sees_the_functions_and_how_to_call_them() -> None:
    servers = Servers(a=native("hi"))
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        await scene.answer(tools=TOOLS)
        assert scene.receipt.ignored == ()
    prompt = servers.asked[0].body["prompt"]
    assert prompt.startswith("hi\n\n")
    assert '"name":"get_weather"' in prompt
    assert '"required":["city"]' in prompt
    assert '{"name": "tool", "arguments": {...}}' in prompt


async def test_calls_and_results_of_the_history_are_told_in_the_same_form() -> None:
    history = [
        {"role": "user", "content": "天气？"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": BEIJING}},
            {"id": "2", "type": "function", "function": {"name": "calc", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "晴"},
        {"role": "tool", "tool_call_id": "2", "content": "4"},
    ]  # fmt: skip
    servers = Servers(a=native("北京晴"))
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        events = await scene.answer(tools=TOOLS, messages=history)
    assert text(events) == "北京晴"
    sent = servers.asked[0].body
    assert sent["history"][0][1] == (
        '[{"name": "get_weather", "arguments": {"city": "北京"}}, {"name": "calc", "arguments": {}}]'
    )
    assert "工具 get_weather 的结果 (result of get_weather):\n晴" in sent["prompt"]
    assert "工具 calc 的结果 (result of calc):\n4" in sent["prompt"]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ('{"name": "get_weather", "arguments": {"town": "x"}}', "'city' is a required property"),
        ('{"name": "get_weather", "arguments": {"city": "x", "days": "many"}}', "$.days"),
        ('{"name": "nothing", "arguments": {}}', "there is no tool 'nothing'"),
        ("Action: get_weather\nAction Input: 北京", "not a JSON object"),
    ],
)
async def test_wrong_call_is_shown_to_the_model_once(said: str, fault: str) -> None:
    servers = Servers(a=[native(said), native('{"name": "get_weather", "arguments": {"city": "北京"}}')])
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        events = await scene.answer(tools=TOOLS)
    assert calls(events) == [CALL]
    assert scene.receipt.retries == ("tool_call",)
    assert fault in servers.asked[1].body["prompt"]


async def test_call_that_stays_wrong_goes_to_the_client_unless_the_function_is_strict() -> None:
    said = '{"name": "get_weather", "arguments": {"town": "x"}}'
    async with open_path(Servers(a=native(said)), "chatglm2", EMULATED) as scene:
        events = await scene.answer(tools=TOOLS)
    assert calls(events) == [("get_weather", {"town": "x"})]
    strict = [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]  # type: ignore[dict-item]
    async with open_path(Servers(a=native(said)), "chatglm2", EMULATED) as scene:
        await scene.failure(ToolCallFailed, tools=strict)


async def test_call_of_an_unknown_function_stays_text() -> None:
    said = '{"name": "nothing", "arguments": {}}'
    async with open_path(Servers(a=native(said)), "chatglm2", EMULATED) as scene:
        events = await scene.answer(tools=TOOLS)
    assert (text(events), reasons(events)) == (said, {0: "stop"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_demanded_call_is_asked_for_again_and_then_an_error(choice: Any, stream: bool) -> None:
    servers = Servers(a=native("北京今天晴。"))
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        came, error = await scene.failure(ToolCallFailed, tools=TOOLS, tool_choice=choice, stream=stream)
    assert not [one for one in came if isinstance(one, Delta) and not one.empty]
    assert "no tool" in error.message
    assert "必须调用工具" in servers.asked[0].body["prompt"]
    assert servers.order == ["a", "a"]


async def test_only_the_named_function_is_offered_and_called() -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    servers = Servers(
        a=[native('{"name": "calc", "arguments": {}}'), native('{"city": "北京"}'), native("{}")]
    )
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        await scene.failure(ToolCallFailed, tools=TOOLS, tool_choice=named)
    assert '"calc"' not in servers.asked[0].body["prompt"]


async def test_legacy_functions_are_offered_too() -> None:
    servers = Servers(a=native('{"name": "get_weather", "arguments": {"city": "北京"}}'))
    async with open_path(servers, "chatglm2", EMULATED) as scene:
        events = await scene.answer(functions=[WEATHER["function"]], function_call="auto")
    assert calls(events) == [CALL]


async def test_tools_without_the_emulation_are_refused_as_before() -> None:
    async with open_path(Servers(a=native("x")), "chatglm2") as scene:
        with pytest.raises(UnsupportedParameter):
            scene.plan(tools=TOOLS)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"tools": [{"type": "web_search"}]}, UnsupportedParameter),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, BadRequest),
    ],
)
async def test_tools_that_cannot_be_offered_are_refused(body: dict[str, Any], kind: type[BadRequest]) -> None:
    async with open_path(Servers(a=native("x")), "chatglm2", EMULATED) as scene:
        with pytest.raises(kind):
            scene.plan(**body)


async def test_tools_and_structured_output_work_together() -> None:
    wanted = {"type": "json_object"}
    for said, called in (('{"name": "calc", "arguments": {}}', True), ('{"a": 1}', False)):
        async with open_path(Servers(a=native(said)), "chatglm2", EMULATED) as scene:
            events = await scene.answer(tools=TOOLS, response_format=wanted)
        assert bool(calls(events)) is called
        assert text(events) == ("" if called else said)
