"""Any JSON value is found in any wrapping; any call is found however its stream is cut."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.abilities.call_choices import CallChoices
from gateway.abilities.offered_functions import OfferedFunctions
from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Finish
from gateway.formats.structured.recovery import json_values

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
LEAVES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
PROSE = st.text(
    st.characters(exclude_characters="{}[]`<>\"'｛｝［］", exclude_categories=["Cs"]), max_size=20
)


@st.composite
def wrapped(draw: st.DrawFn, written: st.SearchStrategy[str]) -> str:
    """A text around JSON, as models write it: prose, a fence, or nothing."""
    text = draw(written)
    fence = draw(st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", "\n{}\n"]))
    return draw(PROSE) + fence.replace("{}", text) + draw(PROSE)


@given(st.data())
def test_any_json_object_is_found_in_any_wrapping(data: st.DataObject) -> None:
    value = data.draw(OBJECTS)
    indent = data.draw(st.sampled_from([None, 2]))
    written = st.just(json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=indent))
    assert value in list(json_values(data.draw(wrapped(written))))


@given(OBJECTS)
def test_any_python_literal_is_found(value: dict[str, Any]) -> None:
    assert value in list(json_values(f"答：{value!r}"))


@given(st.text(max_size=80))
def test_any_text_yields_json_values_or_none(text: str) -> None:
    for value in json_values(text):
        json.dumps(value, allow_nan=False)


@given(st.data())
def test_any_call_is_the_same_however_its_stream_is_cut(data: st.DataObject) -> None:
    arguments = data.draw(OBJECTS)
    before = data.draw(st.sampled_from(["", "好的。\n", "Let me see: "]))
    said = before + json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=False)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(said)), max_size=8)))
    pieces = [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    choices = CallChoices(OfferedFunctions(openai.read_chat(jsontext.write(body))))
    events = [out for piece in pieces for out in choices.feed(Delta(piece))]
    events += choices.feed(Finish("stop"))
    choices.ended()
    events += choices.flush()
    (call,) = [piece for one in events if isinstance(one, Delta) for piece in one.tools]
    assert (call.name, json.loads(call.arguments)) == ("f", arguments)
    assert "".join(one.text for one in events if isinstance(one, Delta)).strip() == before.strip()
    assert events[-1] == Finish("tool_calls")
