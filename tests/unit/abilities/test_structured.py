"""Structured output on backends without it: what small models write becomes JSON that fits, or an error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest, GatewayError, StructuredOutputFailed
from gateway.formats.events import Delta
from tests.support.path import PathScene, open_path, reasons, text, usage
from tests.support.servers import Servers, chunk, native, streaming, talk, whole

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "mood": {"enum": ["good", "bad"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
ANN = {"name": "安", "age": 5}
NATIVE = "chatglm2"


def by_schema(schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}


async def answered(
    *replies: str, stream: bool = False, extra: str = "", **body: Any
) -> tuple[str, PathScene]:
    """Return the answer to a request whose backend says these texts, one after the other."""
    servers = Servers(a=[native(reply) for reply in replies])
    async with open_path(servers, NATIVE, extra) as scene:
        events = await scene.answer(stream=stream, response_format=by_schema(), **body)
    return text(events), scene


SLOPPY = [
    pytest.param('{"name": "安", "age": 5}', id="json"),
    pytest.param('```json\n{"name": "安", "age": 5}\n```', id="fence"),
    pytest.param('好的，结果如下：\n{"name": "安", "age": 5}\n希望有帮助！', id="prose"),
    pytest.param('Sure! ```\n{"name": "安", "age": 5}', id="open-fence"),
    pytest.param("{'name': '安', 'age': 5}", id="single-quotes"),
    pytest.param('{"name": "安", "age": 5,}', id="trailing-comma"),
    pytest.param("{'name': '安', 'age': 5, 'mood': None}", id="python-none-for-an-optional-property"),
    pytest.param("{“name”：“安”，“age”：5}", id="chinese-punctuation"),
    pytest.param('｛"name"："安"，"age"：5｝', id="full-width-brackets"),
    pytest.param('{"name": "安", "age": 5', id="last-bracket-missing"),
    pytest.param('{"name": "安", "age": 5}{"name": "李", "age": 6}', id="two-objects"),
    pytest.param('{"Name": "安", "AGE": 5}', id="wrong-key-case"),
    pytest.param('{\n  "name": "安", // 名字\n  "age": 5 /* 岁 */\n}', id="comments"),
    pytest.param('{name: "安", age: 5}', id="bare-keys"),
    pytest.param('{"name": "安", "age": "5"}', id="number-as-text"),
    pytest.param('[{"name": "安", "age": 5}]', id="in-a-list"),
    pytest.param('{"result": {"name": "安", "age": 5}}', id="wrapped"),
    pytest.param('{"person": {"name": "x"}} {"name": "安", "age": 5}', id="wrong-one-first"),
    pytest.param('<think>{"name": "?"}</think>{"name": "安", "age": 5}', id="after-a-thought"),
    pytest.param('{"name": "安" "age": 5}', id="comma-missing"),
    pytest.param('{"name": "安", "age": 5.0}', id="whole-float"),
    pytest.param('\ufeff \n{"name": "安", "age": 5}\n', id="blanks-around"),
]


@pytest.mark.parametrize("said", SLOPPY)
@pytest.mark.parametrize("stream", [False, True])
async def test_sloppy_answer_becomes_json_that_fits(said: str, stream: bool) -> None:
    answer, scene = await answered(said, stream=stream)
    assert json.loads(answer) == ANN
    assert scene.receipt.retries == ()


HOPELESS = [
    pytest.param("抱歉，我无法回答这个问题。", "holds no JSON", id="refusal"),
    pytest.param(
        "",
        "holds no JSON",
        id="empty-text",
        marks=pytest.mark.skip(reason="empty answers are upstream errors"),
    ),
    pytest.param('{"name": "安"}', "'age' is a required property", id="required-missing"),
    pytest.param('{"name": "安", "age": "five"}', "$.age", id="wrong-type"),
    pytest.param('{"name": "安", "age": 5, "mood": "so-so"}', "$.mood", id="not-in-enum"),
    pytest.param('{"name": "安", "age": 5, "extra": 1}', "extra", id="additional-property"),
    pytest.param("null", "$: None", id="null"),
    pytest.param("[1, 2]", "$: [1, 2]", id="list"),
    pytest.param(json.dumps(SCHEMA), "required", id="the-schema-itself"),
    pytest.param("name: 安, age: 5", "holds no JSON", id="yaml"),
    pytest.param('{"name": "安", "age": NaN}', "$", id="nan"),
]


@pytest.mark.parametrize(("said", "fault"), HOPELESS)
@pytest.mark.parametrize("stream", [False, True])
async def test_hopeless_answer_is_asked_again_once_and_then_an_error(
    said: str, fault: str, stream: bool
) -> None:
    servers = Servers(a=native(said))
    async with open_path(servers, NATIVE) as scene:
        came, error = await scene.failure(StructuredOutputFailed, stream=stream, response_format=by_schema())
    assert not [one for one in came if isinstance(one, Delta) and one.text]
    assert fault in error.message
    assert servers.order == ["a", "a"]
    assert scene.receipt.retries == ("structured_output",)


async def test_corrective_request_shows_the_model_its_answer_and_what_is_wrong() -> None:
    servers = Servers(a=[native('{"name": "安"}'), native('{"name": "安", "age": 5}')])
    async with open_path(servers, NATIVE) as scene:
        events = await scene.answer(response_format=by_schema())
    assert json.loads(text(events)) == ANN
    first, second = (one.body for one in servers.asked)
    assert '"required":["name","age"]' in first["prompt"]
    assert second["history"][0][1] == '{"name": "安"}'
    assert "'age' is a required property" in second["prompt"]
    assert '"required":["name","age"]' in second["prompt"]
    assert [one.outcome for one in scene.receipt.attempts] == ["ok", "ok"]


async def test_json_object_takes_any_object_and_nothing_else() -> None:
    wanted = {"type": "json_object"}
    async with open_path(Servers(a=native('结果：{"a": [1]}')), NATIVE) as scene:
        assert text(await scene.answer(response_format=wanted)) == '{"a": [1]}'
    async with open_path(Servers(a=native("[1]")), NATIVE) as scene:
        await scene.failure(StructuredOutputFailed, response_format=wanted)


@pytest.mark.parametrize(
    "schema", [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}, True]
)
async def test_schema_of_another_type_than_object_is_honoured(schema: Any) -> None:
    said = "[1, 2]" if isinstance(schema, dict) and schema["type"] == "array" else "7"
    async with open_path(Servers(a=native(f"```\n{said}\n```")), NATIVE) as scene:
        assert text(await scene.answer(response_format=by_schema(schema))) == said


async def test_answer_that_was_cut_at_its_limit_goes_on_as_it_is_and_says_so() -> None:
    replies = streaming(
        chunk("", role=True), chunk('{"name": "安", "ag'), chunk(finish="length"), b"data: [DONE]\n\n"
    )
    async with open_path(Servers(a=replies), "openai", capabilities=[]) as scene:
        events = await scene.answer(stream=True, response_format=by_schema())
    assert text(events) == '{"name": "安", "ag'
    assert reasons(events) == {0: "length"}


async def test_stream_is_held_until_its_value_is_proven() -> None:
    async with open_path(
        Servers(a=streaming(*talk('{"name": ', '"安", ', '"age": 5}'))), "openai", capabilities=[]
    ) as scene:
        events = await scene.answer(stream=True, response_format=by_schema())
    deltas = [one for one in events if isinstance(one, Delta)]
    assert [one.text for one in deltas] == ['{"name": "安", "age": 5}']


async def test_unvalidated_stream_passes_the_value_on_while_it_arrives() -> None:
    extra = '[[models]]\nname = "m"\nstream_unvalidated = true\n'
    said = talk("好的：", '{"name"', ': "}安"', ', "age": "?"', "} 完", "毕 {}")
    async with open_path(Servers(a=streaming(*said)), "openai", extra, capabilities=[]) as scene:
        events = await scene.answer(stream=True, response_format=by_schema())
    deltas = [one.text for one in events if isinstance(one, Delta)]
    assert deltas == ['{"name"', ': "}安"', ', "age": "?"', "}"]


async def test_every_choice_is_proven() -> None:
    async with open_path(Servers(a=native('{"name": "安", "age": "5"}')), NATIVE) as scene:
        events = await scene.answer(n=2, response_format=by_schema())
    assert [json.loads(text(events, choice)) for choice in (0, 1)] == [ANN, ANN]
    assert usage(events).completion > 0


async def test_backend_that_has_structured_output_gets_the_request_as_it_is() -> None:
    servers = Servers(a=whole("not json"))
    async with open_path(servers, "openai") as scene:
        await scene.answer(response_format=by_schema())
    assert servers.asked[0].body["response_format"] == by_schema()
    assert servers.order == ["a"]


async def test_model_without_the_emulation_reports_the_loss() -> None:
    servers = Servers(a=native("not json"))
    async with open_path(servers, NATIVE, '[[models]]\nname = "m"\nemulate = []\n') as scene:
        events = await scene.answer(response_format=by_schema())
    assert text(events) == "not json"
    assert scene.receipt.ignored == ("response_format",)


@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2", "chatglm3", "glm4", "chatglm-cpp"])
async def test_nothing_is_reported_as_ignored_where_it_is_emulated(dialect: str) -> None:
    good = native if dialect in ("chatglm", "chatglm2") else whole
    async with open_path(Servers(a=good('{"name": "安", "age": 5}')), dialect) as scene:
        events = await scene.answer(response_format=by_schema())
    assert json.loads(text(events)) == ANN
    assert reasons(events) == {0: "stop"}
    assert scene.receipt.ignored == ()


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema"),
        (by_schema(5), "response_format.json_schema.schema"),
        (by_schema({"type": "objekt"}), "response_format.json_schema.schema.type"),
        (
            by_schema({"properties": {"a": {"$ref": "http://x/y"}}}),
            "response_format.json_schema.schema.properties.a.$ref",
        ),
        (by_schema({"$ref": "#/$defs/none"}), "response_format.json_schema.schema"),
    ],
)
async def test_schema_that_cannot_be_used_is_refused_before_anything_is_asked(
    wanted: Any, param: str
) -> None:
    servers = Servers(a=native("x"))
    async with open_path(servers, NATIVE) as scene:
        with pytest.raises(BadRequest) as caught:
            scene.plan(response_format=wanted)
    assert caught.value.param == param
    assert servers.order == []


async def test_client_that_forbids_retries_by_configuration_gets_the_error_at_once() -> None:
    servers = Servers(a=native("no"))
    async with open_path(servers, NATIVE, "[retries]\nattempts = 1\n") as scene:
        _, error = await scene.failure(StructuredOutputFailed, response_format=by_schema())
    assert isinstance(error, GatewayError)
    assert servers.order == ["a"]


async def test_usage_counts_what_the_client_gets() -> None:
    answer, scene = await answered('好的 {"name": "安", "age": 5}')
    assert json.loads(answer) == ANN
    assert scene.receipt.usage is not None
