from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from gateway.dialects.base import AskWhole, Outgoing, Profile
from gateway.dialects.glm4 import GLM4Dialect
from gateway.errors import ContextExceeded, UpstreamTruncated
from gateway.formats import sse
from gateway.formats.events import Delta, Finish, ToolPiece
from gateway.formats.native import NativeRequest
from gateway.formats.openai import ChatRequest, chat_of_pairs, read_chat

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def request(*texts: str, **members: Any) -> ChatRequest:
    messages = [{"role": "user", "content": text} for text in texts or ("hi",)]
    return read_chat(json.dumps({"messages": messages, **members}).encode())


def ask(chat: ChatRequest, stream: bool = False, **profile: Any) -> Outgoing:
    return GLM4Dialect().ask(chat, Profile(model="m", **profile), stream=stream)


def event(delta: dict[str, Any], finish: str | None = None) -> sse.SseEvent:
    return sse.SseEvent(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def test_the_server_batches_and_has_tools_but_neither_stop_nor_n() -> None:
    dialect = GLM4Dialect()
    assert (dialect.name, dialect.context, dialect.probe) == ("glm4", 8192, "/health")
    assert dialect.honours == {"tools", "named_tool"}


def test_the_context_is_8192_tokens_unless_configured() -> None:
    with pytest.raises(ContextExceeded):
        ask(request("x" * 29_100))
    assert ask(request("x" * 29_000)).prompt_tokens == 6 + 7436
    assert ask(request("x" * 29_100), context=9000).budget == 1024


def test_the_offered_names_are_known_to_whoever_checks_calls() -> None:
    assert ask(request(tools=[TOOL])).tool_names == {"f"}
    assert ask(request(tools=[TOOL], tool_choice="none")).tool_names == frozenset()


def test_asking_beside_tools_changes_nothing_in_the_shared_request() -> None:
    chat = read_chat(
        json.dumps(
            {
                "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}],
                "tools": [TOOL],
            }
        ).encode()
    )
    before = deepcopy(chat.body)
    assert ask(chat).body == ask(chat).body
    assert chat.body == before


def test_a_native_client_leaves_its_empty_halves_out_and_counts_the_prompt_in() -> None:
    native = NativeRequest("q", (("", "x"), ("a", "")), max_length=100)
    outgoing = ask(chat_of_pairs(native, "m", empty_halves=False))
    sent = json.loads(outgoing.body)
    assert [message["content"] for message in sent["messages"]] == ["x", "a", "q"]
    assert sent["max_tokens"] == 100 - outgoing.prompt_tokens


def test_streamed_call_is_given_when_it_is_complete() -> None:
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}, "type": "function"}
    rest = {"index": 0, "id": None, "function": {"name": None, "arguments": "{}"}, "type": "function"}
    assert decoder.feed(event({"role": "assistant", "content": None, "tool_calls": [call]})) == []
    assert decoder.feed(event({"role": None, "content": None, "tool_calls": [rest]})) == []
    assert decoder.feed(event({"role": None, "content": None}, "tool_calls")) == [
        Delta(tools=(ToolPiece(0, "{}", "c", "f"),)),
        Finish("tool_calls"),
    ]


