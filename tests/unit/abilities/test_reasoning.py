"""Reasoning in the text, in one member, or in the wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.formats.events import Delta, Event
from tests.support.opened import opened
from tests.support.path import open_path, reasons, text
from tests.support.servers import Servers, answering, chunk, native, streaming, talk, whole

SAID = "<think>\n想一想 < 5\n</think>\n\n答案是 4。"


def thought(events: list[Event], name: str = "reasoning_content") -> str:
    return "".join(one.extras.get(name, "") for one in opened(events) if isinstance(one, Delta))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
async def test_tagged_part_of_a_stream_becomes_reasoning(size: int) -> None:
    pieces = talk(*(SAID[start : start + size] for start in range(0, len(SAID), size)))
    async with open_path(Servers(a=streaming(*pieces)), reasoning="think") as scene:
        events = await scene.answer(stream=True)
    assert text(events).lstrip("\n") == "答案是 4。"
    for name in ("reasoning_content", "reasoning"):
        assert thought(events, name).strip("\n") == "想一想 < 5"
    assert reasons(events) == {0: "stop"}


@pytest.mark.parametrize("dialect", ["chatglm2", "openai"])
async def test_tagged_part_of_a_whole_answer_becomes_reasoning(dialect: str) -> None:
    reply = native(SAID) if dialect == "chatglm2" else whole(SAID)
    async with open_path(Servers(a=reply), dialect, reasoning="think") as scene:
        events = await scene.answer()
    assert (text(events), thought(events)) == ("答案是 4。", "想一想 < 5")


@pytest.mark.parametrize("said", ["no tags", "a <think>b</think>", "<thin", "<", " plain"])
async def test_text_without_an_opening_tag_at_its_beginning_stays_text(said: str) -> None:
    async with open_path(Servers(a=streaming(*talk(*said))), reasoning="think") as scene:
        events = await scene.answer(stream=True)
    assert (text(events), thought(events)) == (said, "")


async def test_answer_that_begins_inside_of_the_reasoning_is_split() -> None:
    for said in ("hm</think>4", "<think>hm</think>4"):
        async with open_path(Servers(a=whole(said)), reasoning="open-think") as scene:
            events = await scene.answer()
        assert (text(events), thought(events)) == ("4", "hm")


def message(**members: Any) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", **members}, "finish_reason": "stop"}
    return answering({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
async def test_reasoning_in_one_member_is_given_in_both(member: str) -> None:
    async with open_path(Servers(a=message(content="4", **{member: "hm"})), reasoning="mirror") as scene:
        events = await scene.answer()
    assert (text(events), thought(events), thought(events, "reasoning")) == ("4", "hm", "hm")


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_in_the_reasoning_member_alone_is_text_too(stream: bool) -> None:
    delta = {"index": 0, "delta": {"reasoning_content": "4"}, "finish_reason": None}
    streamed = streaming(chunk("", role=True, choices=[delta]), chunk(finish="stop"), b"data: [DONE]\n\n")
    reply = streamed if stream else message(content=None, reasoning_content="4")
    async with open_path(Servers(a=reply), reasoning="mirror") as scene:
        events = await scene.answer(stream=stream)
    assert (text(events), thought(events)) == ("4", "4")


async def test_backend_without_the_setting_passes_everything() -> None:
    async with open_path(Servers(a=whole(SAID))) as scene:
        assert text(await scene.answer()) == SAID
