"""Streams cut anywhere read alike, and the repaired ones give every character of the answer."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.dialects.base import AskWhole
from gateway.dialects.shared.v3_stream import V3Decoder
from gateway.errors import GatewayError
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Repair

CUTS = st.lists(st.integers(0, 400), max_size=12)
LINES = st.sampled_from(
    ["data: ", "data:", "data", "event: x", ": ping", "", "id: 1", "data: [DONE]", "ünï 你好😀"]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])
STREAMS = st.lists(st.tuples(LINES, st.text(max_size=5), ENDS), max_size=20).map(
    lambda lines: "".join(map("".join, lines)).encode("utf-8", "replace")
)
ANSWERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=8, max_size=60)


def sliced(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(edges)]


def parse(chunks: list[bytes]) -> tuple[list[sse.SseEvent], bool]:
    parser = sse.SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)], parser.rest


@given(STREAMS, CUTS)
@example(b"data: a\r\n\r\n", [8])
@example("data: 😀\n\n".encode(), [7, 8, 9])
def test_a_stream_reads_alike_however_it_is_sliced(raw: bytes, cuts: list[int]) -> None:
    whole, rest = parse([raw])
    assert parse(sliced(raw, cuts)) == (whole, rest)
    assert parse([bytes([byte]) for byte in raw]) == (whole, rest)


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_read_alike_however_they_are_sliced(raw: bytes, cuts: list[int]) -> None:
    assert parse(sliced(raw, cuts)) == parse([raw])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=50))
def test_a_framed_payload_is_read_as_it_was(payload: str) -> None:
    assert parse([sse.frame(payload.encode())]) == ([sse.SseEvent(payload)], False)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_comment_can_forge_an_event(text: str) -> None:
    assert parse([sse.comment(text)])[0] == []


def chunk(text: str, finish: str | None = None) -> bytes:
    delta = {"role": "assistant", "content": text, "function_call": None}
    choice = {"delta": delta, "finish_reason": finish, "index": 0}
    return sse.frame(json.dumps({"choices": [choice]}, ensure_ascii=False).encode())


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(edges)]


def read(raw: bytes, cuts: list[int], *, clean: bool = True) -> list[Event]:
    decoder = V3Decoder(None)
    events, _ = parse(sliced(raw, cuts))
    return [piece for event in events for piece in decoder.feed(event)] + decoder.end(clean=clean)


def outcome(raw: bytes, *, clean: bool) -> list[Event] | GatewayError | AskWhole:
    try:
        return read(raw, [], clean=clean)
    except (GatewayError, AskWhole) as failure:
        return failure


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@given(ANSWERS, CUTS, CUTS)
def test_a_v3_stream_gives_the_answer_without_its_lead(
    answer: str, cuts: list[int], slices: list[int]
) -> None:
    raw = b"".join(map(chunk, pieces_of("\n " + answer, cuts))) + chunk("", "stop") + sse.DONE
    events = read(raw, slices)
    assert text_of(events) == answer
    assert events[-1] == Finish("stop")


@given(ANSWERS, CUTS, CUTS, st.integers(8, 70))
def test_a_v3_stream_that_stops_in_the_middle_is_made_whole(
    answer: str, cuts: list[int], slices: list[int], stop: int
) -> None:
    full = "\n " + answer
    bare = "".join(f"data: {line}\r\n" for line in full.split("\n")) + "\r\n"
    raw = b"".join(map(chunk, pieces_of(full[:stop], cuts))) + bare.encode()
    events = read(raw, slices)
    assert text_of(events) == answer
    assert [event for event in events if not isinstance(event, Delta)] == [
        Repair("get_event"),
        Finish("stop"),
    ]


@given(ANSWERS, CUTS, st.integers(0, 2000), st.booleans())
def test_a_v3_stream_cut_anywhere_never_looks_complete(
    answer: str, cuts: list[int], cut: int, clean: bool
) -> None:
    raw = b"".join(map(chunk, pieces_of("\n " + answer, cuts)))
    assume(cut < len(raw))
    assert isinstance(outcome(raw[:cut], clean=clean), GatewayError | AskWhole)


@given(STREAMS, st.booleans())
def test_whatever_a_v3_server_sends_ends_in_an_answer_or_a_known_failure(raw: bytes, clean: bool) -> None:
    found = outcome(raw, clean=clean)
    if isinstance(found, list):
        assert sum(isinstance(event, Finish) for event in found) == 1
    else:
        assert found.args