def streamed_call(name: str, *arguments: str) -> list[sse.SseEvent]:
    first = {"index": 0, "id": "c", "function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "id": None, "function": {"name": None, "arguments": part}} for part in arguments]
    deltas = [{"content": None, "tool_calls": [piece]} for piece in (first, *rest)]
    return [*(event(delta) for delta in deltas), event({"content": None}, "tool_calls")]


def test_call_that_breaks_off_is_an_error_and_gives_nothing() -> None:
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    assert [decoder.feed(one) for one in streamed_call("f", '{"a')[:-1]] == [[], []]
    with pytest.raises(UpstreamTruncated):
        decoder.end(clean=True)


CALLS = [
    pytest.param("f", '{"a": 1}', True, id="offered"),
    pytest.param("f", "{}", True, id="no-arguments"),
    pytest.param("f", "is a function", False, id="text-that-begins-with-the-name"),
    pytest.param("f", "{bad json", False, id="broken"),
    pytest.param("f", "[1]", False, id="a-list"),
    pytest.param("f", "", False, id="nothing"),
    pytest.param("g", "{}", False, id="not-offered"),
    pytest.param("cogview", '{"prompt": "a cat"}', False, id="cogview"),
    pytest.param("simple_browser", '{"query": "x"}', False, id="simple-browser"),
    pytest.param("Answer:", "42", False, id="two-lines"),
    pytest.param("f", '{"a": 1}\nf\n{"a": 2}', False, id="two-calls"),
    pytest.param("f", '{"a": 1}\n\nThere you go.', False, id="text-behind-the-arguments"),
    pytest.param("f", "```json\n{}\n```", False, id="a-fence"),
    pytest.param("f", '[[1], [[1]], "[[1"', False, id="text-that-repeats-itself"),
    pytest.param("f", '{"a": NaN}', False, id="not-a-number"),
    pytest.param("f", '{"a": -Infinity}', False, id="infinity"),
    pytest.param("f", '""', False, id="an-empty-text"),
    pytest.param("f", '{"a":{"b":[{"c":"}\\""}]}}', True, id="nested"),
    pytest.param("f", '{"a": "{\\"a\\": "}', True, id="arguments-within-a-text"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("name", "arguments", "good"), CALLS)
def test_whole_and_streamed_answers_give_a_call_only_where_it_is_one(
    name: str, arguments: str, good: bool, size: int
) -> None:
    dialect, outgoing = GLM4Dialect(), ask(request(tools=[TOOL]), stream=True)
    decoder = dialect.decoder(outgoing)
    parts = [arguments[place : place + size] for place in range(0, len(arguments), size)]
    said = [out for one in streamed_call(name, *parts) for out in decoder.feed(one)]
    assert decoder.end(clean=True) == []
    function = {"name": name, "arguments": arguments}
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    whole = dialect.answer(outgoing, json.dumps(answer).encode())
    if good:
        assert said == whole == [Delta(tools=(ToolPiece(0, arguments, "c", name),)), Finish("tool_calls")]
    else:
        line = "a cat" if name == "cogview" else arguments
        text = f"{name}\n{line}"
        assert said == [Delta(text.rstrip()), Finish("stop")]
        message = {"role": "assistant", "content": text} if name == "f" else message  # the server's form
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        assert dialect.answer(outgoing, json.dumps(answer).encode()) == [Delta(text), Finish("stop")]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("blanks", [("", "\n"), ("\n", ""), (" ", " \n\n")])
def test_blanks_around_the_arguments_make_no_other_call(blanks: tuple[str, str], size: int) -> None:
    arguments = blanks[0] + '{"a": "x"}' + blanks[1]
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    parts = [arguments[place : place + size] for place in range(0, len(arguments), size)]
    said = [out for one in streamed_call("f", *parts) for out in decoder.feed(one)]
    assert said == [Delta(tools=(ToolPiece(0, '{"a": "x"}', "c", "f"),)), Finish("tool_calls")]


@pytest.mark.parametrize(("text", "is_call"), [('f\n\n{"a": 1}', True), ("f\n\nis", False), ("f\n{}", False)])
def test_text_is_a_call_where_the_server_saw_an_empty_line_alone(text: str, is_call: bool) -> None:
    message = {"role": "assistant", "content": text}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    said = GLM4Dialect().answer(ask(request(tools=[TOOL])), json.dumps(answer).encode())
    call = [Delta(tools=(ToolPiece(0, '{"a": 1}', name="f"),)), Finish("tool_calls")]
    assert said == (call if is_call else [Delta(text), Finish("stop")])


def test_arguments_said_again_whole_are_one_call() -> None:
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    said = [out for one in streamed_call("f", '{"a"', ": 1}", '{"a": 1}') for out in decoder.feed(one)]
    assert said == [Delta(tools=(ToolPiece(0, '{"a": 1}', "c", "f"),)), Finish("tool_calls")]


def test_arguments_that_are_encoded_twice_are_given_once() -> None:
    twice = json.dumps('{"a": 1}')
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    said = [out for one in streamed_call("f", twice[:4], twice[4:]) for out in decoder.feed(one)]
    assert said == [Delta(tools=(ToolPiece(0, '{"a": 1}', "c", "f"),)), Finish("tool_calls")]


def test_cut_call_is_text_that_reached_its_limit() -> None:
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL], max_tokens=4), stream=True))
    said = [out for one in streamed_call("f", '{"city": "Beijing, the') for out in decoder.feed(one)]
    assert said == [Delta('f\n{"city": "Beijing, the'), Finish("length")]


