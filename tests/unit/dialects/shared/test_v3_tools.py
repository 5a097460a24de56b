from __future__ import annotations

import ast
import json
import warnings
from typing import Any

import pytest

from gateway.dialects.shared import v3_tools
from gateway.errors import BadRequest, UnsupportedParameter
from gateway.formats.events import ToolPiece
from gateway.formats.openai import ChatRequest, FunctionCall, FunctionDefinition, read_chat

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {}}}}
TOOL = {"type": "function", "function": FUNCTION}
OTHER = {"type": "function", "function": {"name": "g"}}


def read(**body: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "q"}], **body}).encode())


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"tools": [TOOL, OTHER]}, ["f", "g"], id="all"),
        pytest.param({"tools": [TOOL], "tool_choice": "none"}, [], id="none"),
        pytest.param({"tools": [TOOL, OTHER], "tool_choice": "required"}, ["f", "g"], id="required"),
        pytest.param({"tools": [TOOL, OTHER], "tool_choice": named("g")}, ["g"], id="named"),
        pytest.param(
            {"tools": [OTHER, OTHER], "tool_choice": named("g")}, ["g"], id="named-and-offered-twice"
        ),
        pytest.param({"functions": [FUNCTION], "function_call": {"name": "f"}}, ["f"], id="old-form"),
    ],
)
def test_what_is_offered_is_what_may_be_called(body: dict[str, Any], names: list[str]) -> None:
    assert [function.name for function in v3_tools.offered(read(**body))] == names


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [TOOL], "tool_choice": named("x")}, "tool_choice"),
        ({"functions": [FUNCTION], "function_call": {"name": "x"}}, "function_call"),
    ],
)
def test_a_choice_of_what_is_not_offered_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        v3_tools.offered(read(**body))
    assert caught.value.param == param


@pytest.mark.parametrize("tool", [{"type": "function"}, {"type": "custom", "function": FUNCTION}])
def test_a_tool_that_is_no_function_is_refused_by_its_place(tool: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        v3_tools.offered(read(tools=[TOOL, tool]))
    assert caught.value.param == "tools[1].type"


def test_a_function_is_flattened_with_every_member_the_model_knows() -> None:
    assert v3_tools.flat(FunctionDefinition.model_validate(FUNCTION)) == FUNCTION
    empty = {"name": "g", "description": "", "parameters": {"type": "object", "properties": {}}}
    assert v3_tools.flat(FunctionDefinition(name="g")) == empty
    assert v3_tools.flat(FunctionDefinition.model_validate({"name": "g", "strict": True})) == empty


def test_a_function_can_be_nested() -> None:
    assert v3_tools.nested(FunctionDefinition.model_validate(FUNCTION)) == TOOL


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param('{"city":"北京","n":2}', "tool_call(city='北京', n=2)", id="plain"),
        pytest.param('{"a":true,"b":false,"c":null}', "tool_call(a=True, b=False, c=None)", id="constants"),
        pytest.param('{"a":{"b":[1,-2.5]}}', "tool_call(a={'b': [1, -2.5]})", id="deep"),
        pytest.param('{"a":"x\\n\'\\"\\\\"}', "tool_call(a='x\\n\\'\"\\\\')", id="quotes"),
        pytest.param("{}", "tool_call()", id="no-arguments"),
        pytest.param("", "tool_call()", id="nothing-said"),
        pytest.param('{"城市":1}', "tool_call(城市=1)", id="chinese-name"),
        pytest.param('{"a b":1}', '{"a b":1}', id="no-identifier"),
        pytest.param('{"class":1}', '{"class":1}', id="keyword"),
        pytest.param('{"":1}', '{"":1}', id="empty-name"),
        pytest.param("[1]", "[1]", id="a-list"),
        pytest.param("null", "null", id="null"),
        pytest.param('{"a":NaN}', '{"a":NaN}', id="not-finite"),
        pytest.param('{"a":1,"a":2}', '{"a":1,"a":2}', id="doubled"),
        pytest.param("{broken", "{broken", id="broken"),
    ],
)
def test_a_call_is_written_as_the_model_writes_it(arguments: str, code: str) -> None:
    call = FunctionCall(name="f", arguments=arguments)
    assert v3_tools.written_call(call) == f"f\n```python\n{code}\n```"


