"""An outline tells of two answers whether they say the same, and how long they are; it keeps no text."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.events import Delta, Event, Finish, Passed, Repair, ToolPiece, Usage
from gateway.formats.fingerprint import AnswerFingerprint

TEXTS = st.text(max_size=60)


def outline(*events: Event) -> AnswerFingerprint:
    one = AnswerFingerprint()
    one.take(events)
    return one


def chunk(text: str | None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text, **more}, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def whole(*texts: str, **more: Any) -> bytes:
    choices = [{"index": index, "message": {"content": text, **more}} for index, text in enumerate(texts)]
    return json.dumps({"choices": choices}).encode()


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@given(TEXTS, st.lists(st.integers(0, 100)), st.lists(st.integers(0, 100)))
def test_the_same_text_is_the_same_however_it_is_cut_and_whichever_way_it_comes(
    text: str, some: list[int], others: list[int]
) -> None:
    answers = [
        outline(Delta(text)),
        outline(*map(Delta, cut(text, some))),
        outline(*(Passed(chunk(piece)) for piece in cut(text, others))),
        outline(Passed(b"".join(map(chunk, cut(text, some))))),
        outline(Passed(whole(text))),
    ]
    assert len({one.digest for one in answers}) == 1
    assert {one.characters for one in answers} == {len(text)}
    assert all(one.legible for one in answers)


@given(TEXTS, TEXTS)
def test_texts_are_the_same_if_they_are_without_their_blanks(one: str, other: str) -> None:
    same = "".join(one.split()) == "".join(other.split())
    assert (outline(Delta(one)).digest == outline(Delta(other)).digest) == same


def test_blanks_do_not_count_for_the_text_but_for_its_length() -> None:
    one, other = outline(Delta(" a b\n")), outline(Delta("ab"))
    assert one.digest == other.digest
    assert (one.characters, other.characters) == (5, 2)


def test_choices_are_held_apart() -> None:
    assert outline(Delta("a"), Delta("b", choice=1)).digest == outline(Passed(whole("a", "b"))).digest
    assert outline(Delta("a"), Delta("b", choice=1)).digest != outline(Passed(whole("b", "a"))).digest
    assert outline(Delta("a"), Delta("b", choice=1)).digest != outline(Delta("ab")).digest


def test_calls_of_functions_are_compared_too() -> None:
    pieces = (ToolPiece(0, name="f"), ToolPiece(0, '{"a":'), ToolPiece(0, " 1}"))
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    streamed = outline(*(Delta(tools=(piece,)) for piece in pieces))
    assert streamed.digest == outline(Passed(whole("", tool_calls=[call]))).digest
    assert streamed.digest != outline(Delta(tools=(ToolPiece(0, '{"a":2}', name="f"),))).digest
    assert streamed.digest != outline(Delta('f{"a":1}')).digest


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((Finish("length"),), id="event"),
        pytest.param((Passed(whole("x"), "length"),), id="whole"),
        pytest.param((Passed(chunk("x"), "length"), Passed(chunk("y"))), id="stream"),
    ],
)
def test_the_finish_reason_is_kept(events: tuple[Event, ...]) -> None:
    assert outline(*events).finish == "length"


def test_what_is_no_answer_leaves_no_trace() -> None:
    one = outline(Usage(3, 4, "backend"), Repair("no_finish"), Passed(b'data: {"choices":[]}\n\n'))
    assert (one.digest, one.characters, one.finish) == (AnswerFingerprint().digest, 0, "")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{", id="half"),
        pytest.param(b"data: {\n\n", id="half-event"),
        pytest.param(b'{"choices": null}', id="no-choices"),
        pytest.param(b'{"error": {}}', id="error"),
        pytest.param(b"data: 3\n\n", id="number"),
        pytest.param(b'{"choices": [{"index": -1, "message": {"content": "x"}}]}', id="odd-index"),
        pytest.param(b'{"choices": [{"index": [], "message": {"content": "x"}}]}', id="list-index"),
        pytest.param(b'{"choices": [{"index": 0, "message": {"content": 3}}]}', id="odd-content"),
        pytest.param(b'{"choices": [{"index": 0, "message": {"tool_calls": [3]}}]}', id="odd-call"),
        pytest.param(b'data: {"choices":\ndata: []}\n\n', id="two-lines"),
        pytest.param(b"data: " + b"[" * 100_000 + b"\n\n", id="too-deep"),
    ],
)
def test_what_cannot_be_read_is_said_and_never_raised(data: bytes) -> None:
    assert not outline(Passed(data)).legible


def test_lone_surrogates_are_texts_too() -> None:
    assert outline(Delta("\ud800")).digest != outline(Delta("\udfff")).digest


@pytest.mark.parametrize("choice", [128, 255, 256, 70_000, -1])
def test_a_choice_that_nobody_can_ask_for_is_not_legible(choice: int) -> None:
    one = outline(Delta("x", (), choice), Finish("stop", choice))
    assert not one.legible
    assert one.digest == AnswerFingerprint().digest


def test_an_index_that_is_no_whole_number_is_not_legible() -> None:
    one = outline(Passed(b'{"choices": [{"index": 0.0, "message": {"content": "x"}}]}'))
    assert not one.legible
    assert one.digest == AnswerFingerprint().digest
