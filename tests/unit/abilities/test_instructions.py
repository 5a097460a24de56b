"""The place of instructions in a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.abilities.instructions import MAX_QUOTED, corrected, messages_of, with_instruction
from gateway.formats import jsontext, openai

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "instructed"),
    [
        ([USER], [{"role": "user", "content": "hi\n\nDO"}]),
        ([{"role": "user", "content": ""}], [{"role": "user", "content": "DO"}]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "DO"}]}],
        ),
        (
            [{"role": "system", "content": "s"}, USER, {"role": "tool", "content": "r"}],
            [
                {"role": "system", "content": "s"},
                {"role": "system", "content": "DO"},
                USER,
                {"role": "tool", "content": "r"},
            ],
        ),
    ],
)
def test_instruction_stands_at_the_end_of_the_question_or_before_the_conversation(
    messages: list[dict[str, Any]], instructed: list[dict[str, Any]]
) -> None:
    assert with_instruction(messages, "DO") == instructed


def test_corrective_request_has_the_answer_and_the_complaint_at_its_end() -> None:
    request = openai.read_chat(jsontext.write({"model": "m", "messages": [USER], "user": "u"}))
    again = corrected(request, "x" * 3 * MAX_QUOTED, "wrong")
    question, answer, complaint = messages_of(again)
    assert (question, complaint) == (USER, {"role": "user", "content": "wrong"})
    assert len(answer["content"]) < MAX_QUOTED + 10
    assert (again.model, again.user) == ("m", "u")
    assert messages_of(request) == [USER]
    assert messages_of(corrected(request, "", "wrong"))[1]["content"] == "..."
