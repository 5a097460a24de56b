"""Calls that a server without a tool parser leaves in the text."""

from __future__ import annotations

import pytest

from tests.support.path import open_path, reasons, text
from tests.support.servers import Servers, streaming, talk, whole
from tests.unit.abilities.test_prompted_tools import TOOLS, calls

XML = "查一下。<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value></tool_call>"


@pytest.mark.parametrize("size", [1, 5, 200])
async def test_tagged_call_of_a_stream_becomes_a_call(size: int) -> None:
    pieces = talk(*(XML[start : start + size] for start in range(0, len(XML), size)))
    async with open_path(Servers(a=streaming(*pieces)), "openai", repair_tools=["glm-xml"]) as scene:
        events = await scene.answer(tools=TOOLS, stream=True)
    assert (text(events), calls(events)) == ("查一下。", [("get_weather", {"city": "北京"})])
    assert reasons(events) == {0: "tool_calls"}


@pytest.mark.parametrize(
    ("said", "forms", "called"),
    [
        (XML, ["glm-xml"], True),
        ('get_weather\n{"city": "北京"}', ["glm4"], True),
        ('get_weather\n{"city": "北京"}', ["glm-xml"], False),
        ('{"name": "get_weather", "arguments": {"city": "北京"}}', ["glm-xml", "glm4"], False),
        ("<tool_call>unknown</tool_call>", ["glm-xml"], False),
    ],
)
async def test_only_the_configured_forms_of_offered_functions_become_calls(
    said: str, forms: list[str], called: bool
) -> None:
    servers = Servers(a=whole(said))
    async with open_path(servers, "openai", repair_tools=forms) as scene:
        events = await scene.answer(tools=TOOLS)
    assert bool(calls(events)) is called
    assert called or text(events) == said
    assert servers.order == ["a"]
    assert servers.asked[0].body["tools"] == TOOLS


async def test_request_without_tools_passes_unread() -> None:
    async with open_path(Servers(a=whole(XML)), "openai", repair_tools=["glm-xml"]) as scene:
        assert text(await scene.answer()) == XML
