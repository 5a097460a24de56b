"""A chat request: parsed, checked and immutable.

Tolerant of unknown members, strict about the types of known ones; null means absent everywhere.
Source: OpenAI's published API description (chat completions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Required

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, to_jsonable_python
from pydantic_core.core_schema import no_info_after_validator_function

from gateway.errors import BadRequest
from gateway.formats import jsontext, large, lenient, unread_members
from gateway.formats.checked import checked_as, given, members_of
from gateway.formats.limits import (
    MAX_BIASES,
    MAX_CALLS,
    MAX_ID,
    MAX_MESSAGES,
    MAX_NAME,
    MAX_PARTS,
    MAX_STOP,
    MAX_STOPS,
    MAX_TOOLS,
)
from gateway.formats.native import NativeRequest
from gateway.formats.validation_messages import refusal
from gateway.formats.writer import NO_FORMATS, WireFormat

MAX_INTEGER = 2**31 - 1

CHAT_READS: frozenset[WireFormat] = frozenset({"openai-chat"})
"""The formats of backends' answers that a client of this API reads as they are."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
TokenLimit = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Id = Annotated[str, Field(max_length=MAX_ID)]
StopText = Annotated[str, Field(max_length=MAX_STOP)]


def _few(most: int, least: int = 0) -> Any:
    """What a list may be: not longer than `most`, and left at its first fault."""
    return Field(min_length=least, max_length=most, fail_fast=True)


_TEXT_MEMBERS = frozenset({"role", "content"})


class _Value(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Part(_Value):
    """A part of a message's content. Only text parts have `text`; other types pass unread or are refused."""

    type: str
    text: str | None = None


class FunctionCall(_Value):
    """A call's function: `arguments` is a text that should hold JSON."""

    name: Name
    arguments: str = ""


class ToolCall(_Value):
    """A call the assistant made."""

    function: FunctionCall
    id: Id = ""
    type: str = "function"


class Message:
    """One message of the conversation."""

    role: Role
    content: str | Annotated[list[Part], _few(MAX_PARTS)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], _few(MAX_CALLS)] | None = None
    tool_call_id: Id | None = None
    function_call: FunctionCall | None = None

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of an assistant message, of today's form or the old one."""
        if self.tool_calls:
            return self.tool_calls
        return [ToolCall(function=self.function_call)] if self.function_call else []

    def canonical(self) -> bytes:
        """Return the same bytes for equal messages, in whatever order their members were sent."""
        members = self.__dict__
        if type(members.get("content")) is str and not members.keys() - _TEXT_MEMBERS:
            return f"{self.role}\0{self.content}".encode(errors="surrogatepass")
        given = {name: value for name, value in members.items() if value is not None}
        plain = to_jsonable_python(given, exclude_none=True)
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def of(cls, members: dict[str, Any]) -> Message:
        """The message with these members, which are checked already."""
        message = cls()
        message.__dict__ = members
        return message

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(cls.of, handler(members_of(cls)))

    def __repr__(self) -> str:
        return f"Message({self.__dict__})"


class FunctionDefinition(_Value):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolDefinition(_Value):
    """A tool; `function` is absent for types other than "function"."""

    type: str
    function: FunctionDefinition | None = None


class NamedFunction(_Value):
    """The function a tool_choice names."""

    name: Name


class NamedChoice(_Value):
    """A tool_choice that names one function."""

    type: str = "function"
    function: NamedFunction


class StreamOptions(_Value):
    """How a stream is wanted."""

    include_usage: bool | None = None


