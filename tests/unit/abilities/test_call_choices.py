"""Calls of several choices, and calls that the backend makes itself."""

from __future__ import annotations

from gateway.abilities.base import ACCEPT
from gateway.abilities.call_choices import CallChoices, judged
from gateway.abilities.offered_functions import OfferedFunctions
from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Finish, ToolPiece, Usage

REQUEST = openai.read_chat(
    jsontext.write(
        {
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "calc"}}],
        }
    )
)
CALL = '{"name": "calc", "arguments": {}}'


def test_choices_are_read_apart_and_usage_comes_last() -> None:
    choices = CallChoices(OfferedFunctions(REQUEST))
    assert choices.feed(Delta("hello", choice=1)) == [Delta("hello", choice=1)]
    for event in (
        Delta(CALL[:9]),
        Usage(1, 1, "backend"),
        Delta(CALL[9:]),
        Finish("stop"),
        Finish("stop", 1),
    ):
        assert choices.feed(event) == []
    assert judged(REQUEST, OfferedFunctions(REQUEST), choices) is ACCEPT
    plain, call, called, stopped = (*choices.flush()[:0], *choices.flush())[:4]
    assert plain == Finish("stop", 1)
    assert isinstance(call, Delta)
    assert [(one.name, one.arguments) for one in call.tools] == [("calc", "{}")]
    assert called == Finish("tool_calls", 0)
    assert stopped == Usage(1, 1, "backend")


def test_call_of_the_backend_passes_with_the_text_before_it() -> None:
    choices = CallChoices(OfferedFunctions(REQUEST), hold=True)
    native = Delta(tools=(ToolPiece(0, "{}", name="calc"),))
    assert choices.feed(Delta("let me see")) == []
    assert choices.feed(native) == [native._replace(text="let me see")]
    assert choices.feed(Delta(" more")) == [Delta(" more")]
    choices.feed(Finish("tool_calls"))
    assert choices.ended() == []
    assert choices.flush() == [Finish("tool_calls")]
