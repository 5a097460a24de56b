from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import unread_members
from gateway.formats.limits import MAX_TOLD, MAX_TOLD_NAME
from gateway.formats.openai import read_chat

SAFE = re.compile(r"[A-Za-z0-9_.-]+")
USER = {"role": "user", "content": "q"}


def told(**body: Any) -> tuple[str, ...]:
    return read_chat(json.dumps({"messages": [USER], **body}).encode()).unread


def test_a_usual_chat_has_no_unread_member() -> None:
    assert told(model="m", temperature=1) == told(model="m", tools=[], seed=1) == ()


def test_members_of_messages_and_tools_are_named_by_where_they_stand_once() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True}, "x": 1}
    call = {
        "role": "assistant",
        "tool_calls": [{"id": "a", "function": {"name": "f"}, "extra_content": {"a": 1}}],
    }
    assert told(messages=[{**USER, "x": 1}, {**USER, "x": 2}, call], tools=[tool, tool], functions=[]) == (
        "messages.x", "messages.tool_calls.extra_content", "tools.x", "tools.function.strict",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"user": "ann"}, ("user",)),
        ({"user": ""}, ()),
        ({"user": "ann", "seed": 1}, ("user",)),
        (
            {"stream_options": {"include_usage": True, "include_obfuscation": True}},
            ("stream_options.include_obfuscation",),
        ),
        ({"messages": [{**USER, "name": "ann"}]}, ("messages.name",)),
        ({"messages": [{"role": "system", "content": "s", "name": "x"}, USER]}, ("messages.name",)),
        ({"messages": [{"role": "tool", "content": "1", "name": "f", "tool_call_id": "a"}]}, ()),
        ({"messages": [{"role": "function", "content": "1", "name": "f"}]}, ()),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "x": 1}}]}
                ]
            },
            ("messages.tool_calls.function.x",),
        ),
        (
            {"messages": [{"role": "assistant", "function_call": {"name": "f", "x": 1}}]},
            ("messages.function_call.x",),
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f", "x": 1}, "y": 1}},
            ("tool_choice.y", "tool_choice.function.x"),
        ),
        ({"function_call": {"name": "f", "x": 1}}, ("function_call.x",)),
    ],
)
def test_a_member_that_no_model_is_sent_is_named_at_every_depth(
    body: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert told(**body) == names


def test_what_answers_hold_and_says_nothing_is_not_named() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "audio": None,
        "annotations": [],
    }
    assert told(messages=[USER, answer, USER]) == ()


def test_names_are_bounded_in_number_and_length() -> None:
    names = told(**{f"x{number}" + "y" * 200: 1 for number in range(300)})
    assert len(names) == MAX_TOLD
    assert max(map(len, names)) == MAX_TOLD_NAME


@given(st.dictionaries(st.text(max_size=8), st.integers(), max_size=4))
def test_names_are_safe_in_a_header(members: dict[str, int]) -> None:
    for names in (unread_members.of_chat(members, ()), unread_members.of_native(members)):
        assert all(SAFE.fullmatch(name) for name in names)
