from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.base import AskWhole
from gateway.dialects.shared.v3_stream import V3Decoder, finish_reason
from gateway.errors import UpstreamGarbled, UpstreamTruncated
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Repair

DONE = sse.SseEvent("[DONE]")
STOP = Finish("stop")


def chunk(text: str | None = None, finish: str | None = None) -> sse.SseEvent:
    delta = {"role": "assistant"} | ({} if text is None else {"content": text})
    return sse.SseEvent(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


def read(*events: sse.SseEvent, clean: bool = True, most: int | None = None) -> list[Event]:
    decoder = V3Decoder(most)
    return [event for one in events for event in decoder.feed(one)] + decoder.end(clean=clean)


def test_a_plain_stream_is_read_as_it_comes() -> None:
    assert read(chunk("\n Hello"), chunk(" you"), chunk("", "stop"), DONE) == [
        Delta("Hello"),
        Delta(" you"),
        STOP,
    ]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        pytest.param(32, "length", id="at-the-limit"),
        pytest.param(31, "length", id="one-token-lost-at-the-limit"),
        pytest.param(20, "stop", id="below"),
    ],
)
def test_stream_cut_at_its_limit_is_told_by_the_number_of_its_events(events: int, reason: str) -> None:
    # Each digit is one token. Counted by characters alone, the estimate would be a quarter of that.
    lead = 4  # the newline, the blank and the six digits of the first event
    digits = [chunk("\n 123456"), *(chunk("7") for _ in range(events - lead))]
    assert read(*digits, chunk("", "stop"), DONE, most=32)[-1] == Finish(reason)  # type: ignore[arg-type]


def test_edition_of_2023_sends_every_token_as_an_event() -> None:
    assert read(chunk("\n"), chunk(" "), *[chunk("7")] * 9, chunk(None, "stop"), DONE, most=12)[-1] == Finish(
        "length"
    )


def test_a_role_alone_is_no_piece() -> None:
    assert read(chunk(), chunk("\n 12345678"), chunk(None, "stop"), DONE) == [Delta("12345678"), STOP]


def test_the_first_finish_counts() -> None:
    assert read(chunk("call"), chunk("", "function_call"), chunk("more", "stop"), DONE) == [
        Delta("call"),
        STOP,
    ]


def test_a_bare_text_gives_the_missing_tail() -> None:
    events = read(chunk("\n Here is c"), chunk("ode"), sse.SseEvent("\n Here is code: get_x()\n"))
    assert events == [Delta("Here is c"), Delta("ode"), Repair("get_event"), Delta(": get_x()\n"), STOP]


def test_a_bare_text_that_misses_nothing_gives_nothing() -> None:
    assert read(chunk("\n use get_"), sse.SseEvent("\n use get_")) == [
        Delta("use get_"),
        Repair("get_event"),
        STOP,
    ]


def test_a_bare_text_without_anything_before_it_is_the_answer() -> None:
    assert read(sse.SseEvent("\n use get_x")) == [Repair("get_event"), Delta("use get_x"), STOP]


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param("Internal Server Error", id="words"),
        pytest.param("<html>\n</html>", id="html"),
        pytest.param('{"error":"get_x"}', id="error-object"),
        pytest.param('{"choices":{}}', id="choices-no-list"),
        pytest.param('{"choices":[', id="cut-json"),
        pytest.param('{"choices":[5]}', id="choice-no-object"),
        pytest.param('{"choices":[{}]}', id="no-delta"),
        pytest.param('{"choices":[{"delta":{"content":["x"]}}]}', id="content-no-text"),
        pytest.param("\n Here", id="shorter-than-what-came"),
        pytest.param("null", id="null"),
    ],
)
def test_junk_is_never_passed_on(junk: str) -> None:
    decoder = V3Decoder(None)
    assert decoder.feed(chunk("\n Here is c")) == [Delta("Here is c")]
    with pytest.raises(UpstreamGarbled):
        decoder.feed(sse.SseEvent(junk))


def test_an_event_without_data_says_nothing() -> None:
    decoder = V3Decoder(None)
    assert decoder.feed(sse.SseEvent("")) == []
    assert decoder.feed(chunk("\n Here is c")) == [Delta("Here is c")]
    assert decoder.feed(sse.SseEvent(" ")) == []


@pytest.mark.parametrize(
    ("events", "clean"),
    [
        pytest.param([], True, id="nothing"),
        pytest.param([DONE], True, id="done-alone"),
        pytest.param([DONE], False, id="done-alone-and-cut"),
        pytest.param([chunk(), DONE], True, id="role-and-done"),
    ],
)
def test_a_stream_without_an_answer_is_asked_for_again(events: list[sse.SseEvent], clean: bool) -> None:
    with pytest.raises(AskWhole) as caught:
        read(*events, clean=clean)
    assert (caught.value.repair, caught.value.remember) == ("short_stream", False)


@pytest.mark.parametrize(
    ("events", "clean"),
    [
        pytest.param([], False, id="cut-before-anything"),
        pytest.param([chunk()], True, id="role-alone"),
        pytest.param([chunk("\n 12345678")], True, id="end-that-looks-clean"),
        pytest.param([chunk("\n 12345678")], False, id="cut"),
    ],
)
def test_a_stream_that_breaks_off_is_truncated(events: list[sse.SseEvent], clean: bool) -> None:
    with pytest.raises(UpstreamTruncated):
        read(*events, clean=clean)


@pytest.mark.parametrize("clean", [True, False])
def test_either_end_mark_is_enough(clean: bool) -> None:
    assert read(chunk("12345678", "stop"), clean=clean)[-2:] == [STOP, Repair("missing_done")]
    assert read(chunk("12345678"), DONE, clean=clean)[-2:] == [Repair("no_finish"), STOP]


def test_nothing_is_read_behind_the_end() -> None:
    late: list[Any] = [chunk("late"), chunk("", "stop"), sse.SseEvent("junk")]
    assert read(chunk("12345678", "stop"), DONE, *late) == [Delta("12345678"), STOP]


@pytest.mark.parametrize(
    ("counted", "most", "reason"), [(8, 10, "stop"), (9, 10, "length"), (99, None, "stop")]
)
def test_the_last_token_is_lost_at_the_limit(counted: int, most: int | None, reason: str) -> None:
    assert finish_reason(counted, most) == reason


def test_the_lead_counts_for_nothing() -> None:
    text = "a" * 39  # ten tokens; eleven with the leading whitespace
    assert read(chunk("\n " + text, "stop"), DONE, most=12)[-1] == STOP
    assert read(chunk("\n " + text, "stop"), DONE, most=11)[-1] == Finish("length")


def test_a_bare_text_may_look_like_a_chunk() -> None:
    text = '{"choices": [], "name": "get_x"}'
    events = read(chunk("\n " + text[:10]), sse.SseEvent("\n " + text))
    assert events == [Delta(text[:10]), Repair("get_event"), Delta(text[10:]), STOP]