@pytest.mark.parametrize("arguments", ['{"a":"x<|assistant|>y"}', '{"a b":"x<|assistant|>y"}'])
def test_a_call_cannot_be_cut_in_two_by_its_arguments(arguments: str) -> None:
    text = v3_tools.written_call(FunctionCall(name="f", arguments=arguments))
    assert v3_tools.CALLS_JOINT not in text
    code = text.split("\n")[2]
    value = (
        ast.literal_eval(code.removeprefix("tool_call(a=").removesuffix(")"))
        if "=" in code
        else json.loads(code)
    )
    assert value in ("x<|assistant|>y", {"a b": "x<|assistant|>y"})


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city":"北京","n":-2}',
        '{"a":[1,{"b":null}],"c":"x\\n```\\n"}',
        "{}",
        '{"a":"<|assistant|>"}',
        '{"a":1e-7}',
    ],
)
def test_what_is_written_is_read_again(arguments: str) -> None:
    text = v3_tools.written_call(FunctionCall(name="f", arguments=arguments))
    piece = v3_tools.read_call(text, {"f"})
    assert piece is not None
    assert json.loads(piece.arguments) == json.loads(arguments)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("f\n ```python\ntool_call(a=1)\n```", id="as-recorded"),
        pytest.param("f\n```python\ntool_call(a=1)\n```", id="without-the-blank"),
        pytest.param("f \n\n```\ntool_call(a=1)```\n ", id="loosely"),
    ],
)
def test_a_call_is_read(text: str) -> None:
    assert v3_tools.read_call(text, {"f", "g"}) == ToolPiece(0, '{"a":1}', name="f")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("f", id="name-alone"),
        pytest.param("x\n```python\ntool_call(a=1)\n```", id="not-offered"),
        pytest.param("\nf\n```python\ntool_call(a=1)\n```", id="not-on-the-first-line"),
        pytest.param("f\ntool_call(a=1)", id="no-fence"),
        pytest.param("f\n```python\ntool_call(a=1)", id="fence-open"),
        pytest.param("f\n```tool_call(a=1)```", id="fence-on-one-line"),
        pytest.param("f\n```json\ntool_call(a=1)\n```", id="other-language"),
        pytest.param("f\n```python\ntool_call(a=1)\n```\nDone.", id="text-behind"),
        pytest.param("f\n```python\n\n```", id="empty-fence"),
        pytest.param("f\n```\n```", id="bare-fence"),
    ],
)
def test_what_is_not_wholly_a_call_is_none(text: str) -> None:
    assert v3_tools.read_call(text, {"f"}) is None


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("tool_call()", {}),
        ("tool_call(a='x', b=\"y\", c='''z''')", {"a": "x", "b": "y", "c": "z"}),
        ("tool_call(a='x' 'y')", {"a": "xy"}),
        ("tool_call(a=(1, 2), b=[], c={})", {"a": [1, 2], "b": [], "c": {}}),
        ("tool_call(a=-1, b=-2.5, c=0x10)", {"a": -1, "b": -2.5, "c": 16}),
        ("tool_call(a=True, b=None)", {"a": True, "b": None}),
        ("  tool_call(\n a=1, # why\n)  ".strip(), {"a": 1}),
        (r"tool_call(a='\d')", {"a": r"\d"}),
    ],
)
def test_literals_are_taken(code: str, values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert v3_tools.keyword_values(code) == values


@pytest.mark.parametrize(
    "code",
    [
        "",
        "tool_call",
        "tool_call(1)",
        "tool_call(*[1])",
        "tool_call(**{'a': 1})",
        "tool_call(a=1, a=2)",
        "other(a=1)",
        "x.tool_call(a=1)",
        "tool_call(a=1).b",
        "tool_call(a=1)()",
        "tool_call(a=b)",
        "tool_call(a=open('/etc/passwd').read())",
        "tool_call(a=(lambda: 1)())",
        "tool_call(a=1 + 1)",
        "tool_call(a='x' * 10)",
        "tool_call(a=f'{1}')",
        "tool_call(a=b'x')",
        "tool_call(a=1j)",
        "tool_call(a=...)",
        "tool_call(a={1, 2})",
        "tool_call(a={1: 2})",
        "tool_call(a={**{}})",
        "tool_call(a=1e999)",
        "tool_call(a=-1e999)",
        "tool_call(a=~1)",
        "tool_call(a=[x for x in ()])",
        "tool_call(a=1); tool_call(a=2)",
        "import os",
        "tool_call(a=\x00)",
        "tool_call(a='x",
        "tool_call(a=" + "(" * 300 + ")" * 300 + ")",
        "tool_call(a=" + "[" * 5000 + "]" * 5000 + ")",
        "tool_call(a=" + "-" * 20_000 + "1)",
        "tool_call(a=" + "+".join(["1"] * 20_000) + ")",
        "tool_call(a=" + "9" * 5000 + ")",
        "tool_call(a='" + "x" * 70_000 + "')",
    ],
    ids=lambda code: code[:30],
)
def test_whatever_is_not_a_literal_is_no_call_and_is_never_run(code: str) -> None:
    assert v3_tools.keyword_values(code) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), ("{}", {}), ("42", None), ("", None), ("{'a': 1}", None), ('{"a": NaN}', None)],
)
def test_arguments_are_an_object_or_nothing(text: str, value: dict[str, Any] | None) -> None:
    assert v3_tools.arguments_object(text) == value
