from __future__ import annotations

import pytest

from gateway.formats import sse
from gateway.formats.sse import MAX_EVENT, SseEvent, SseParser


def parse(*chunks: bytes) -> list[SseEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        pytest.param(b"data: a\n\n", [SseEvent("a")], id="lf"),
        pytest.param(b"data: a\r\n\r\n", [SseEvent("a")], id="crlf"),
        pytest.param(b"data: a\r\rdata: b\r\r\n", [SseEvent("a"), SseEvent("b")], id="cr"),
        pytest.param(b"data:a\n\n", [SseEvent("a")], id="no-blank"),
        pytest.param(b"data:  a \n\n", [SseEvent(" a ")], id="one-blank-goes"),
        pytest.param(b"data: a\ndata: b\n\n", [SseEvent("a\nb")], id="lines-join"),
        pytest.param(b"data: \ndata:  x\ndata: \n\n", [SseEvent("\n x\n")], id="empty-lines-count"),
        pytest.param(b"data\n\n", [SseEvent("")], id="field-without-a-colon"),
        pytest.param(b": ping\n\ndata: a\n\n", [SseEvent("a")], id="comment"),
        pytest.param(b"data: a\n: ping\ndata: b\n\n", [SseEvent("a\nb")], id="comment-inside"),
        pytest.param(b"event: delta\ndata: a\n\n", [SseEvent("a", "delta")], id="type"),
        pytest.param(b"event: delta\n\ndata: a\n\n", [SseEvent("a")], id="type-without-data-is-forgotten"),
        pytest.param(b"id: 1\nretry: 5\nother: x\ndata: a\n\n", [SseEvent("a")], id="other-fields"),
        pytest.param(b"DATA: a\n\n", [], id="names-are-exact"),
        pytest.param(b"\n\n\n", [], id="blank-lines"),
        pytest.param("data: 你好\u2028\u0085😀\n\n".encode(), [SseEvent("你好\u2028\u0085😀")], id="unicode"),
        pytest.param(b"data: \xff\n\n", [SseEvent("\ufffd")], id="broken-utf-8"),
        pytest.param(b"data: a\n", [], id="unfinished"),
        pytest.param(b"data: a\n\ndata: b", [SseEvent("a")], id="second-unfinished"),
    ],
)
def test_events_are_read_whole_and_cut_anywhere(raw: bytes, events: list[SseEvent]) -> None:
    assert parse(raw) == events
    assert parse(*(bytes([byte]) for byte in raw)) == events


def test_a_crlf_cut_in_two_ends_one_line() -> None:
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [SseEvent("a\nb")]


def test_a_character_cut_in_two_stays_whole() -> None:
    raw = "data: 😀\n\n".encode()
    assert parse(raw[:8], raw[8:]) == [SseEvent("😀")]


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"data: a\n\n", False, id="whole"),
        pytest.param(b"data: a\n", True, id="line-ended"),
        pytest.param(b"data: a\n\nda", True, id="next-begun"),
        pytest.param(b": ping\n", False, id="comment"),
    ],
)
def test_a_parser_tells_whether_an_event_is_unfinished(raw: bytes, rest: bool) -> None:
    parser = SseParser()
    parser.feed(raw)
    assert parser.rest is rest


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"x" * 70_000, id="line-without-end"),
        pytest.param(b"data: " + b"x" * 70_000 + b"\n", id="event-without-end"),
    ],
)
def test_an_event_that_never_ends_is_given_up(line: bytes) -> None:
    with pytest.raises(ValueError, match="too long"):
        parse(*[line] * (sse.MAX_EVENT // 70_000 + 1))


def test_many_short_events_are_no_long_one() -> None:
    parser = SseParser()
    count = sse.MAX_EVENT // 1000 + 1
    assert len(parser.feed((b"data: " + b"x" * 1000 + b"\n\n") * count)) == count


def test_what_is_framed_is_read_again() -> None:
    assert parse(sse.frame(b'{"a":1}'), sse.DONE) == [SseEvent('{"a":1}'), SseEvent("[DONE]")]
    assert parse(sse.frame(b"1", "queue"), sse.frame(b"2")) == [SseEvent("1", "queue"), SseEvent("2")]


@pytest.mark.parametrize("text", ["position 3", "a\ndata: forged\n\n", ""])
def test_comments_are_seen_by_nobody(text: str) -> None:
    raw = sse.comment(text)
    assert raw.startswith(b":")
    assert raw.endswith(b"\n\n")
    assert parse(raw) == []


def test_a_line_in_many_pieces_is_put_together_once() -> None:
    parser = SseParser()
    for piece in (b"da", b"ta: ", b"a\xe4\xbd", b"\xa0", b"b"):
        assert parser.feed(piece) == []
        assert parser.rest
    assert parser.feed(b"\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\n") == [SseEvent("a你b")]
    assert not parser.rest


def test_a_line_that_never_ends_is_given_up_however_it_comes() -> None:
    parser = SseParser()
    for _ in range(MAX_EVENT // 16):
        assert parser.feed(b"x" * 16) == []
    with pytest.raises(ValueError, match="too long"):
        parser.feed(b"x")


OBJECTS = [SseEvent('{"a":1}'), SseEvent('{"b":2}'), SseEvent("[DONE]")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("begin", ["data: ", "data:", ""])
def test_objects_of_one_line_each_are_events_without_a_blank_line(begin: str, size: int, end: str) -> None:
    raw = "".join(f"{begin}{event.data}{end}" for event in OBJECTS).encode() + end.encode()
    parser = SseParser()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == OBJECTS


def test_an_object_over_several_data_lines_is_one_event() -> None:
    assert SseParser().feed(b'data: {\ndata: "a":1\ndata: }\n\n') == [SseEvent('{\n"a":1\n}')]


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        (b'{"choices":[{"delta":{}}]}', True),
        (b'{"choices":[{"text":"a"}]}', True),
        (b'{"choices":[{"message":{}}]}', False),
        (b'{"choices":[]}', False),
        (b'{"choices":[1]}', False),
        (b'{"error":{}}', False),
        (b"{", False),
        (b"[1]", False),
    ],
)
def test_json_lines_are_known_by_their_first(line: bytes, begins: bool) -> None:
    assert sse.begins_lines(line) is begins
