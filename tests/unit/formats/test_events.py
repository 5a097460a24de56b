from __future__ import annotations

import pytest

from gateway.formats.events import NO_EXTRAS, Delta, Finish, Repair, ToolPiece, Usage


@pytest.mark.parametrize(
    ("delta", "empty"),
    [
        pytest.param(Delta(), True, id="nothing"),
        pytest.param(Delta(choice=3), True, id="a-choice-alone"),
        pytest.param(Delta(" "), False, id="text"),
        pytest.param(Delta(tools=(ToolPiece(0),)), False, id="tool"),
        pytest.param(Delta(extras={"reasoning": "x"}), False, id="extras"),
        pytest.param(Delta(logprobs={"content": []}), False, id="logprobs"),
    ],
)
def test_a_delta_knows_whether_it_would_reach_the_client(delta: Delta, empty: bool) -> None:
    assert delta.empty is empty


@pytest.mark.parametrize("event", [Delta("a"), Finish("stop"), Usage(1, 2, "backend"), Repair("x")])
def test_events_are_values(event: Delta | Finish | Usage | Repair) -> None:
    assert event == event._replace()
    with pytest.raises(AttributeError):
        event.__setattr__(event._fields[0], None)


def test_what_was_not_said_is_empty() -> None:
    assert Delta().extras is NO_EXTRAS
    assert Usage(1, 2, "estimate").details is NO_EXTRAS
    assert (ToolPiece(0).id, ToolPiece(0).name, ToolPiece(0).arguments) == (None, None, "")
    assert (Delta().choice, Finish("stop").choice) == (0, 0)
