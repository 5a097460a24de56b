"""Checks every dialect against its tables of cases: requests in, bytes out; bytes in, events out.

The tables are `dialects/NAME/*.json`, each a list of cases. A case has a request, and either the error that
refuses the request or the exact request that the backend gets. It may also have an answer of the backend,
complete or streamed, and the result that reaches the client.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.dialects import DIALECTS
from gateway.dialects.base import AskWhole, ByteDecoder, Dialect, Outgoing, Profile
from gateway.formats import token_counts
from gateway.formats.events import Delta, Event, Finish, Repair, Usage
from gateway.formats.openai import AnswerChoice, ChatRequest, read_chat
from tests.support.opened import opened

TABLES = Path(__file__).parent / "dialects"
LEAST_CASES = 25
TOPICS = frozenset(
    {
        "system-first",
        "system-middle",
        "system-many",
        "same-role-twice",
        "leading-assistant",
        "last-not-user",
        "tool-history",
        "content-parts",
        "empty",
        "null",
        "temperature-0",
        "top_p-0",
        "max_tokens",
        "long-prompt",
        "stop",
        "n",
        "nulls",
        "surrogates",
        "split-characters",
    }
)
"""What every dialect's table must speak of."""

MEMBERS = {
    "case": {"id", "why", "topic", "profile", "request", "raw_request", "stream", "refused", "sends"}
    | {"answers", "streamed", "gives"},
    "refused": {"type", "param", "code"},
    "sends": {"path", "streams", "body", "ignored", "budget", "total", "prompt_tokens", "abandon"},
    "answers": {"body", "raw"},
    "streamed": {"bytes", "pieces", "hex", "clean"},
    "gives": {"text", "finish", "tool_calls", "usage", "repairs", "choices", "extras", "error"}
    | {"ask_whole", "remember"},
    "choice": {"text", "finish", "tool_calls", "extras"},
}
"""The members that a table may have. An unknown member would be a check that is never made."""


_AFTER_EVENT = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


@dataclass
class Outcome:
    """The result of reading one answer."""

    choices: dict[int, AnswerChoice] = field(default_factory=dict)
    usage: Usage | None = None
    repairs: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    failure: errors.GatewayError | None = None
    ask_whole: AskWhole | None = None

    def take(self, events: list[Event]) -> None:
        """Add events, and check the order of events that every door relies on."""
        for event in events:
            self.events.append(event)
            match event:
                case Delta():
                    choice = self._choice(event.choice)
                    assert self.usage is None, "a piece after the usage"
                    assert choice.finish is None, "a piece after the end of its choice"
                    choice.add(event)
                case Finish():
                    choice = self._choice(event.choice)
                    assert choice.finish is None, "a second end of a choice"
                    choice.finish = event.reason
                case Usage():
                    assert self.usage is None, "a second usage"
                    self.usage = event
                case Repair():
                    self.repairs.append(event.what)

    def _choice(self, index: int) -> AnswerChoice:
        return self.choices.setdefault(index, AnswerChoice())


def load(name: str) -> list[dict[str, Any]]:
    """Read all cases of a dialect."""
    found: list[dict[str, Any]] = []
    for path in sorted((TABLES / name).glob("*.json")):
        table = json.loads(path.read_text("utf-8"))
        assert isinstance(table, list), f"{path} is not a list of cases"
        found += table
    return found


def cases_with(member: str) -> list[Any]:
    """Return the cases of every dialect that have this member, as test parameters."""
    return [
        pytest.param(dialect, case, id=f"{name}-{case.get('id', 'unnamed')}")
        for name, dialect in DIALECTS.items()
        for case in load(name)
        if member in case
    ]


def request_of(case: dict[str, Any]) -> ChatRequest:
    """Parse the request of a case, as a door does."""
    raw: str | None = case.get("raw_request")
    return read_chat((json.dumps(case["request"]) if raw is None else raw).encode())


def ask(dialect: Dialect, case: dict[str, Any]) -> Outgoing:
    """Translate the request of a case."""
    profile = Profile(**{"model": "m", **case.get("profile", {})})
    return dialect.ask(request_of(case), profile, stream=case.get("stream", False))


