"""Reads complete answers of an OpenAI-like server and writes them in the form that the client must get.

An answer with all members that clients expect, and without anything that a rule changes, is sent as its own
bytes after a short check. All other answers are read as one chunk by `AnswerState`, which reads streams
too.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from gateway.dialects.base import Outgoing
from gateway.dialects.shared.calls import calls_in
from gateway.dialects.shared.openai_like import read_object, usage_of
from gateway.dialects.shared.passing import PassingDecoder
from gateway.dialects.shared.reading import StreamReader, TypedReader
from gateway.dialects.shared.rewriting import UsageCompleter, choice_object, head_of, identified, said_members
from gateway.dialects.shared.state import REASONING, AnswerState, ChunkMeaning, require_messages
from gateway.errors import UpstreamGarbled
from gateway.formats import jsontext, splice, sse
from gateway.formats.events import Delta, Event, Finish, Passed, Repair, ToolPiece
from gateway.formats.openai import AnswerChoice, reason_for, tool_object, usage_object

_ASSISTANT = b'"role":"assistant"'
_MEMBERS = itemgetter("id", "object", "created", "model", "choices")
_OF_CHOICE = itemgetter("index", "message", "logprobs", "finish_reason")
_OF_MESSAGE = itemgetter("role", "content")
_ENDINGS = ("stop", "length", "content_filter")
_PARTS = ("delta", "message", "text")
_FIRST = ("id", "created")
_INTEGERS = (int, int, int)
_BACKSLASH = ord("\\")
_PLAIN = frozenset({"role", "content", "refusal"})
_OTHERWISE = ("tool_calls", "function_call", "thinking", *REASONING)


def answer_of(outgoing: Outgoing, body: bytes) -> list[Event]:
    """Read a complete answer; return its events.

    The events are `Passed` bytes if the client reads the format that the server writes, else typed events.
    A body that is an event stream is read as well.

    Raises `UpstreamGarbled`, `UpstreamError`, `UpstreamTruncated` and `UpstreamEmpty`.
    """
    if not body.startswith(b"{") and sse.is_stream(body):
        return _streamed(outgoing, body)
    try:
        answer = read_object(body)
    except UpstreamGarbled:
        if body.lstrip()[:1] not in (b"{", b"["):
            raise
        return _streamed(outgoing, body)
    if outgoing.passes and not outgoing.chunks and (passed := _passed(body, answer, outgoing.model)):
        return passed
    if outgoing.passes and outgoing.chunks:
        reader = PassingDecoder(outgoing)
        # A complete answer was requested, so its repair `other_kind` is dropped.
        return [*reader.feed(body), *reader.end(clean=True)[1:]]
    return _read(outgoing, answer, body)


def _passed(body: bytes, answer: dict[str, Any], model: str) -> list[Event] | None:
    """Return the answer's own bytes and usage if it has every member that clients expect; else None.

    Two changes are made to the bytes: a missing `refusal`, which many servers leave out, is inserted, and
    the model's name is replaced.
    """
    try:
        name, kind, created, seen, choices = _MEMBERS(answer)
        (choice,) = choices
        index, message, _, reason = _OF_CHOICE(choice)
        role, content = _OF_MESSAGE(message)
        counts = answer["usage"]
        total = counts["total_tokens"]
        told = type(counts["prompt_tokens"]), type(counts["completion_tokens"]), type(total)
    except (KeyError, TypeError, ValueError):
        return None
    if not (name and created and type(name) is type(content) is type(seen) is str and type(created) is int):
        return None
    if kind != "chat.completion" or index != 0 or role != "assistant" or reason not in _ENDINGS:
        return None
    usage = usage_of(answer)
    if usage is None or told != _INTEGERS or total != usage.prompt + usage.completion:
        return None
    if not _PLAIN.issuperset(message) and any(map(message.get, _OTHERWISE)):
        return None
    # JSON without an escape holds no half surrogate pair. Searching for one byte takes a tenth of the time
    # of searching for a longer text.
    if body.find(_BACKSLASH) >= 0 and not (content.isascii() or _is_well_formed(content)):
        return None
    if not jsontext.is_standard(body):
        return None
    whole = body if message.get("refusal", message) is None else _with_refusal(body, message)
    if whole is not None and seen != model:
        whole = splice.with_model(whole, answer, model)
    return None if whole is None else [Passed(whole, reason), usage]


def _is_well_formed(text: str) -> bool:
    """Return True if the text holds no half surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_refusal(body: bytes, message: dict[str, Any]) -> bytes | None:
    # Inside a JSON string the quotes would be escaped, so a match is the member itself.
    if "refusal" in message or body.count(_ASSISTANT) != 1:
        return None
    return body.replace(_ASSISTANT, _ASSISTANT + b',"refusal":null')


def _read(outgoing: Outgoing, answer: dict[str, Any], body: bytes | None) -> list[Event]:
    """Read an answer that cannot be sent as its own bytes."""
    state = AnswerState(single=not outgoing.several)
    said = state.take(answer)
    require_messages(said)
    endings = state.finishes(done=True)
    rests = state.rest()
    if not outgoing.passes:
        deltas = [_with_rest(one.delta, rests) for one in said]
        usage: list[Event] = [state.usage] if state.usage else []
        return [*(delta for delta in deltas if not delta.empty), *endings, *usage]
    repairs = [event for event in endings if isinstance(event, Repair)]
    finishes = {event.choice: event for event in endings if isinstance(event, Finish)}
    return [*repairs, *_rewritten(outgoing, answer, body, state, said, rests, finishes)]


