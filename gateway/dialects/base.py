"""The base classes of dialects: the translation of requests and answers, and facts about a server.

A `Dialect` is stateless and shared by all requests. `ask` may be called again for a retry and returns the
same bytes each time. A `Decoder` belongs to one stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

from gateway.dialects.shared.allowed import NOTHING, Ranges
from gateway.errors import BadRequest, UpstreamEmpty, UpstreamGarbled, UpstreamTruncated
from gateway.formats import sse, token_counts
from gateway.formats.events import Event, Repair
from gateway.formats.openai import ChatRequest
from gateway.formats.operation import Operation

Abandon: TypeAlias = Literal["close", "probe", "drain"]
"""When a backend is free again after a client has left.

`close`: as soon as the connection is closed. `probe`: when the backend answers a probe again, because it
answers nothing while it generates. `drain`: when it has sent the whole answer.
"""


Emulated: TypeAlias = Literal["tools", "structured"]
"""What the gateway emulates for a model where its backends lack it."""
Capability: TypeAlias = Literal["tools", "structured", "vision"]
"""What an OpenAI-like server can do by itself."""
ToolText: TypeAlias = Literal["glm-xml", "glm4"]
"""A format in which a server without a tool parser leaves calls in the text."""

LATE = 0.02
"""Seconds to wait for usage and `[DONE]` after the finish reason of a stream."""
LATE_USAGE = 0.25
"""Seconds to wait after the finish reason if the client asked for usage and it has not arrived."""
DOUBTFUL = 2.0
"""Seconds to wait after a finish reason in a chunk with content: some servers send one with every chunk."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings of a model and a backend that translation depends on, named as in config.toml.

    `model` is the name that the backend knows, `name` the name that clients use.
    """

    model: str
    name: str = ""
    context: int | None = None
    max_output: int | None = None
    default_output: int = 1024
    max_n: int = 4
    strict: bool = False
    trim: bool = False
    system: Literal["merge", "pair"] = "merge"
    leading_assistant: Literal["pair", "fold"] = "pair"
    tools: Literal["refuse", "ignore"] = "refuse"
    max_temperature: float | None = None
    variant: Literal["auto", "2023-11", "2024-01", "2024-05", "2024-05-08"] = "auto"
    v3_stream: Literal["native", "safe"] = "native"
    v3_tools: Literal["flat", "nested"] = "flat"
    v3_system: Literal["merge", "sacrificial"] = "merge"
    glm4_join: bool = False
    family: Literal["chatglm", "chatglm2", "chatglm3", "glm4"] = "chatglm2"
    prompt_window: int = 512
    glm4_stream: Literal["native", "safe"] = "native"
    emulate: tuple[Emulated, ...] = ("structured",)
    stream_unvalidated: bool = False
    capabilities: tuple[Capability, ...] | None = None
    repair_tools: tuple[ToolText, ...] = ()
    reasoning: Literal["pass", "mirror", "think", "open-think"] = "pass"


Stamp: TypeAlias = Callable[[str], tuple[str, int]]
"""Returns a new id with the given prefix, and the time in Unix seconds."""


def unstamped(prefix: str) -> tuple[str, int]:
    """Return a fixed id and time. For shadow copies and tests."""
    return prefix + "0", 0


@dataclass(slots=True)  # not frozen: creating a frozen instance takes three times as long
class Outgoing:
    """A request in the form in which one backend gets it, and the facts needed to read the answer.

    Immutable.

    Attributes:
        path: the path of the URL.
        body: the body of the request.
        streams: True if the answer is requested as a stream.
        prompt: the estimated number of tokens of the prompt (P), or a function that computes it when
            needed.
        budget: the maximum number of tokens of the answer (B).
        total: the `max_length` that is sent, which limits prompt and answer together.
        tool_names: the functions that may be called.
        ignored: the parameters that the backend does not honour.
        abandon: when the backend is free again after the client has left.
        notes: notes for the operator's log.
        passes: True if bytes of the answer may be passed on, because client and backend use the same
            format. The attributes `model`, `chunks`, `usage_wanted` and `legacy` describe the client in
            that case.
        model: the name of the model that the client sees.
        usage_wanted: True if the client wants usage at the end of the stream.
        kept: the number of prompt tokens that a server keeps if it shortens longer prompts; None if it
            keeps all.
        doubt: the note to log if the backend fails at all requests of this kind and answers the others.
        chunks: True if the client reads a stream.
        legacy: True if the client reads calls in the legacy form (`function_call`).
        several: True if more than one choice was requested.
        stamp: makes ids and the time for members that the backend has left out. Set by the attempt.
        abilities: the abilities that the answer needs. Set when the request is planned.
        profile: the profile that the abilities use. Set when the request is planned.
    """

    path: str
    body: bytes
    streams: bool
    prompt: int | Callable[[], int] = field(compare=False)
    budget: int | None = None
    total: int | None = None
    tool_names: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    abandon: Abandon = "drain"
    notes: tuple[str, ...] = ()
    passes: bool = False
    model: str = ""
    usage_wanted: bool = False
    kept: int | None = None
    doubt: str = ""
    chunks: bool = False
    legacy: bool = False
    several: bool = False
    stamp: Stamp = field(default=unstamped, compare=False)
    abilities: tuple[type[Any], ...] = field(default=(), compare=False)
    profile: Profile | None = field(default=None, compare=False)

    @property
    def prompt_tokens(self) -> int:
        """The estimated number of tokens of the prompt (P)."""
        return self.prompt if isinstance(self.prompt, int) else self.prompt()

    @property
    def kept_tokens(self) -> int:
        """The estimated number of prompt tokens that count against `total`."""
        return self.prompt_tokens if self.kept is None else self.kept


class AskWhole(Exception):
    """Raised by a decoder whose stream holds no usable answer: the request is sent again without streaming.

    `repair` names the fault. With `remember`, the backend is never asked for a stream again.
    """

    def __init__(self, repair: str, *, remember: bool = False) -> None:
        super().__init__(repair)
        self.repair = repair
        self.remember = remember


class Decoder(ABC):
    """Reads one event stream.

    `done` is True once the rest of the stream is of no use. `cut` is True if the gateway ended the answer
    at its limit, while the backend goes on generating.
    """

    done: bool = False
    cut: bool = False

    @property
    def finished(self) -> bool:
        """True once every choice has its finish reason, so that only the end of the stream is missing."""
        return False

    @property
    def late(self) -> float:
        """Seconds to wait for the end of the stream once `finished`; after that the answer is complete."""
        return LATE

    @abstractmethod
    def feed(self, event: sse.SseEvent) -> list[Event]:
        """Read one event of the backend. Raises `UpstreamGarbled`."""

    @abstractmethod
    def end(self, *, clean: bool) -> list[Event]:
        """Read the end of the stream. `clean` is True if the body ended as its HTTP framing says.

        Raises `UpstreamTruncated` if the answer is incomplete, `AskWhole` if the request must be sent again.
        """


class ByteDecoder(ABC):
    """Reads one event stream in bytes, which may be passed to the client unchanged.

    `done` and `cut` are those of `Decoder`. With `holds`, events before the first content are held back,
    because the request may still move to another backend.
    """

    done: bool = False
    cut: bool = False
    holds: bool = True

    @property
    def finished(self) -> bool:
        """True once every choice has its finish reason, so that only the end of the stream is missing."""
        return False

    @property
    def late(self) -> float:
        """Seconds to wait for the end of the stream once `finished`; after that the answer is complete."""
        return LATE

    def passed(self, chunk: bytes) -> bytes | None:  # noqa: ARG002 - a default
        """Return the bytes to pass to the client for a chunk that holds nothing but text.

        Return None for any other chunk: `feed` must read it.
        """
        return None

    @abstractmethod
    def feed(self, chunk: bytes) -> list[Event]:
        """Read some bytes. Raises `UpstreamGarbled`, `UpstreamError`."""

    @abstractmethod
    def end(self, *, clean: bool) -> list[Event]:
        """Read the end of the stream. Raises `UpstreamTruncated` when the answer is not whole."""


class EventDecoderAdapter(ByteDecoder):
    """Splits bytes into events for a `Decoder`.

    A body that begins as JSON is not a stream: it is collected, and read by `whole` at its end.
    """

    def __init__(self, decoder: Decoder, whole: Callable[[bytes], list[Event]] | None = None) -> None:
        self._decoder = decoder
        self._parser = sse.SseParser()
        self._whole = whole
        self._opening = sse.Opening()

    @property
    def finished(self) -> bool:
        return self._decoder.finished

    @property
    def late(self) -> float:
        return self._decoder.late

    def feed(self, chunk: bytes) -> list[Event]:
        try:
            events = self._parser.feed(chunk if self._whole is None else self._opening.take(chunk))
        except ValueError:
            raise UpstreamGarbled("An event of the backend's stream is too long.") from None
        ready = [out for event in events for out in self._decoder.feed(event)]
        self.done, self.cut = self._decoder.done, self._decoder.cut
        return ready

    def end(self, *, clean: bool) -> list[Event]:
        if self._whole is not None and (body := self._opening.json) is not None:
            if not clean:
                raise UpstreamTruncated("The backend's answer broke off.")
            self.done = True
            return [Repair("other_kind"), *self._whole(body.rstrip())]
        return self._decoder.end(clean=clean and not self._parser.rest)


class Translator(ABC):
    """Translates one operation for one wire format. Stateless, shared by all requests."""

    @abstractmethod
    def ask(self, request: Any, profile: Profile, *, stream: bool) -> Outgoing:
        """Translate a request. With `stream`, the answer is wanted as a stream if the server can stream.

        Returns the same bytes if it is called again for the same request. Raises `BadRequest`,
        `UnsupportedParameter` and `ContextExceeded`.
        """

    @abstractmethod
    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        """Translate a complete answer with status 200. Raises `UpstreamGarbled` and `UpstreamEmpty`."""

    def read(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        """Translate the body of a complete answer with status 200, even if it is an event stream."""
        if not sse.is_stream(body):
            return self.answer(outgoing, body)
        decoder = self.decoder(outgoing)
        if isinstance(decoder, ByteDecoder):  # a `ByteDecoder` reads both kinds
            return self.answer(outgoing, body)
        reader = EventDecoderAdapter(decoder)
        body = body.removeprefix(sse.BYTE_ORDER_MARK)
        try:
            return [Repair("other_kind"), *reader.feed(body), *reader.end(clean=True)]
        except AskWhole:
            raise UpstreamEmpty("The backend ended its stream without an answer.") from None

    def reader(self, outgoing: Outgoing) -> ByteDecoder:
        """Return a decoder of bytes for one stream. It also reads a complete answer."""
        decoder = self.decoder(outgoing)
        if isinstance(decoder, ByteDecoder):
            return decoder
        return EventDecoderAdapter(decoder, partial(self.answer, outgoing))

    def decoder(self, outgoing: Outgoing) -> Decoder | ByteDecoder:  # noqa: ARG002 - a default
        """Return a decoder for one stream. Only for translators whose `ask` may set `streams`."""
        raise UpstreamGarbled("The backend sent an event stream that was not asked for.")


class Dialect(Translator):
    """One wire format, and itself the translator of its chat operation.

    Attributes:
        name: the name in config.toml.
        context: the context length in tokens, unless it is configured. None: unknown, and nothing is
            clamped.
        cjk: hundredths of a token for a Chinese character.
        probe: the path of a cheap GET request that checks the server's health.
        honours: what the server supports by itself, of "stop", "n", "tools", "structured", "named_tool" and
            "tool_choice".
        pairs: True if the format holds question-and-answer pairs, in which a half may be empty.
        ranges: the values that the server accepts; `ask` refuses all others.
        other_operations: the translators of operations besides chat.
    """

    name: ClassVar[str]
    context: ClassVar[int | None] = None
    cjk: ClassVar[int] = token_counts.CJK
    probe: ClassVar[str] = "/v1/models"
    honours: ClassVar[frozenset[str]] = frozenset()
    pairs: ClassVar[bool] = False
    ranges: ClassVar[Ranges] = NOTHING
    other_operations: ClassVar[Mapping[Operation, Translator]] = MappingProxyType({})

    @abstractmethod
    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:
        """Translate a chat request; see `Translator.ask`."""

    @property
    def operations(self) -> Mapping[Operation, Translator]:
        """The translator of each operation that the servers of this dialect support."""
        return {"chat": self, **self.other_operations}

    def translator(self, operation: Operation) -> Translator:
        """Return the translator of an operation. Raises `BadRequest` if the servers do not support it."""
        if operation == "chat":
            return self
        translator = self.other_operations.get(operation)
        if translator is None:
            raise BadRequest(f"The servers of this model do not serve {operation} requests.", param="model")
        return translator

    def decoder(self, outgoing: Outgoing) -> Decoder | ByteDecoder:  # noqa: ARG002 - a default
        """Return a decoder for one stream; see `Translator.decoder`."""
        raise UpstreamGarbled(f"A {self.name} server sent an event stream that nobody asked for.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def has(capability: Capability, dialect: Dialect, profile: Profile) -> bool:
    """Return True if the servers with this dialect and profile have a capability by themselves."""
    if profile.capabilities is not None:
        return capability in profile.capabilities
    return capability in dialect.honours
