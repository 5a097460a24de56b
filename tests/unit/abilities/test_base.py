"""Pipelines of filters: each filter sees the events that the filter before it returns, also at the end."""

from __future__ import annotations

import pytest

from gateway.abilities.base import Ability, AskAgain, Judgement, Pipeline
from gateway.abilities.stop import StopSequences
from gateway.abilities.usage import UsageCounter
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.errors import UpstreamGarbled
from gateway.formats import openai, token_counts
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.formats.openai import ChatRequest


class Plain(Ability):
    """Shared parts of the abilities in these tests."""

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        return True

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Ability:
        return cls()


class Tag(Plain):
    """Adds a mark to every text, and a text of its own at the end."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def feed(self, event: Event) -> list[Event]:
        return [Delta(event.text + self._mark)] if isinstance(event, Delta) else [event]

    def flush(self) -> list[Event]:
        return [Delta(f"end of {self._mark} ")]


class Full(Plain):
    """Is done after one event."""

    def feed(self, event: Event) -> list[Event]:
        self.done = True
        return [event]


def finished(pipeline: Pipeline) -> list[Event]:
    ending = pipeline.finish(lambda: False)
    assert isinstance(ending, list)
    return ending


def test_events_pass_the_stages_in_their_order() -> None:
    assert Pipeline(Tag("1"), Tag("2")).feed(Delta("x")) == [Delta("x12")]


def test_what_a_stage_held_back_passes_those_behind_it() -> None:
    assert finished(Pipeline(Tag("1"), Tag("2"))) == [Delta("end of 1 2"), Delta("end of 2 ")]


def test_an_empty_row_lets_everything_pass() -> None:
    row = Pipeline()
    assert row.feed(Finish("stop")) == [Finish("stop")]
    assert finished(row) == []
    assert not row.done


def test_a_row_is_done_when_any_stage_is() -> None:
    row = Pipeline(Tag("1"), Full(), Tag("2"))
    assert not row.done
    assert row.feed(Delta("x")) == [Delta("x12")]
    assert row.done


def test_a_stage_has_nothing_at_its_end_unless_it_says_so() -> None:
    assert Full().flush() == []


def test_counting_behind_a_cut_counts_only_what_was_kept() -> None:
    row = Pipeline(StopSequences(("END",)), UsageCounter(7, token_counts.CJK))
    out = [*row.feed(Delta("one END two")), *row.feed(Finish("length")), *row.feed(Usage(9, 9, "backend"))]
    out += finished(row)
    assert out == [Delta("one "), Finish("stop"), Usage(7, token_counts.estimate("one "), "estimate")]


def test_what_was_held_back_is_counted_too() -> None:
    row = Pipeline(StopSequences(("END",)), UsageCounter(7, token_counts.CJK))
    out = [*row.feed(Delta("one EN")), *finished(row)]
    assert out == [Delta("one "), Delta("EN"), Usage(7, token_counts.estimate("one EN"), "estimate")]


REQUEST = openai.read_chat(b'{"messages":[{"role":"user","content":"again"}]}')
AGAIN = AskAgain(REQUEST, "too_short", UpstreamGarbled("too short"))


class Judge(Plain):
    """Asks again."""

    def feed(self, event: Event) -> list[Event]:
        return [event]

    def judge(self) -> Judgement:
        return AGAIN


def test_pipeline_finishes_with_the_judgement_of_a_filter_that_asks_again() -> None:
    assert Pipeline(Full()).finish(lambda: True) == []
    assert Pipeline(Full(), Judge(), Tag("1")).finish(lambda: True) is AGAIN


def test_pipeline_raises_the_failure_where_nothing_may_be_asked_again() -> None:
    with pytest.raises(UpstreamGarbled):
        Pipeline(Full(), Judge()).finish(lambda: False)


def test_answer_stands_where_nothing_may_be_asked_again_and_the_judgement_has_no_failure() -> None:
    class Lenient(Judge):
        def judge(self) -> Judgement:
            return AskAgain(REQUEST, "too_short", None)

    assert Pipeline(Lenient(), Tag("1")).finish(lambda: False) == [Delta("end of 1 ")]


def test_filter_is_judged_after_it_got_what_the_filters_before_it_held_back() -> None:
    seen: list[Event] = []

    class Seeing(Judge):
        def feed(self, event: Event) -> list[Event]:
            seen.append(event)
            return []

    assert Pipeline(Tag("1"), Seeing()).finish(lambda: True) is AGAIN
    assert seen == [Delta("end of 1 ")]
