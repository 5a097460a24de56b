"""`ChatRequest`: a chat request, parsed, checked and immutable.

Unknown members are accepted; known members must have the right types; null means absent. Source: OpenAI's
published API description (chat completions).
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
"""The formats of backends' answers that clients of this API can read unchanged."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
TokenLimit = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Id = Annotated[str, Field(max_length=MAX_ID)]
StopText = Annotated[str, Field(max_length=MAX_STOP)]


def _few(most: int, least: int = 0) -> Any:
    """Return the constraint for a list of at most `most` items, whose validation stops at the first fault."""
    return Field(min_length=least, max_length=most, fail_fast=True)


_TEXT_MEMBERS = frozenset({"role", "content"})


class _Value(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Part(_Value):
    """A part of a message's content. Only text parts have `text`."""

    type: str
    text: str | None = None


class FunctionCall(_Value):
    """The function of a call. `arguments` is a string that should be JSON."""

    name: Name
    arguments: str = ""


class ToolCall(_Value):
    """A call that the assistant made."""

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
        """The calls of an assistant message, in the current form or the old one."""
        if self.tool_calls:
            return self.tool_calls
        return [ToolCall(function=self.function_call)] if self.function_call else []

    def canonical(self) -> bytes:
        """Return the same bytes for equal messages, whatever the order of their members."""
        members = self.__dict__
        if type(members.get("content")) is str and not members.keys() - _TEXT_MEMBERS:
            return f"{self.role}\0{self.content}".encode(errors="surrogatepass")
        given = {name: value for name, value in members.items() if value is not None}
        plain = to_jsonable_python(given, exclude_none=True)
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def of(cls, members: dict[str, Any]) -> Message:
        """Return a message with these members, which have been checked."""
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
    """A tool. `function` is None for types other than "function"."""

    type: str
    function: FunctionDefinition | None = None


class NamedFunction(_Value):
    """The function that a `tool_choice` names."""

    name: Name


class NamedChoice(_Value):
    """A `tool_choice` that names one function."""

    type: str = "function"
    function: NamedFunction


class StreamOptions(_Value):
    """Options of a streamed answer."""

    include_usage: bool | None = None


class ChatRequest:
    """A chat request, checked. Shared by all attempts to answer it; it does not change.

    `body` is what was received, for backends that get it unchanged.
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
    """The members as received, without nulls. Must not be changed."""
    raw: ClassVar[bytes] = b""
    """The bytes of the body as received; empty if they differ from `body`."""
    total_length: ClassVar[int | None] = None
    """The maximum number of tokens of prompt and answer together, if a native client set it."""
    paired: ClassVar[bool] = False
    """True if the request came from a native client, with pairs of question and answer."""
    unread_names: ClassVar[tuple[str, ...] | None] = None
    """The value of `unread` once it has been computed."""
    accepts: ClassVar[frozenset[WireFormat]] = NO_FORMATS
    """The formats of backends' answers that may be passed to the client unread: those of the door's writer.

    Empty for a request for one of several choices, because its chunks must be renumbered.
    """
    large: ClassVar[bool] = False
    """True if the body was large, so that it has to be written in pieces."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A request is never changed; {name} cannot be set.")

    def single(self) -> ChatRequest:
        """Return the same request for one choice."""
        body = {name: value for name, value in self.body.items() if name != "n"}
        single = _checked(body, total_length=self.total_length, paired=self.paired)
        return self._unread_too(single)

    def of(self, model: str) -> ChatRequest:
        """Return the same request for another model."""
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
        """True if the conversation has a user message."""
        return any(message.role == "user" for message in self.messages)

    def turns(self, *, opening: bool) -> Iterator[bytes]:
        """Yield the messages as canonical bytes; with `opening` only those up to the first user message."""
        for message in self.messages:
            yield message.canonical()
            if opening and message.role == "user":
                return

    def without_passing(self) -> ChatRequest:
        """Return the same request, for an answer that must not be passed on unread."""
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
        """The names of members that the gateway does not use. They are lost unless they are sent on."""
        if self.unread_names is None:
            vars(self)["unread_names"] = unread_members.of_chat(self.body, _KNOWN)
        return self.unread_names or ()

    @property
    def budget(self) -> int | None:
        """The maximum number of tokens of the answer, if the client set one; `max_completion_tokens` wins."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """True if the client wants a usage chunk at the end of the stream."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    @property
    def legacy_functions(self) -> bool:
        """True if the client uses the old form (`functions`) and expects `function_call` in the answer."""
        return bool(self.functions) and not self.tools

    @property
    def offered(self) -> list[ToolDefinition]:
        """The offered tools, in the current form or the old one."""
        return self.tools or [
            ToolDefinition(type="function", function=function) for function in self.functions or ()
        ]

    @property
    def named_tool(self) -> str | None:
        """The name of the function that must be called, if the client named one in either form."""
        choice = self.function_call if self.legacy_functions else self.tool_choice
        if isinstance(choice, NamedChoice):
            return choice.function.name
        return choice.name if isinstance(choice, NamedFunction) else None

    @property
    def tool_mode(self) -> Literal["none", "auto", "required"]:
        """Whether tools may, must, or must not be called; `required` if one is named."""
        if not (self.tools or self.functions):
            return "none"
        if self.named_tool is not None:
            return "required"
        choice = self.function_call if self.legacy_functions else self.tool_choice
        return choice if choice in ("none", "required") else "auto"


def read_chat(raw: bytes) -> ChatRequest:
    """Parse and check a chat request. Raises `BadRequest` that names the field and what it may be."""
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
    """Parse and check a large body in short steps."""
    value, outline, exact = large.read(raw)
    request = _understood(value, raw if exact else b"", outline)
    vars(request)["large"] = True
    return request


def _understood(body: Any, raw: bytes, outline: bytes) -> ChatRequest:
    """Return the request of a parsed body.

    `raw` are the bytes of the body if they mean the same. `outline` is the body without its long texts.
    """
    if not isinstance(body, dict):
        raise jsontext.no_object()
    _require_few(body)
    body, raw = lenient.tidied(body, raw, outline)
    try:
        return _checked(body, raw=raw, accepts=CHAT_READS)
    except ValidationError as error:
        raise refusal(error, body) from None


def _require_few(body: dict[str, Any]) -> None:
    """Refuse lists and objects with too many items before they are validated."""
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
    """Return the members of a plain chat (texts, and numbers in the usual range); None for any other body.

    A plain chat needs only the fast validation.
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
    """Return a native request as a chat: pairs become turns. With `empty_halves`, empty texts are kept."""
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
    """Return the text of a message, parts joined (rule T6). Raises `BadRequest` for other parts."""
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
