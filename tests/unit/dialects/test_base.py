from __future__ import annotations

import dataclasses

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import (
    DOUBTFUL,
    LATE,
    LATE_USAGE,
    AskWhole,
    ByEvent,
    Decoder,
    Dialect,
    Outgoing,
    Profile,
)
from gateway.errors import UpstreamGarbled
from gateway.wire import sse
from gateway.wire.events import Event
from gateway.wire.openai import ChatRequest

OUTGOING = Outgoing(path="/", body=b"{}", streams=False, prompt=1)


class Mute(Dialect):
    """Never streams, so it has no decoder of its own."""

    name = "mute"

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        return OUTGOING

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        return []


def test_a_stream_nobody_asked_for_is_garbled() -> None:
    with pytest.raises(UpstreamGarbled, match="mute"):
        Mute().decoder(OUTGOING)


def test_a_dialect_is_cautious_unless_it_says_otherwise() -> None:
    assert (Mute.slots, Mute.context, Mute.honours, Mute.pairs) == (1, None, frozenset(), False)
    assert (OUTGOING.abandon, OUTGOING.ignored, OUTGOING.tool_names) == ("drain", (), frozenset())


class Saying(Decoder):
    """Has said how its answer ends."""

    finished = True
    late = 0.5
    cut = True

    def feed(self, event: sse.Event) -> list[Event]:
        self.done = event.data == "end"
        return []

    def end(self, *, clean: bool) -> list[Event]:
        return []


def test_a_reader_of_bytes_tells_what_its_decoder_knows_of_the_end() -> None:
    reader = ByEvent(Saying())
    assert (reader.finished, reader.late, reader.done, reader.cut) == (True, 0.5, False, False)
    reader.feed(b"data: end\n\n")
    assert (reader.done, reader.cut) == (True, True)


def test_a_reader_that_says_nothing_of_its_end_has_not_finished() -> None:
    class Plain(Saying):
        finished = Decoder.finished
        late = Decoder.late

    assert (ByEvent(Plain()).finished, ByEvent(Plain()).late) == (False, LATE)
    assert LATE < 0.05 < LATE_USAGE < DOUBTFUL


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
    assert dialect.slots >= 1
    assert dialect.honours <= {"stop", "n", "tools"}
