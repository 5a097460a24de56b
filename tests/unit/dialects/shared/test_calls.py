"""Calls in every form that servers send, assembled from their pieces by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.shared.calls import MOST_CALLS, ToolCallAssembler, join_halves, whole_calls
from gateway.errors import UpstreamGarbled
from gateway.formats.events import ToolPiece

PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'


def piece(arguments: Any = None, name: Any = None, call_id: Any = None, index: Any = None) -> dict[str, Any]:
    members = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in members.items() if value is not None}


def added_up(deltas: list[Any]) -> list[tuple[str | None, str | None, str]]:
    """Return the id, name and arguments of each call, as a client assembles them from pieces by index."""
    calls = ToolCallAssembler()
    found: dict[int, list[Any]] = {}
    pieces = [one for delta in deltas for one in calls.take(delta)]
    for one in [*pieces, *calls.rest()]:
        call = found.setdefault(one.index, ["", "", ""])
        call[0] += one.id or ""
        call[1] += one.name or ""
        call[2] += one.arguments
    return [(call[0], call[1], call[2]) for _, call in sorted(found.items())]


TWO = [("a", "w", PARIS), ("b", "w", ROME)]
HALVES = (PARIS[:6], PARIS[6:])


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        pytest.param(
            [[piece("", "w", "a", 0)], [piece(HALVES[0], index=0)], [piece(HALVES[1], index=0)]],
            TWO[:1],
            id="good",
        ),
        pytest.param([[piece(PARIS, "w", "a", 0)], [piece(ROME, "w", "b", 0)]], TWO, id="index-0-for-all"),
        pytest.param([[piece(PARIS, "w", "a"), piece(ROME, "w", "b")]], TWO, id="no-index-together"),
        pytest.param([[piece(PARIS, "w", "a")], [piece(ROME, "w", "b")]], TWO, id="no-index-apart"),
        pytest.param(
            [
                [piece("", "w", "a")],
                [piece(HALVES[0])],
                [piece(HALVES[1])],
                [piece("", "w", "b")],
                [piece(ROME)],
            ],
            TWO,
            id="no-index-in-pieces",
        ),
        pytest.param(
            [[piece(part, "w", "a", 0)] for part in ("", *HALVES)], TWO[:1], id="id-and-name-in-every-piece"
        ),
        pytest.param([[piece(part, "w", index=0)] for part in HALVES], [("", "w", PARIS)], id="no-id"),
        pytest.param([[piece(part, "w")] for part in HALVES], [("", "w", PARIS)], id="no-id-no-index"),
        pytest.param(
            [[piece(PARIS, "w", index=0)], [piece(ROME, "w", index=0)]],
            [("", "w", PARIS), ("", "w", ROME)],
            id="two-calls-of-one-function-without-ids",
        ),
        pytest.param(
            [[piece(HALVES[0], "w", "a", 0)], [piece(HALVES[1], None, "x", 0)]],
            TWO[:1],
            id="a-new-id-in-each-piece",
        ),
        pytest.param(
            [[piece(HALVES[0], "w", "a", 0)], [piece(HALVES[1], index=0)], [piece(PARIS, index=0)]],
            TWO[:1],
            id="repeated-whole-at-the-end",
        ),
        pytest.param(
            [[piece(HALVES[0], "w", "a", 0)], [piece(HALVES[1], index=0)], [piece(PARIS, "w", "a", 0)]],
            TWO[:1],
            id="all-repeated-at-the-end",
        ),
        pytest.param(
            [
                [piece(HALVES[0], "w", "a", 0)],
                [piece(HALVES[1], index=0)],
                [piece('{"city":"Paris"}', "w", index=0)],
            ],
            TWO[:1],
            id="repeated-with-other-blanks",
        ),
        pytest.param(
            [[piece(PARIS[:end], "w", "a", 0)] for end in (1, 6, 9, len(PARIS))],
            TWO[:1],
            id="growing-in-each-piece",
        ),
        pytest.param(
            [[piece({"city": "Paris"}, "w", "a", 0)]], [("a", "w", '{"city":"Paris"}')], id="an-object"
        ),
        pytest.param([[piece("{}", "w", "a", 0)], [piece(PARIS, index=0)]], TWO[:1], id="empty-object-first"),
        pytest.param([[piece("{}", "w", "a", 0)]], [("a", "w", "{}")], id="empty-object-alone"),
        pytest.param([[piece(None, "w", "a", 0)]], [("a", "w", "{}")], id="no-arguments"),
        pytest.param(
            [[piece("", "w", "a", 0)], [piece(HALVES[0], index=1)], [piece(HALVES[1], index=2)]],
            TWO[:1],
            id="index-counts-pieces",
        ),
        pytest.param(
            [
                [piece("", "w", "a", 0), piece("", "w", "b", 1)],
                [piece(ROME, index=1)],
                [piece(PARIS, index=0)],
            ],
            TWO,
            id="interleaved",
        ),
        pytest.param(
            [[piece("", call_id="a", index=0)], [piece(PARIS, "w", index=0)]], TWO[:1], id="name-late"
        ),
        pytest.param([[{"name": "w", "arguments": PARIS, "id": "a"}]], TWO[:1], id="flat"),
        pytest.param([{"id": "a", "function": {"name": "w", "arguments": PARIS}}], TWO[:1], id="no-list"),
        pytest.param([[piece("x", index=4)]], [], id="no-name-ever"),
        pytest.param(
            [[piece('{"a":"\ud83d', "w", "a", 0)], [piece('\ude00"}', index=0)]],
            [("a", "w", '{"a":"😀"}')],
            id="half-characters",
        ),
        pytest.param(
            [[piece('{"a":{"b', "w", "a", 0)], [piece('":{"a":{"b":1}}}}', index=0)]],
            [("a", "w", '{"a":{"b":{"a":{"b":1}}}}')],
            id="nested",
        ),
        pytest.param(
            [[piece('{"a":', "w", "a", 0)], [piece('{"a":1}}', index=0)]],
            [("a", "w", '{"a":{"a":1}}')],
            id="nested-alike",
        ),
        pytest.param(
            [[piece('{"a":"\\', "w", "a", 0)], [piece('"}"}', index=0)]],
            [("a", "w", '{"a":"\\"}"}')],
            id="an-escape-cut",
        ),
    ],
)
def test_pieces_add_up_to_the_calls_that_were_meant(
    deltas: list[Any], calls: list[tuple[str | None, str | None, str]]
) -> None:
    assert added_up(deltas) == calls


@pytest.mark.parametrize("calls", [{"0": {}}, ["f"], [{"function": "f"}], "f"])
def test_calls_that_are_none_are_garbled(calls: Any) -> None:
    with pytest.raises(UpstreamGarbled):
        ToolCallAssembler().take(calls)


def test_number_of_calls_is_bounded() -> None:
    with pytest.raises(UpstreamGarbled):
        ToolCallAssembler().take([piece("{}", "w", str(number)) for number in range(MOST_CALLS + 1)])


@pytest.mark.parametrize(
    ("message", "pieces"),
    [
        pytest.param({}, (), id="none"),
        pytest.param({"tool_calls": None, "function_call": None}, (), id="null"),
        pytest.param({"tool_calls": []}, (), id="empty"),
        pytest.param(
            {"tool_calls": [{"index": True, "id": "", "function": {"name": "f", "arguments": None}}]},
            (ToolPiece(0, "", name="f"),),
            id="wrong-types",
        ),
        pytest.param({"function_call": {"name": "f"}}, (ToolPiece(0, "", name="f"),), id="old-form"),
    ],
)
def test_calls_of_a_whole_message_are_one_piece_each(
    message: dict[str, Any], pieces: tuple[ToolPiece, ...]
) -> None:
    assert whole_calls(message) == pieces


def test_long_arguments_in_small_pieces_take_linear_time() -> None:
    text = json.dumps({"code": "x{}" * 10_000})
    deltas = [
        [piece("", "w", "a", 0)],
        *([piece(text[at : at + 3], index=0)] for at in range(0, len(text), 3)),
    ]
    assert added_up(deltas) == [("a", "w", text)]


def test_half_characters_are_joined_with_what_follows() -> None:
    assert join_halves("", "a\ud83d") == ("a", "\ud83d")
    assert join_halves("\ud83d", "\ude00b") == ("😀b", "")
