"""Writes the chunks and answers of an OpenAI-like server in the form that the client must get.

Unknown members, the id and the time are kept as the server sent them. Missing members are added, and
members that contradict a rule are replaced. An object that needs no change is sent as the server's own
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gateway.dialects.base import Outgoing
from gateway.dialects.shared.state import REASONING, AnswerState, ChunkMeaning
from gateway.formats import jsontext, token_counts
from gateway.formats.events import Delta, Finish, ToolPiece, Usage
from gateway.formats.openai import reason_for, tool_object, usage_object

_LATEST = 1 << 40
_KNOWN = frozenset({"id", "object", "created", "model", "choices", "usage"})
_OF_CHOICE = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason"})
_CALLS = ("tool_calls", "function_call")
_DATA = b"data: "
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def head_of(answer: dict[str, Any], kind: str, outgoing: Outgoing) -> dict[str, Any]:
    """Return the members at the start of every object of an answer.

    The id and the time are the server's if they are valid, else new ones.
    """
    answer_id, created = answer.get("id"), _time(answer.get("created"))
    if not (isinstance(answer_id, str) and answer_id and created):
        made, now = outgoing.stamp("chatcmpl-")
        answer_id = answer_id if isinstance(answer_id, str) and answer_id else made
        created = created or now
    return {"id": answer_id, "object": kind, "created": created, "model": outgoing.model}


def _time(value: Any) -> int:
    """Return `value` as whole Unix seconds, or 0 if it cannot be a time."""
    if isinstance(value, int | float) and 0 < value < _LATEST:
        return int(value)
    return 0


def identified(pieces: Iterable[ToolPiece], outgoing: Outgoing) -> tuple[ToolPiece, ...]:
    """Return the pieces with a new id for each call whose backend sent no id."""
    return tuple(
        replace(piece, id=outgoing.stamp("call_")[0]) if piece.name and not piece.id else piece
        for piece in pieces
    )


class UsageCompleter:
    """Estimates the completion tokens of an answer, for servers that send no usage (rule T14).

    One per answer.
    """

    def __init__(self) -> None:
        self._tally = token_counts.TokenTally()

    def add(self, text: str) -> None:
        """Add a text to the count."""
        self._tally.add(text)

    def take(self, delta: Delta) -> None:
        """Add the content of a delta to the count."""
        for text in delta.counted:
            self._tally.add(text)

    def usage(self, outgoing: Outgoing) -> Usage:
        """Return the estimated usage."""
        return Usage(outgoing.prompt_tokens, self._tally.tokens(token_counts.CJK), "estimate")


class ChunkRewriter:
    """Builds the chunks to send for one stream. One per stream.

    A chunk that only ends a choice is stored and sent at the end. Members of a usage chunk that the client
    did not ask for are stored too, and sent with the last chunk of each choice.
    """

    def __init__(self, outgoing: Outgoing, state: AnswerState) -> None:
        self._outgoing = outgoing
        self._state = state
        self._head: dict[str, Any] | None = None
        self._late: dict[str, Any] = {}
        self._counted: dict[str, Any] = {}
        self._counted_raw: bytes | None = None
        self._ends: dict[int, tuple[dict[str, Any], dict[str, Any], bytes | None]] = {}

    def take(self, chunk: dict[str, Any], said: list[ChunkMeaning]) -> dict[str, Any] | None:
        """Return the chunk to send for a received chunk, or None if nothing of it can be sent yet."""
        choices = [built for one in said if (built := self._choice(one)) is not None]
        if not choices:
            return None
        out = {**chunk, **self.head(chunk), "choices": choices}
        return self._with_usage(out)

    def note(self, chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes | None, *, sent: bool) -> None:
        """Store the parts of a received chunk that are sent at the end.

        `sent` is True if the chunk itself has been sent to the client.
        """
        more = {} if sent else {name: value for name, value in chunk.items() if name not in _KNOWN}
        if not said:
            if isinstance(chunk.get("usage"), dict):
                self._counted, self._counted_raw = chunk, raw
            else:
                self._late |= more
            return
        self._late |= more
        for one in said:
            if one.choice.get("finish_reason"):
                kept = dict(one.choice) if not sent else {**one.choice, "delta": {}, "logprobs": None}
                self._ends[one.place] = (chunk, kept, raw if len(said) == 1 and not sent else None)

    def rest(self, delta: Delta) -> dict[str, Any]:
        """Return a chunk for a delta that was held back."""
        choice = self._choice(ChunkMeaning(delta.choice, delta, {}, {}))
        return self._with_usage({**self.head({}), "choices": [choice]})

    def finish(self, finish: Finish) -> tuple[dict[str, Any], bytes | None]:
        """Return the last chunk of a choice, and its original bytes if it is sent unchanged."""
        chunk, choice, raw = self._ends.get(finish.choice, ({}, {}, None))
        members = choice.get("delta")
        members = {name: value for name, value in (members or {}).items() if not value and name != "role"}
        ended = ChunkMeaning(finish.choice, Delta(), {}, choice)
        told = choice_object(ended, "delta", members, reason_for(finish.reason, self._outgoing.legacy))
        more = {} if self._outgoing.usage_wanted else _unknown(self._counted)
        kept = {name: value for name, value in chunk.items() if name != "choices"} if raw else {}
        out = self._with_usage({**kept, **self._late, **more, **self.head(chunk), "choices": [told]})
        return out, raw if out == chunk else None

    def usage(self, usage: Usage) -> tuple[dict[str, Any], bytes | None]:
        """Return the usage chunk, which has no choices, and its original bytes if it is sent unchanged."""
        out = {**self._counted, **self.head(self._counted), "choices": [], "usage": usage_object(usage)}
        same = out == self._counted
        return out, self._counted_raw if same and _are_written_so(self._counted["usage"]) else None

    def head(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Return the first members of a chunk: those of the first chunk sent, with this chunk's own time."""
        head = self._head
        if head is None:
            head = self._head = head_of(chunk, "chat.completion.chunk", self._outgoing)
        created = _time(chunk.get("created"))
        if created and created != head["created"]:
            return {**head, "created": created}
        return head

    def _with_usage(self, out: dict[str, Any]) -> dict[str, Any]:
        if self._outgoing.usage_wanted:
            out["usage"] = None
        else:
            out.pop("usage", None)
        return out

    def _choice(self, one: ChunkMeaning) -> dict[str, Any] | None:
        if one.delta.empty and self._state.opened(one.place):
            return None
        opens = self._state.opens(one.place)
        delta = self._delta(one, opens=opens)
        return choice_object(one, "delta", delta, None)

    def _delta(self, one: ChunkMeaning, *, opens: bool) -> dict[str, Any]:
        members = said_members(one)
        members.pop("role", None)
        if one.delta.tools:
            members |= _written_pieces(identified(one.delta.tools, self._outgoing), self._outgoing.legacy)
        if not opens:
            return members
        if "content" not in members:
            members["content"] = None if one.delta.tools else ""
        return {"role": "assistant", **members}