def exact(value: Any) -> Any:
    """Return the value with booleans marked, because `True == 1` in Python but not in JSON."""
    if isinstance(value, dict):
        return {name: exact(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [exact(member) for member in value]
    return ("bool", value) if isinstance(value, bool) else value


def streamed_pieces(streamed: dict[str, Any]) -> list[bytes]:
    """Return the bytes of a stream in the pieces in which they arrive."""
    if "pieces" in streamed:
        return [piece.encode() for piece in streamed["pieces"]]
    return [bytes.fromhex(streamed["hex"]) if "hex" in streamed else streamed["bytes"].encode()]


def reader(dialect: Dialect, outgoing: Outgoing, *, passes: bool = False) -> ByteDecoder:
    """Return the dialect's reader: of typed events, or of passed bytes if the dialect has such a reader."""
    return dialect.reader(replace(outgoing, passes=passes))


def read_stream(decoder: ByteDecoder, pieces: list[bytes], *, clean: bool) -> Outcome:
    """Read a stream to its end, in the way of `path/attempt.py`."""
    outcome = Outcome()
    try:
        for event in (event for piece in pieces for event in _AFTER_EVENT.split(piece)):
            outcome.take(opened(decoder.feed(event)))
        outcome.take(opened(decoder.end(clean=clean)))
    except AskWhole as verdict:
        outcome.ask_whole = verdict
    except errors.GatewayError as error:
        outcome.failure = error
    return outcome


def read_whole(dialect: Dialect, outgoing: Outgoing, answers: dict[str, Any]) -> Outcome:
    """Read a complete answer, in the way of `path/attempt.py`."""
    outcome = Outcome()
    raw = answers["raw"].encode() if "raw" in answers else json.dumps(answers["body"]).encode()
    try:
        outcome.take(dialect.answer(replace(outgoing, passes=False), raw))
    except errors.GatewayError as error:
        outcome.failure = error
    return outcome


def check(outcome: Outcome, gives: dict[str, Any]) -> None:
    """Compare an outcome with the expected result of the table."""
    if "ask_whole" in gives:
        assert outcome.ask_whole is not None, f"was not to be asked whole: {outcome}"
        assert outcome.ask_whole.repair == gives["ask_whole"]
        assert outcome.ask_whole.remember is gives.get("remember", False)
        return
    assert outcome.ask_whole is None
    if "error" in gives:
        check_failure(outcome, gives)
        return
    assert outcome.failure is None, f"failed: {outcome.failure!r}"
    wanted = gives.get("choices", [gives])
    assert sorted(outcome.choices) == list(range(len(wanted)))
    for index, expected in enumerate(wanted):
        check_choice(outcome.choices[index], expected)
    usage = outcome.usage
    if usage is not None and usage.source == "estimate" and gives.get("usage") is None:
        # A dialect's own estimate must be the estimate that `UsageCounter` would make.
        said = "".join(choice.text for choice in outcome.choices.values())
        assert usage.completion in (
            token_counts.estimate(said),
            token_counts.estimate(said, token_counts.V1_CJK),
        )
    else:
        counts = usage and {"prompt": usage.prompt, "completion": usage.completion, "source": usage.source}
        assert counts == gives.get("usage")
    assert outcome.repairs == gives.get("repairs", [])


def check_failure(outcome: Outcome, gives: dict[str, Any]) -> None:
    """Compare an error, and the events before it."""
    assert outcome.failure is not None, f"did not fail: {outcome}"
    assert type(outcome.failure).__name__ == gives["error"]["type"]
    assert outcome.failure.code == gives["error"].get("code", outcome.failure.code)
    assert all(choice.finish is None for choice in outcome.choices.values()), "failed after its end"
    if "text" in gives:
        assert "".join(choice.text for choice in outcome.choices.values()) == gives["text"]


def check_choice(choice: AnswerChoice, expected: dict[str, Any]) -> None:
    """Compare one choice."""
    assert choice.text == expected.get("text", "")
    assert choice.finish == expected.get("finish", "stop")
    calls = [choice.calls[index] for index in sorted(choice.calls)]
    wanted = expected.get("tool_calls", [])
    assert [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        | ({"id": call["id"]} if "id" in one else {})
        for call, one in zip(calls, wanted, strict=True)
    ] == wanted
    if "extras" in expected:
        assert choice.extras == expected["extras"]


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_has_a_well_formed_table(name: str) -> None:
    cases = load(name)
    twice = [one for one, times in Counter(case.get("id") for case in cases).items() if times > 1]
    assert not twice, f"ids used twice: {twice}"
    profile = {one.name for one in fields(Profile)}
    for case in cases:
        check_members("case", case)
        assert ("request" in case) != ("raw_request" in case), case["id"]
        assert ("refused" in case) != ("sends" in case), case["id"]
        assert ("gives" in case) == ("answers" in case or "streamed" in case), case["id"]
        assert set(case.get("profile", {})) <= profile, case["id"]
        assert set(topics(case)) <= TOPICS, f"{case['id']}: unknown topics {set(topics(case)) - TOPICS}"
        for member in ("refused", "sends", "answers", "streamed", "gives"):
            check_members(member, case.get(member, {}))
        for choice in case.get("gives", {}).get("choices", []):
            check_members("choice", choice)


def check_members(kind: str, members: dict[str, Any]) -> None:
    """Fail if a table has a member that no check reads."""
    assert set(members) <= MEMBERS[kind], f"{kind} has unknown members: {set(members) - MEMBERS[kind]}"


def topics(case: dict[str, Any]) -> list[str]:
    """Return the topics of a case: a single topic, or a list."""
    topic = case.get("topic", [])
    return [topic] if isinstance(topic, str) else list(topic)


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_has_cases_enough_on_every_topic(name: str) -> None:
    cases = load(name)
    assert len(cases) >= LEAST_CASES
    missing = TOPICS - {topic for case in cases for topic in topics(case)}
    assert not missing, f"no case of {name} speaks of {sorted(missing)}"


def test_no_table_is_left_without_its_dialect() -> None:
    assert {path.name for path in TABLES.iterdir() if path.is_dir()} <= set(DIALECTS)


@pytest.mark.parametrize(("dialect", "case"), cases_with("refused"))
def test_what_cannot_be_translated_is_refused_by_name(dialect: Dialect, case: dict[str, Any]) -> None:
    refused = case["refused"]
    with pytest.raises(getattr(errors, refused["type"])) as caught:
        ask(dialect, case)
    assert type(caught.value).__name__ == refused["type"]
    assert caught.value.param == refused.get("param")
    assert caught.value.code == refused.get("code", caught.value.code)


@pytest.mark.parametrize(("dialect", "case"), cases_with("sends"))
def test_the_backend_gets_exactly_these_bytes(dialect: Dialect, case: dict[str, Any]) -> None:
    sends, outgoing = case["sends"], ask(dialect, case)
    body = json.loads(outgoing.body.decode("utf-8"))
    assert exact(body) == exact(sends["body"])
    assert None not in body.values(), "a null was sent"
    assert outgoing.path == sends["path"]
    assert outgoing.streams is sends["streams"]
    assert list(outgoing.ignored) == sends.get("ignored", [])
    for name in ("budget", "total", "prompt_tokens", "abandon"):
        if name in sends:
            assert getattr(outgoing, name) == sends[name], name


@pytest.mark.parametrize(("dialect", "case"), cases_with("sends"))
def test_asking_twice_gives_equal_bytes(dialect: Dialect, case: dict[str, Any]) -> None:
    request = request_of(case)
    profile = Profile(**{"model": "m", **case.get("profile", {})})
    stream = case.get("stream", False)
    first = dialect.ask(request, profile, stream=stream)
    assert dialect.ask(request, profile, stream=stream) == first


@pytest.mark.parametrize(("dialect", "case"), cases_with("answers"))
def test_a_whole_answer_reaches_the_client_as_this(dialect: Dialect, case: dict[str, Any]) -> None:
    check(read_whole(dialect, ask(dialect, case), case["answers"]), case["gives"])


@pytest.mark.parametrize(("dialect", "case"), cases_with("streamed"))
def test_a_stream_reaches_the_client_as_this(dialect: Dialect, case: dict[str, Any]) -> None:
    outgoing = ask(dialect, case)
    assert outgoing.streams, "the case streams what was not asked to stream"
    pieces, clean = streamed_pieces(case["streamed"]), case["streamed"].get("clean", True)
    check(read_stream(reader(dialect, outgoing), pieces, clean=clean), case["gives"])


@pytest.mark.parametrize(("dialect", "case"), cases_with("streamed"))
def test_a_stream_cut_into_single_bytes_gives_the_same(dialect: Dialect, case: dict[str, Any]) -> None:
    outgoing, clean = ask(dialect, case), case["streamed"].get("clean", True)
    pieces = streamed_pieces(case["streamed"])
    bits = [bytes([byte]) for byte in b"".join(pieces)]
    whole = read_stream(reader(dialect, outgoing), pieces, clean=clean)
    sliced = read_stream(reader(dialect, outgoing), bits, clean=clean)
    check(sliced, case["gives"])
    assert sliced.events == whole.events
