"""One server, one behaviour: whatever the client asked for, by whatever name and door, it gets the same.

Each behaviour of `behaviours` is asked through every lane: plain, with usage, by an alias, under another
`served_name`, by the native door; whole and streamed. What comes must be what was meant, in each lane.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from openai.lib.streaming._deltas import accumulate_delta
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e.matrix.behaviours import BEHAVIOURS, HEAD, MODEL, USAGE, Behaviour, Reply, c, piece, s
from tests.e2e.matrix.framings import FRAMINGS
from tests.e2e.matrix.mixtures import MIXTURES
from tests.support.peer import Script, Talk, peer
from tests.support.site import Site, site
from tests.support.visitor import Answer, Visitor

ALL = [*BEHAVIOURS, *FRAMINGS, *MIXTURES]
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}]
EXTRA = """
[retries]
attempts = 1
[[models]]
name = "m"
aliases = ["alias"]
[[backends]]
name = "gpu-1"
url = "{url}"
dialect = "openai"
served_name = "served"
models = ["s"]
"""


@dataclass(frozen=True)
class Lane:
    """One way to ask."""

    name: str
    model: str
    stream: bool
    usage: bool = False


LANES = [
    Lane(f"{name}-{'stream' if stream else 'whole'}", model, stream, usage)
    for name, model, usage in (
        ("plain", "m", False),
        ("usage", "m", True),
        ("alias", "alias", False),
        ("served", "s", False),
    )
    for stream in (False, True)
]
NATIVE = Lane("native-whole", "", False)


def test_matrix_is_as_large_as_promised() -> None:
    assert len(ALL) >= 280
    assert len({one.id for one in ALL}) == len(ALL)
    assert len(ALL) * (len(LANES) + 1) >= 2520


@pytest.mark.parametrize("behaviour", ALL, ids=lambda one: one.id)
async def test_every_lane_gets_the_same_of(behaviour: Behaviour) -> None:
    async with peer(serving(behaviour)) as here:
        extra = EXTRA.format(url=here.url)
        async with site({"gpu-0": (here.url, "openai")}, extra) as gateway:
            usages = [check(behaviour, lane, await asked(gateway, behaviour, lane)) for lane in LANES]
            if not behaviour.tools:
                check_native(behaviour, await native(gateway))
    assert len({usage for usage in usages if usage is not None}) <= 1, usages


def serving(behaviour: Behaviour) -> Script:
    """The server."""

    async def script(talk: Talk) -> None:
        while request := await talk.wait_request():
            head, _, raw = request.partition(b"\r\n\r\n")
            if head.startswith(b"GET "):
                await talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                continue
            asked = json.loads(raw)
            reply = behaviour.stream if asked.get("stream") else behaviour.whole
            if behaviour.refused is not None and asked.get("stream"):
                reply = behaviour.refused
            await talk.send(written(reply, asked["model"]), reply.size)

    return script


def written(reply: Reply, model: str) -> bytes:
    """The bytes of a reply."""
    body = reply.body.replace(MODEL.encode(), model.encode())
    coding = f"content-encoding: {reply.coding}\r\n" if reply.coding else ""
    head = f"HTTP/1.1 {reply.status} X\r\ncontent-type: {reply.kind}\r\n{coding}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def asked(gateway: Site, behaviour: Behaviour, lane: Lane) -> Answer:
    """Ask through a lane."""
    body: dict[str, Any] = {"model": lane.model, "messages": [{"role": "user", "content": "hi"}]}
    if lane.stream:
        body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if lane.usage else {})
    if behaviour.tools:
        body["tools"] = TOOLS
    return await (await Visitor.to(gateway, json.dumps(body).encode())).wait_answer()


async def native(gateway: Site) -> Answer:
    """Ask by the native door."""
    return await (await Visitor.to(gateway, b'{"prompt":"hi"}', "/")).wait_answer()


def check(behaviour: Behaviour, lane: Lane, answer: Answer) -> tuple[int, int] | None:
    """Check what came; return the usage it told."""
    if behaviour.error is not None:
        check_error(behaviour, lane, answer)
        return None
    assert answer.status == 200, (lane, answer.body[:300])
    choice, usage, raw = folded(lane, answer) if lane.stream else read_whole(answer)
    message = choice["message"]
    where = lane.name
    assert (message.get("content") or "") == behaviour.text, where
    calls = message.get("tool_calls") or []
    assert [(one["function"]["name"], one["function"]["arguments"]) for one in calls] == list(
        behaviour.calls
    ), where
    assert all(one["id"] for one in calls), where
    assert choice["finish_reason"] == behaviour.finish, where
    for name in ("reasoning", "reasoning_content"):
        assert (message.get(name) or "") == behaviour.reasoning, where
    for name, value in behaviour.keeps.items():
        assert value in [one.get(name) for one in raw], (where, name)
    for one in raw:
        assert one["model"] == lane.model, where
        assert one["id"], where
        assert one["created"] > 0, where
    if usage is not None and behaviour.usage is not None:
        assert usage == behaviour.usage, where
    return usage


def check_error(behaviour: Behaviour, lane: Lane, answer: Answer) -> None:
    """The same error, however much of the answer came before it."""
    assert not answer.done, lane
    code = answer.error["code"]
    allowed = (
        ("upstream_error", "upstream_invalid_response") if behaviour.error == "broken" else (behaviour.error,)
    )
    assert code in allowed, (lane, answer.body)
    assert not answer.streamed or behaviour.text.startswith(answer.text), lane


def check_native(behaviour: Behaviour, answer: Answer) -> None:
    """The text of the answer, what was thought where there is none, or an error."""
    if behaviour.error is not None:
        assert answer.status >= 400, answer.body
        return
    assert answer.status == 200, answer.body
    assert answer.json["response"] == (behaviour.text or behaviour.reasoning)


def read_whole(answer: Answer) -> tuple[dict[str, Any], tuple[int, int], list[dict[str, Any]]]:
    """A whole answer, valid to the official SDK."""
    ChatCompletion.model_validate(answer.json)
    (choice,) = answer.json["choices"]
    return choice, counts(answer.json["usage"]), [answer.json]


def folded(lane: Lane, answer: Answer) -> tuple[dict[str, Any], tuple[int, int] | None, list[dict[str, Any]]]:
    """The chunks of a stream put together as the official SDK does; checks that they are in order."""
    *events, done = answer.events
    assert done == "[DONE]"
    raw = list(events)
    for event in events:
        ChatCompletionChunk.model_validate(event)
    usage = None
    if lane.usage:
        usage = counts(events.pop()["usage"])
        assert all(event["usage"] is None for event in events)
    assert not any(event.get("usage") for event in events)
    choices = [event["choices"][0] for event in events]
    assert [one["finish_reason"] is not None for one in choices] == [False] * (len(choices) - 1) + [True]
    assert [one["delta"].get("role") for one in choices] == ["assistant"] + [None] * (len(choices) - 1)
    message: dict[object, object] = {}
    for one in choices:
        message = accumulate_delta(message, one["delta"])
    return {"message": message, "finish_reason": choices[-1]["finish_reason"]}, usage, raw


def counts(usage: dict[str, Any]) -> tuple[int, int]:
    """Prompt and completion, which add up."""
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def told(reply: Reply, **members: Any) -> Answer:
    """What a client gets of a server that answers everything so."""
    body = {"messages": [{"role": "user", "content": "hi"}], **members}
    async with (
        peer(serving(Behaviour("any", reply, reply))) as here,
        site({"gpu-0": (here.url, "openai")}, EXTRA.format(url=here.url)) as gateway,
    ):
        return await (await Visitor.to(gateway, json.dumps(body).encode())).wait_answer()


@pytest.mark.parametrize("model", ["m", "alias", "s"])
async def test_several_choices_are_told_apart_and_each_finishes_once(model: str) -> None:
    said = [(0, "a", None), (1, "x", None), (0, "b", None), (1, "y", "eos"), (0, "", "max_tokens")]
    choices = [{"index": at, "delta": {"content": text}, "finish_reason": end} for at, text, end in said]
    reply = s(*({**HEAD, "choices": [choice]} for choice in choices), USAGE)
    whole = await told(reply, model=model, n=2)
    ends = [(one["message"]["content"], one["finish_reason"]) for one in whole.json["choices"]]
    assert ends == [("ab", "length"), ("xy", "stop")]
    streamed = await told(reply, model=model, n=2, stream=True)
    chunks = [event["choices"][0] for event in streamed.events[:-1]]
    for at, (text, end) in enumerate(ends):
        mine = [one for one in chunks if one["index"] == at]
        assert "".join(one["delta"].get("content") or "" for one in mine) == text
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [end]


@pytest.mark.parametrize("model", ["m", "alias", "s"])
async def test_clients_of_the_old_form_get_one_call_in_it(model: str) -> None:
    reply = s(
        c({"tool_calls": [piece('{"a":1}', "w", "a", 0), piece("{}", "v", "b", 1)]}), c({}, "stop"), USAGE
    )
    functions = [{"name": "w", "parameters": {"type": "object"}}]
    whole = (await told(reply, model=model, functions=functions)).json["choices"][0]
    assert whole["message"]["function_call"] == {"name": "w", "arguments": '{"a":1}'}
    assert whole["finish_reason"] == "function_call"
    streamed = await told(reply, model=model, functions=functions, stream=True)
    choices = [event["choices"][0] for event in streamed.events[:-1]]
    calls = [one["delta"]["function_call"] for one in choices if "function_call" in one["delta"]]
    assert calls == [{"name": "w", "arguments": '{"a":1}'}]
    assert choices[-1]["finish_reason"] == "function_call"
