"""Passes an OpenAI-like server's answers on as bytes, as long as nothing in them needs mending.

Looking into every chunk of a stream costs more than relaying it. So only the beginning is read (until
there is content, and it looks as it should), and after that only chunks in which a cheap search finds
one of the words that matter: a finish reason, usage, an error, the end. A server that is not quite an
OpenAI is read event by event instead, like any other dialect.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from gateway.dialects.base import DOUBTFUL, LATE, LATE_USAGE, ByEvent, ByteDecoder, Decoder, Outgoing
from gateway.dialects.openai_like import DONE, read_object, reason_of, usage_of
from gateway.errors import GatewayError, UpstreamGarbled, UpstreamTruncated
from gateway.wire import sse
from gateway.wire.events import Event, FinishReason, Passed, Repair, Usage
from gateway.wire.openai import ChunkWriter

_END = b"\n\n"
_ASSISTANT = b'"role":"assistant"'
_MEMBERS = itemgetter("id", "object", "created", "model", "choices")
_OF_CHOICE = itemgetter("index", "message", "logprobs", "finish_reason")
_OF_MESSAGE = itemgetter("role", "content")
_ENDINGS = ("stop", "length", "tool_calls", "content_filter")
_WORDS = (
    b'finish_reason":"',
    b'usage":{',
    b'error"',
    b"[DONE]",
    b'finish_reason": "',
    b'usage": {',
    b"error_code",
)
"""What stands in a chunk that says more than text."""


def _matters(chunk: bytes) -> bool:
    """Whether a chunk says more than text, and must be read: a finish reason, usage, an error, the end."""
    # One search after the other, as bytes are searched faster than anything written in Python; not by `in`,
    # which takes what it looks for as a number first, raises that it is none, and drops that.
    return max(map(chunk.find, _WORDS)) >= 0


_TEXTS = tuple(
    (opening, len(opening))
    for name in (b"content", b"reasoning_content", b"reasoning", b"arguments")
    for opening in (b'"%b":"' % name, b'"%b": "' % name)
)
"""How pieces of an answer begin; one that is empty has a quote next."""


def _speaks(event: bytes) -> bool:
    """Whether an event that passes unread holds a piece of the answer; its bytes nearly always tell."""
    for opening, length in _TEXTS:
        place = event.find(opening)
        if place >= 0 and event.find(b'"', place + length) != place + length:
            return True
    try:
        chunk = _chunk(event)
        return chunk is not None and _says_words(chunk)
    except (GatewayError, KeyError, TypeError, AttributeError):
        return False  # passed unread, as ever; but it is no content


def _looks_single(chunk: bytes) -> bool:
    """Whether this is one event of one JSON object, as far as its ends tell: what nearly every read gives."""
    return chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n") and chunk.count(_END) == 1


def _looks_whole(chunks: bytes) -> bool:
    """Whether these are events of one JSON object each, as far as their ends tell."""
    if not (chunks.startswith(b"data: {") and chunks.endswith(b"}\n\n")):
        return False
    return chunks.count(b"}\n\ndata: {") == chunks.count(_END) - 1


class PassingDecoder(ByteDecoder):
    """One stream of one choice. `fallback` reads it if it turns out to need mending.

    Of `outgoing` it takes the name that the client must see, whether the usage chunk is the client's wish,
    and the estimate of the prompt, for servers that give no usage.
    """

    def __init__(self, fallback: Decoder, outgoing: Outgoing) -> None:
        self._fallback = ByEvent(fallback)
        self._mending = False
        self._outgoing = outgoing
        self._model = outgoing.model
        self._usage_wanted = outgoing.usage_wanted
        self._held = b""
        self._first: dict[str, Any] = {}
        self._begun = False
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None
        self._doubtful = False
        self._events = 0

    @property
    def finished(self) -> bool:
        return self._fallback.finished if self._mending else self._finish is not None

    @property
    def late(self) -> float:
        if self._doubtful:
            return DOUBTFUL
        return LATE_USAGE if self._usage_wanted and self._usage is None else LATE

    def passes(self, chunk: bytes) -> bool:
        usual = self._begun and not (self._held or self._mending or self.done)
        if not usual or _matters(chunk) or not _looks_single(chunk):
            return False
        self._events += 1
        return True

    def feed(self, chunk: bytes) -> list[Event]:
        return [Passed(chunk, None, self.says(chunk))] if self.passes(chunk) else self._feed(chunk)

    def says(self, chunk: bytes) -> bool:
        return _speaks(chunk)

    def _feed(self, chunk: bytes) -> list[Event]:
        if self._mending:
            return self._mend(chunk)
        if self.done:
            return []
        if self._held:
            chunk, self._held = self._held + chunk, b""
        if not self._begun and b"\r" in chunk:
            return self._mend(chunk)  # other ends of lines than OpenAI's
        end = chunk.rfind(_END) + len(_END)
        if end < len(_END):
            return self._hold(chunk)
        whole, self._held = chunk[:end], chunk[end:]
        if not self._begun:
            return self._begin(whole)
        if _matters(whole):
            return self._careful(whole, skim=True)
        if not _looks_whole(whole):
            return self._careful(whole, skim=False)
        self._events += whole.count(_END)
        return [Passed(whole, None, any(map(_speaks, filter(None, whole.split(_END)))))]

    def end(self, *, clean: bool) -> list[Event]:
        if self._mending:
            return self._fallback.end(clean=clean)
        if self._finish is None:
            raise UpstreamTruncated("The backend's answer broke off.")
        mended: list[Event] = [] if self.done else [Repair("missing_done")]
        if self._usage is not None:
            return [*mended, self._usage]
        # The server left the usage out: an event is about a token.
        usage = Usage(self._outgoing.prompt_tokens, self._events, "estimate")
        return [*mended, *([self._told(usage)] if self._usage_wanted else []), usage]

    def _told(self, usage: Usage) -> Passed:
        first = self._first
        writer = ChunkWriter(
            answer_id=first["id"],
            created=first["created"],
            model=self._model,
            include_usage=True,
            legacy=False,
        )
        return Passed(writer.usage(usage))

    def _hold(self, chunk: bytes) -> list[Event]:
        if len(chunk) > sse.MAX_EVENT:
            raise UpstreamGarbled("An event of the backend's stream is too long.")
        self._held = chunk
        return []

    # --- the beginning -----------------------------------------------------------------------------

    def _begin(self, whole: bytes) -> list[Event]:
        """Hold everything until there is content, so that a stream that breaks before can still move.

        Where it cannot, a first event goes on as soon as it is seen to be as it should.
        """
        for place, event in enumerate(filter(None, whole.split(_END))):
            chunk = _chunk(event)
            if chunk is None or not self._usual(chunk, first=place == 0):
                return self._mend(whole + self._held)
            self._first = self._first or chunk
            if _says(chunk):
                self._begun = True
                return self._careful(whole, skim=False)
        if not self.holds:
            self._begun = True
            return [Passed(whole, content=False)]
        self._held = whole + self._held
        return []

    def _usual(self, chunk: dict[str, Any], *, first: bool) -> bool:
        """Whether a chunk of the beginning is as OpenAI's own: then the rest will be, too."""
        match chunk:
            case {
                "id": str() as name,
                "object": "chat.completion.chunk",
                "created": int(),
                "model": str() as model,
                "choices": [{"index": 0, "delta": dict() as delta, "finish_reason": _}],
            }:
                role_is_right = delta.get("role") == ("assistant" if first else None)
                usage_is_right = ("usage" in chunk) == self._usage_wanted
                return bool(name) and model == self._model and role_is_right and usage_is_right
        return False

    def _mend(self, chunk: bytes) -> list[Event]:
        self._mending = True
        ready = self._fallback.feed(chunk)
        self.done = self._fallback.done
        return ready

    # --- chunks that say more than text ------------------------------------------------------------

    def _careful(self, whole: bytes, *, skim: bool) -> list[Event]:
        """Read the chunks; to `skim` is to read only those that matter."""
        kept: list[bytes] = []
        says = False
        for event in whole.split(_END):
            if not event or self.done:
                continue
            if skim and not _matters(event) and event.startswith(b"data:"):
                kept.append(event)
                self._events += 1
                says = says or _speaks(event)
                continue
            chunk = _chunk(event)
            if chunk is None:
                self.done = event.startswith(b"data:")
                continue  # comments are dropped: the gateway has its own
            finish, words = self._finish, _says_words(chunk)
            alone = self._note(chunk)
            if alone and not self._usage_wanted:
                continue
            kept.append(event)
            self._events += words
            says = says or words or self._finish is not finish
        return [Passed(_END.join(kept) + _END, self._finish, says)] if kept else []

    def _note(self, chunk: dict[str, Any]) -> bool:
        """Note usage and finish; tell whether the chunk holds usage alone."""
        usage = usage_of(chunk)
        self._usage = usage or self._usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise UpstreamGarbled("A chunk of the backend's answer has no choices.")
        for choice in choices:
            if isinstance(choice, dict):
                self._finish = self._finish or reason_of(choice.get("finish_reason"))
        if self._finish and _says_words(chunk):
            self._doubtful = True
        return usage is not None and not choices