def _rewritten(
    outgoing: Outgoing,
    answer: dict[str, Any],
    body: bytes | None,
    state: AnswerState,
    said: list[ChunkMeaning],
    rests: list[Delta],
    finishes: dict[int, Finish],
) -> list[Event]:
    counter = UsageCompleter()
    choices: list[dict[str, Any]] = []
    for one in said:
        whole = one._replace(delta=_with_rest(one.delta, rests))
        counter.take(whole.delta)
        choices.append(_choice(whole, finishes[one.place], outgoing))
    usage = state.usage or counter.usage(outgoing)
    head = head_of(answer, "chat.completion", outgoing)
    out = {**answer, **head, "choices": choices, "usage": usage_object(usage)}
    same = body is not None and out == answer and jsontext.is_standard(body)
    data = body if same and body is not None else jsontext.write(out)
    return [Passed(data, finishes[said[-1].place].reason), usage]


def _choice(one: ChunkMeaning, finish: Finish, outgoing: Outgoing) -> dict[str, Any]:
    members = said_members(one)
    tools = identified(one.delta.tools, outgoing)
    if tools and outgoing.legacy:
        members["function_call"] = {"name": tools[0].name, "arguments": tools[0].arguments}
    elif tools:
        members["tool_calls"] = [_call(piece, given) for piece, given in _beside(tools, one)]
    if members.get("content") is None:
        members["content"] = None if tools else ""
    members["role"] = "assistant"
    members.setdefault("refusal", None)
    return choice_object(one, "message", members, reason_for(finish.reason, outgoing.legacy))


def _beside(tools: tuple[ToolPiece, ...], one: ChunkMeaning) -> list[tuple[ToolPiece, dict[str, Any]]]:
    """Return each call with its object in the server's answer, whose unknown members are kept."""
    given = calls_in(one.members)
    calls = given if isinstance(given, list) and len(given) == len(tools) else [{}] * len(tools)
    return list(zip(tools, calls, strict=True))


def _call(piece: ToolPiece, given: dict[str, Any]) -> dict[str, Any]:
    known = ("arguments", "name", "function", "id", "type")
    more = {name: value for name, value in given.items() if name not in known}
    call = tool_object(piece)
    if "index" not in more:
        del call["index"]
    return {**more, **call}


def _with_rest(delta: Delta, rests: list[Delta]) -> Delta:
    """Return a delta of a choice, joined with the content of that choice that was held back."""
    for rest in rests:
        if rest.choice == delta.choice:
            left = {piece.index: piece.arguments for piece in rest.tools}
            tools = tuple(
                ToolPiece(one.index, one.arguments + left.get(one.index, ""), one.id, one.name)
                for one in delta.tools
            )
            extras = {name: value + rest.extras.get(name, "") for name, value in delta.extras.items()
                      if isinstance(value, str)}  # fmt: skip
            return delta._replace(text=delta.text + rest.text, tools=tools, extras={**delta.extras, **extras})
    return delta


# --- event streams, where a complete answer was requested ------------------------------------------


def _streamed(outgoing: Outgoing, body: bytes) -> list[Event]:
    if outgoing.passes and outgoing.chunks:
        reader = PassingDecoder(outgoing)
        return [Repair("other_kind"), *reader.feed(body), *reader.end(clean=True)]
    if not outgoing.passes:
        typed = TypedReader(outgoing)
        return [Repair("other_kind"), *typed.feed(body), *typed.end(clean=True)]
    gathered = _StreamCollector(outgoing)
    gathered.feed(body)
    gathered.end(clean=True)
    return [Repair("other_kind"), *_read(outgoing, gathered.answer(), None)]


class _StreamCollector(StreamReader):
    """Assembles the chunks of a stream into a complete answer. One per stream."""

    def __init__(self, outgoing: Outgoing) -> None:
        super().__init__(outgoing)
        self._members: dict[str, Any] = {}
        self._more: dict[int, dict[str, Any]] = {}
        self._choices: dict[int, AnswerChoice] = {}

    def answer(self) -> dict[str, Any]:
        """Return the complete answer."""
        choices = [
            {**self._more[index], **choice.object(index, legacy=False)}
            for index, choice in sorted(self._choices.items())
        ]
        usage = self.state.usage
        return {
            **self._members,
            "choices": choices,
            "usage": usage_object(usage) if usage else None,
        }

    def _take(self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes | None) -> None:  # noqa: ARG002 - for readers that pass bytes
        for name, value in chunk.items():
            if value and name not in ("choices", "usage") and not (name in _FIRST and name in self._members):
                self._members[name] = value
        for one in said:
            self._choices.setdefault(one.place, AnswerChoice()).add(one.delta)
            more = self._more.setdefault(one.place, {})
            more |= {name: value for name, value in one.choice.items() if name not in _PARTS}

    def _ready(self) -> list[Event]:
        return []

    def _close(self, finishes: list[Event]) -> list[Event]:
        for delta in self.state.rest():
            self._choices[delta.choice].add(delta)
        for event in finishes:
            if isinstance(event, Finish):
                self._choices[event.choice].finish = event.reason
        return []
