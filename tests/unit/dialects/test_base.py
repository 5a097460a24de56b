from __future__ import annotations

import dataclasses

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import (
    DOUBTFUL,
    LATE,
    LATE_USAGE,
    AskWhole,
    Decoder,
    Dialect,
    EventDecoderAdapter,
    Outgoing,
    Profile,
)
from gateway.errors import BadRequest, UpstreamEmpty, UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.formats import sse
from gateway.formats.events import Delta, Event, Finish, Repair
from gateway.formats.openai import ChatRequest, read_chat

OUTGOING = Outgoing(path="/", body=b"{}", streams=False, prompt=1)


class Mute(Dialect):
    """Never streams, so it does not override `decoder`."""

    name = "mute"

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        return OUTGOING

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        return []


def test_a_stream_nobody_asked_for_is_garbled() -> None:
    with pytest.raises(UpstreamGarbled, match="mute"):
        Mute().decoder(OUTGOING)


def test_a_dialect_is_cautious_unless_it_says_otherwise() -> None:
    assert (Mute.context, Mute.honours, Mute.pairs) == (None, frozenset(), False)
    assert (OUTGOING.abandon, OUTGOING.ignored, OUTGOING.tool_names) == ("drain", (), frozenset())


class Saying(Decoder):
    """Knows how its answer ends."""

    finished = True
    late = 0.5
    cut = True

    def feed(self, event: sse.SseEvent) -> list[Event]:
        self.done = event.data == "end"
        return []

    def end(self, *, clean: bool) -> list[Event]:
        return []


def test_a_reader_of_bytes_tells_what_its_decoder_knows_of_the_end() -> None:
    reader = EventDecoderAdapter(Saying())
    assert (reader.finished, reader.late, reader.done, reader.cut) == (True, 0.5, False, False)
    reader.feed(b"data: end\n\n")
    assert (reader.done, reader.cut) == (True, True)


def test_a_reader_that_says_nothing_of_its_end_has_not_finished() -> None:
    class Plain(Saying):
        finished = Decoder.finished
        late = Decoder.late

    assert (EventDecoderAdapter(Plain()).finished, EventDecoderAdapter(Plain()).late) == (False, LATE)
    assert LATE < 0.05 < LATE_USAGE < DOUBTFUL


CHUNK = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a well known answer"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
SAID = b'"message":{"role":"assistant","content":"a well known answer"},"finish_reason":"stop"}]'
COUNTS = b'"usage":{"prompt_tokens":2,"completion_tokens":5,"total_tokens":7}'
ANSWER = b'{"object":"chat.completion","choices":[{"index":0,' + SAID + b"," + COUNTS + b"}"
KINDS = dict.fromkeys(
    ("chatglm2-openai", "chatglm3", "glm4", "chatglm-cpp", "openai"), (CHUNK + STOP, ANSWER)
) | {
    "chatglm-stream": (
        b'data: {"response":"a well known answer","history":[],"finished":true}\n\n',
        b'{"response":"a well known answer","history":[],"status":200}',
    )
}


def asked_of(name: str) -> tuple[Dialect, Outgoing]:
    request = read_chat(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}')
    dialect = DIALECTS[name]
    return dialect, dataclasses.replace(dialect.ask(request, Profile("m"), stream=True), passes=False)


def said(events: list[Event]) -> str:
    assert Repair("other_kind") in events
    assert Finish("stop") in events
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("name", KINDS)
def test_a_whole_answer_where_a_stream_was_asked_for_is_used_by_every_dialect(name: str, size: int) -> None:
    dialect, outgoing = asked_of(name)
    reader = dialect.reader(outgoing)
    body = b"\xef\xbb\xbf " + KINDS[name][1] + b"\n"
    events = [out for at in range(0, len(body), size) for out in reader.feed(body[at : at + size])]
    assert said(events + reader.end(clean=True)) == "a well known answer"


@pytest.mark.parametrize("name", KINDS)
def test_a_stream_where_a_whole_answer_was_asked_for_is_used_by_every_dialect(name: str) -> None:
    dialect, outgoing = asked_of(name)
    assert said(dialect.read(outgoing, KINDS[name][0])) == "a well known answer"


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"openai"}))
def test_a_whole_answer_that_breaks_off_where_a_stream_was_asked_for_is_an_error(name: str) -> None:
    dialect, outgoing = asked_of(name)
    for body, clean, kind in (
        (KINDS[name][1][:40], False, UpstreamTruncated),
        (KINDS[name][1][:40], True, UpstreamGarbled),
        (b'{"error":{"message":"boom","code":500}}', True, UpstreamError),
    ):
        reader = dialect.reader(outgoing)
        reader.feed(body)
        with pytest.raises(kind):
            reader.end(clean=clean)


@pytest.mark.parametrize("name", ["chatglm2-openai", "glm4", "chatglm-cpp"])
def test_json_lines_are_a_stream_to_every_dialect(name: str) -> None:
    dialect, outgoing = asked_of(name)
    reader = dialect.reader(outgoing)
    lines = (CHUNK + STOP).replace(b"data: ", b"").replace(b"\n\n", b"\n")
    events = reader.feed(lines) + reader.end(clean=True)
    assert [event.text for event in events if isinstance(event, Delta)] == ["a well known answer"]
    assert Finish("stop") in events


def test_a_stream_without_an_answer_is_empty_where_a_whole_one_was_asked_for() -> None:
    dialect, outgoing = asked_of("chatglm3")
    with pytest.raises(UpstreamEmpty):
        dialect.read(outgoing, b"data: [DONE]\n\n")


def test_a_dialect_shows_its_name() -> None:
    assert repr(Mute()) == "<Mute mute>"


@pytest.mark.parametrize("kind", [Dialect, Decoder])
def test_what_every_dialect_must_say_cannot_be_left_out(kind: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_a_request_on_its_way_is_a_value() -> None:
    assert dataclasses.replace(OUTGOING) == OUTGOING


def test_asking_whole_names_the_fault() -> None:
    verdict = AskWhole("short_stream")
    assert (verdict.repair, verdict.remember, str(verdict)) == ("short_stream", False, "short_stream")
    assert AskWhole("cut_stream", remember=True).remember


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_listed_by_its_own_name(name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.name == name
    assert dialect.probe.startswith("/")
    assert dialect.honours <= {"stop", "n", "tools", "structured", "vision", "named_tool", "tool_choice"}


def test_a_dialect_translates_chat_and_what_it_says_besides() -> None:
    mute = Mute()
    assert mute.operations == {"chat": mute}
    assert mute.translator("chat") is mute
    with pytest.raises(BadRequest, match="embedding"):
        mute.translator("embedding")