def choice_object(
    one: ChunkMeaning, part: str, members: dict[str, Any], reason: str | None
) -> dict[str, Any]:
    """Return a choice of a chunk or an answer. Its unknown members follow the known members."""
    choice = one.choice
    return {
        "index": one.place,
        part: members,
        "logprobs": choice.get("logprobs"),
        "finish_reason": reason,
        **{name: value for name, value in choice.items() if name not in _OF_CHOICE},
    }


def said_members(one: ChunkMeaning) -> dict[str, Any]:
    """Return the members of a delta or message after all corrections, without tool calls."""
    members = dict(one.members)
    for name in _CALLS:
        if members.get(name):
            del members[name]
    if one.delta.text != (members.get("content") or ""):
        members["content"] = one.delta.text
    for name in REASONING:
        if name in one.delta.extras:
            members[name] = one.delta.extras[name]
    return members


def _are_written_so(usage: dict[str, Any]) -> bool:
    """Return True if all counts are integers in the server's JSON.

    5.0 equals 5 in Python, but not every client accepts 5.0.
    """
    return all(type(usage.get(name)) is int for name in _COUNTS)


def _unknown(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if name not in _KNOWN}


def _written_pieces(pieces: tuple[ToolPiece, ...], legacy: bool) -> dict[str, Any]:
    if not legacy:
        return {"tool_calls": [tool_object(piece) for piece in pieces]}
    call: dict[str, Any] = {}
    for piece in pieces:
        if piece.index == 0:  # the legacy form holds only one call
            name = {"name": piece.name} if piece.name is not None else {}
            call = {**call, **name, "arguments": call.get("arguments", "") + piece.arguments}
    return {"function_call": call} if call else {}


def written(chunk: dict[str, Any]) -> bytes:
    """Return a chunk as the line of an event, without the terminating blank line."""
    return _DATA + jsontext.write(chunk)