def _chunk(event: bytes) -> dict[str, Any] | None:
    """An event's JSON; None for `[DONE]`, comments and whatever has no data. Raises `UpstreamGarbled`."""
    if not event.startswith(b"data:"):
        return None
    data = event[5:].strip()
    return None if data == DONE.encode() else read_object(data)


def _says(chunk: dict[str, Any]) -> bool:
    """Whether a chunk holds more than a role."""
    return _says_words(chunk) or any(choice.get("finish_reason") for choice in chunk["choices"])


def _says_words(chunk: dict[str, Any]) -> bool:
    """Whether a chunk holds a piece of the answer."""
    deltas = [choice.get("delta") or {} for choice in chunk["choices"] if isinstance(choice, dict)]
    return any(value for delta in deltas for name, value in delta.items() if name != "role")


def passed_whole(body: bytes, answer: dict[str, Any], model: str) -> list[Event] | None:
    """A whole answer as it came, if it has every member that clients expect; else None.

    Of these `refusal`, which many servers leave out, is put in where it belongs.
    """
    try:
        name, kind, created, seen, choices = _MEMBERS(answer)
        (choice,) = choices
        index, message, _, reason = _OF_CHOICE(choice)
        role, content = _OF_MESSAGE(message)
    except (KeyError, TypeError, ValueError):
        return None
    if not (name and type(name) is type(content) is str and type(created) is int and index == 0):
        return None
    if kind != "chat.completion" or seen != model or role != "assistant" or reason not in _ENDINGS:
        return None
    usage = usage_of(answer)
    whole = body if message.get("refusal", message) is None else _with_refusal(body, message)
    return [Passed(whole, reason), usage] if usage is not None and whole else None


def _with_refusal(body: bytes, message: dict[str, Any]) -> bytes | None:
    # In a text the quotes would be escaped: what looks like the member is the member.
    if "refusal" in message or body.count(_ASSISTANT) != 1:
        return None
    return body.replace(_ASSISTANT, _ASSISTANT + b',"refusal":null')