class ChatRequest:
    """A chat request, checked. `body` keeps what was received, for backends that take it unread.

    Never changed: it is shared by every attempt to answer it.
    """

    model: str = ""
    messages: Annotated[list[Message], _few(MAX_MESSAGES, least=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stop: StopText | Annotated[list[StopText], _few(MAX_STOPS)] | None = None
    tools: Annotated[list[ToolDefinition], _few(MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    functions: Annotated[list[FunctionDefinition], _few(MAX_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=MAX_BIASES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    user: Id | None = None

    # What follows is no member of the body: `_checked` gives each request its own.

    body: ClassVar[dict[str, Any]] = {}
    """The members as they were received, nulls left out. Not to be changed."""
    raw: ClassVar[bytes] = b""
    """The very bytes of the body, where a client sent them and no member was left out; else empty."""
    total_length: ClassVar[int | None] = None
    """The most tokens of prompt and answer together, where a native client said so."""
    paired: ClassVar[bool] = False
    """Whether a native client asked it, with pairs for messages."""
    unread_names: ClassVar[tuple[str, ...] | None] = None
    """What `unread` gives, if it has been looked for."""
    accepts: ClassVar[frozenset[WireFormat]] = NO_FORMATS
    """The formats of backends' answers that may go to its reader unread: those of the door's writer.

    None where the request is for one choice of several, which has to be numbered.
    """
    large: ClassVar[bool] = False
    """Whether its body was large, so that it is to be written in pieces."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A request is never changed; {name} cannot be set.")

    def single(self) -> ChatRequest:
        """The same request for one choice of several."""
        body = {name: value for name, value in self.body.items() if name != "n"}
        single = _checked(body, total_length=self.total_length, paired=self.paired)
        return self._unread_too(single)

    def of(self, model: str) -> ChatRequest:
        """The same request to another model."""
        other = _checked({**self.body, "model": model}, total_length=self.total_length, paired=self.paired)
        vars(other)["accepts"] = self.accepts
        return self._unread_too(other)

    def changed(self, **members: Any) -> ChatRequest:
        """Return the same request with these members, which must be of the right types; None removes one."""
        body = {name: value for name, value in {**self.body, **members}.items() if value is not None}
        other = _checked(body, total_length=self.total_length, paired=self.paired)
        return self._unread_too(other)

    @property
    def has_opening(self) -> bool:
        """Whether a user has said something."""
        return any(message.role == "user" for message in self.messages)

    def turns(self, *, opening: bool) -> Iterator[bytes]:
        """Yield the messages as canonical bytes; with `opening` only those up to the first user message."""
        for message in self.messages:
            yield message.canonical()
            if opening and message.role == "user":
                return

    def without_passing(self) -> ChatRequest:
        """Return the same request, whose answer must be read on its way to the client."""
        other = ChatRequest()
        object.__setattr__(other, "__dict__", {**self.__dict__, "accepts": NO_FORMATS})
        return other

    def _unread_too(self, other: ChatRequest) -> ChatRequest:
        # Those of a native request stand in no body.
        vars(other)["unread_names"] = self.unread
        vars(other)["large"] = self.large
        return other

    @property
    def unread(self) -> tuple[str, ...]:
        """The names of the members that nobody here reads: lost where they are not sent on."""
        if self.unread_names is None:
            vars(self)["unread_names"] = unread_members.of_chat(self.body, _KNOWN)
        return self.unread_names or ()

    @property
    def budget(self) -> int | None:
        """The most tokens the answer may have, if the client said; the newer name wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts, as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    @property
    def legacy_functions(self) -> bool:
        """Whether the client speaks the old form (`functions`) and wants `function_call` back."""
        return bool(self.functions) and not self.tools

    @property
    def offered(self) -> list[ToolDefinition]:
        """The tools offered, of today's form or the old one."""
        return self.tools or [
            ToolDefinition(type="function", function=function) for function in self.functions or ()
        ]

    @property
    def named_tool(self) -> str | None:
        """The one function that must be called, if the client named one in either form."""
        choice = self.function_call if self.legacy_functions else self.tool_choice
        if isinstance(choice, NamedChoice):
            return choice.function.name
        return choice.name if isinstance(choice, NamedFunction) else None

    @property
    def tool_mode(self) -> Literal["none", "auto", "required"]:
        """Whether tools may, must or must not be used; `required` where one is named."""
        if not (self.tools or self.functions):
            return "none"
        if self.named_tool is not None:
            return "required"
        choice = self.function_call if self.legacy_functions else self.tool_choice
        return choice if choice in ("none", "required") else "auto"


def read_chat(raw: bytes) -> ChatRequest:
    """Parse and check a chat request. Raises `BadRequest` that names the field and what it takes."""
    if len(raw) > large.LARGE:
        return _read_large(raw)
    body = jsontext.parsed(raw)
    members = _usual(body)
    if members is not None:
        return _made(members, body, raw, accepts=CHAT_READS)
    reworded = body is jsontext.UNREAD and jsontext.has_lone_surrogates(raw)
    body = jsontext.assured(body, raw)
    return _understood(body, b"" if reworded else raw, raw)


def _read_large(raw: bytes) -> ChatRequest:
    """The same of a large body, in short steps."""
    value, outline, exact = large.read(raw)
    request = _understood(value, raw if exact else b"", outline)
    vars(request)["large"] = True
    return request


def _understood(body: Any, raw: bytes, outline: bytes) -> ChatRequest:
    """The request of a body. `raw` are its bytes, if they say the same; `outline` lacks long texts."""
    if not isinstance(body, dict):
        raise jsontext.no_object()
    _require_few(body)
    body, raw = lenient.tidied(body, raw, outline)
    try:
        return _checked(body, raw=raw, accepts=CHAT_READS)
    except ValidationError as error:
        raise refusal(error, body) from None


def _require_few(body: dict[str, Any]) -> None:
    """Refuse what is too long before any of it is looked at."""
    for name, most in _MOST:
        value = body.get(name)
        if isinstance(value, list | dict) and len(value) > most:
            raise BadRequest(f"{name}: it should be of at most {most} items.", param=name)
    biases = body.get("logit_bias")
    if isinstance(biases, dict):  # pydantic would collect all its faults
        wrong = (token for token, bias in biases.items() if type(bias) not in (int, float))
        if (token := next(wrong, None)) is not None:
            param = jsontext.name_of(("logit_bias", token))
            raise BadRequest(f"{param}: it should be a number.", param=param)


def _usual(body: Any) -> dict[str, Any] | None:
    """The members of a chat like most: texts, and numbers of bounded size. None for all others.

    Of a usual one nothing can be doubtful: its members are checked and that is all.
    """
    if type(body) is not dict or not _USUAL.issuperset(body):
        return None
    try:
        members: dict[str, Any] = _validate_usual(body)
    except ValidationError:
        return None
    members["messages"] = [Message.of(message) for message in members["messages"]]
    members["unread_names"] = ("user",) if members.get("user") else ()
    if "stream_options" in members:
        members["stream_options"] = StreamOptions(**members["stream_options"])
    return members


def chat_of_pairs(native: NativeRequest, model: str, *, empty_halves: bool) -> ChatRequest:
    """A native request as a chat: pairs become turns; `empty_halves` keeps those without a text."""
    messages: list[dict[str, str]] = []
    for pair in native.history:
        for role, text in zip(("user", "assistant"), pair, strict=True):
            if text or empty_halves:
                messages.append({"role": role, "content": text})
    sampling = {"temperature": native.temperature, "top_p": native.top_p}
    body = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": native.prompt}],
        **{name: value for name, value in sampling.items() if value is not None},
    }
    request = _checked(body, total_length=native.max_length, paired=True)
    vars(request)["unread_names"], vars(request)["large"] = native.unread, native.large
    return request


def _usual_chat() -> Any:
    message: Any = checked_as(
        "UsualMessage", {"role": Required[Role], "content": Required[str]}, more="forbid"
    )
    limits = _few(MAX_MESSAGES, least=1)
    options: Any = checked_as("UsualOptions", {"include_usage": NotRequired[bool]}, more="forbid")
    members: dict[str, Any] = {name: NotRequired[given(ChatRequest, name)] for name in _USUAL}
    members["stream_options"] = NotRequired[options]
    members["messages"] = Required[Annotated[list[message], limits]]
    return checked_as("UsualChat", members, more="forbid")


_MOST = (
    ("messages", MAX_MESSAGES),
    ("tools", MAX_TOOLS),
    ("functions", MAX_TOOLS),
    ("stop", MAX_STOPS),
    ("logit_bias", MAX_BIASES),
)
MEMBERS = members_of(ChatRequest)
_KNOWN = frozenset(MEMBERS.__annotations__)
_validate = TypeAdapter(MEMBERS).validator.validate_python
_USUAL = frozenset(
    {"model", "messages", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n"}
    | {"stop", "user", "frequency_penalty", "presence_penalty", "stream_options"}
)
_validate_usual = TypeAdapter(_usual_chat()).validator.validate_python


def _checked(
    body: dict[str, Any],
    *,
    raw: bytes = b"",
    total_length: int | None = None,
    paired: bool = False,
    accepts: frozenset[WireFormat] = NO_FORMATS,
) -> ChatRequest:
    members = _validate(body)
    return _made(members, body, raw, total_length=total_length, paired=paired, accepts=accepts)


def _made(
    members: dict[str, Any],
    body: dict[str, Any],
    raw: bytes,
    *,
    total_length: int | None = None,
    paired: bool = False,
    accepts: frozenset[WireFormat] = NO_FORMATS,
) -> ChatRequest:
    members["accepts"] = accepts
    members["body"] = body
    members["raw"] = raw
    members["total_length"] = total_length
    members["paired"] = paired
    request = ChatRequest()
    object.__setattr__(request, "__dict__", members)
    return request


def text_of(message: Message, where: str, joint: str = "\n") -> str:
    """A message's text, parts joined (rule T6). Raises `BadRequest` for a part that is not text."""
    content = message.content
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    for place, part in enumerate(content):
        if part.type != "text" or part.text is None:
            raise BadRequest(
                f"This model reads text only, not a content part of type {part.type[:32]!r}.",
                param=f"{where}.content[{place}].type",
            )
    return joint.join(part.text or "" for part in content)