def test_call_without_any_tool_offered_is_text() -> None:
    decoder = GLM4Dialect().decoder(ask(request(), stream=True))
    assert [out for one in streamed_call("f", "{}") for out in decoder.feed(one)][-1] == Finish("stop")


@pytest.mark.parametrize("events", [[], [sse.SseEvent("[DONE]")]], ids=["nothing", "only-its-end"])
def test_empty_stream_with_tools_is_asked_whole(events: list[sse.SseEvent]) -> None:
    decoder = GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True))
    with pytest.raises(AskWhole) as caught:
        _ = [decoder.feed(one) for one in events] + [decoder.end(clean=True)]
    assert (caught.value.repair, caught.value.remember) == ("short_stream", False)


def test_cut_stream_with_tools_is_an_error() -> None:
    with pytest.raises(UpstreamTruncated):
        GLM4Dialect().decoder(ask(request(tools=[TOOL]), stream=True)).end(clean=False)


def test_stream_of_an_edition_before_july_2024_is_asked_whole_and_remembered() -> None:
    inner = {
        "model": "m",
        "id": "",
        "object": "chat.completion.chunk",
        "choices": [{"delta": {"content": ""}}],
    }
    decoder = GLM4Dialect().decoder(ask(request(), stream=True))
    with pytest.raises(AskWhole) as caught:
        decoder.feed(event({"role": "assistant", "content": json.dumps(inner)}))
    assert (caught.value.repair, caught.value.remember) == ("no_stream", True)


def test_json_that_the_model_writes_is_an_answer() -> None:
    decoder = GLM4Dialect().decoder(ask(request(), stream=True))
    text = '{"model": "x", "object": "chat"}'
    assert decoder.feed(event({"content": text})) == [Delta(text)]


def test_server_before_july_2024_is_never_asked_to_stream() -> None:
    outgoing = ask(request(tools=[TOOL]), stream=True, glm4_stream="safe")
    assert not outgoing.streams
    assert outgoing.abandon == "drain"
    assert "stream" not in json.loads(outgoing.body)


def test_old_answer_with_a_call_of_two_lines_is_its_text() -> None:
    outgoing = ask(request(tools=[TOOL]))
    text = "The answer is:\n42"
    message = {"content": text, "function_call": {"name": "The answer is:", "arguments": "42"}}
    answer = {"choices": [{"message": message, "finish_reason": "function_call"}]}
    assert GLM4Dialect().answer(outgoing, json.dumps(answer).encode()) == [Delta(text), Finish("stop")]


def test_one_tool_that_is_required_is_sent_by_name_and_several_are_reported() -> None:
    outgoing = ask(request(tools=[TOOL], tool_choice="required"))
    assert json.loads(outgoing.body)["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert outgoing.ignored == ()
    other = {"type": "function", "function": {"name": "g"}}
    outgoing = ask(request(tools=[TOOL, other], tool_choice="required"))
    assert json.loads(outgoing.body)["tool_choice"] == "required"
    assert outgoing.ignored == ("tool_choice",)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_only_stop_is_ever_corrected(reason: str) -> None:
    decoder = GLM4Dialect().decoder(ask(request(max_tokens=1), stream=True))
    assert decoder.feed(event({"content": "a" * 50}, reason))[-1] == Finish(reason)  # type: ignore[arg-type]  # a plain text here
