"""Token counts: the backend's usage if there is one, else an estimate; always once, and as the last event."""

from __future__ import annotations

import pytest

from gateway.abilities.usage import UsageCounter, total
from gateway.formats import token_counts
from gateway.formats.events import Delta, Event, Finish, Repair, ToolPiece, Usage


def run(*events: Event, prompt: int = 7, cjk: int = token_counts.CJK) -> list[Event]:
    count = UsageCounter(prompt, cjk)
    return [out for event in events for out in count.feed(event)] + count.flush()


def test_what_nobody_counted_is_estimated() -> None:
    said = "今天天气 fine"
    assert run(Delta(said), Finish("stop"))[-1] == Usage(7, token_counts.estimate(said), "estimate")


def test_the_estimate_is_of_the_whole_text_however_it_was_cut() -> None:
    pieces = [Delta(char) for char in "a short answer"]
    assert run(*pieces)[-1] == run(Delta("a short answer"))[-1]


def test_a_long_text_is_counted_but_not_kept() -> None:
    count = UsageCounter(7, token_counts.CJK)
    pieces = ["天 fine é" * 100] * 100
    for piece in pieces:
        count.feed(Delta(piece))
        assert sum(map(len, count._texts)) < 5000
    assert count.flush() == [Usage(7, token_counts.estimate("".join(pieces)), "estimate")]


@pytest.mark.parametrize("cjk", [token_counts.V1_CJK, token_counts.CJK])
def test_the_estimate_depends_on_the_model(cjk: int) -> None:
    assert run(Delta("字" * 100), cjk=cjk)[-1] == Usage(7, cjk, "estimate")


def test_tool_calls_count_by_name_and_arguments() -> None:
    call = Delta(tools=(ToolPiece(0, '{"a":1}', name="weather"), ToolPiece(0, "more")))
    assert run(call)[-1] == Usage(7, token_counts.estimate('weather{"a":1}more'), "estimate")


def test_a_backends_count_is_kept_until_the_end() -> None:
    counted = Usage(3, 2, "backend")
    assert run(Delta("x"), counted, Finish("stop")) == [Delta("x"), Finish("stop"), counted]


def test_the_last_count_of_a_backend_is_the_one() -> None:
    events = run(Usage(3, 1, "backend"), Usage(3, 2, "backend"))
    assert events == [Usage(3, 2, "backend")]


def test_everything_else_passes_in_order() -> None:
    events: list[Event] = [Repair("no_finish"), Delta("a"), Delta("b"), Finish("length")]
    assert run(*events)[:-1] == events


def test_an_empty_answer_counts_nothing() -> None:
    assert run(Finish("length"))[-1] == Usage(7, 0, "estimate")


def test_of_several_generations_the_prompt_counts_once() -> None:
    assert total([Usage(7, 1, "estimate"), Usage(7, 2, "estimate")]) == Usage(7, 3, "estimate")


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["backend", "backend"], "backend"),
        (["backend", "tokenizer"], "tokenizer"),
        (["estimate", "backend"], "estimate"),
        (["tokenizer", "estimate", "backend"], "estimate"),
    ],
)
def test_a_sum_is_as_sure_as_its_least_sure_part(sources: list[str], told: str) -> None:
    assert total([Usage(1, 1, source) for source in sources]).source == told  # type: ignore[arg-type]  # a table of words
