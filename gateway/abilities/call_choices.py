"""The calls in the text of all choices of an answer. Shared by the abilities that read calls from text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.abilities.base import ACCEPT, AskAgain, Judgement
from gateway.abilities.call_reader import CallReader
from gateway.abilities.instructions import corrected
from gateway.abilities.offered_functions import OfferedFunctions, written
from gateway.errors import ToolCallFailed
from gateway.formats.events import Delta, Event, Finish, ToolPiece, Usage
from gateway.formats.openai import ChatRequest
from gateway.formats.structured.calls import EVERY_FORM, Form

_WRONG = (
    "上面的回答不正确：{fault}。请只输出正确的 JSON 工具调用。"
    "The reply above is not accepted: {fault}. Reply with the correct tool call as JSON only."
)
_NO_CALL = "没有调用工具 (it calls no tool)"


@dataclass(slots=True)
class CallChoice:
    """One choice, at its end.

    Attributes:
        text: the text that has been passed on.
        fed: all of its text.
        calls: its calls, as pieces for the client.
        before: text between what has been passed on and the first call.
        fault: what is wrong with the calls; "" for nothing.
        strict: True if the fault is one of a function that the client declared strict.
        cut: True if the answer was cut at its limit or by a content filter.
    """

    text: str
    fed: str
    calls: tuple[ToolPiece, ...] = ()
    before: str = ""
    fault: str = ""
    strict: bool = False
    cut: bool = False


@dataclass(slots=True)
class _Open:
    reader: CallReader
    native: bool = False  # the backend itself has made a call
    finish: Finish | None = None
    ended: CallChoice | None = field(default=None)


class CallChoices:
    """Reads the events of one answer. Text that may be a call, and the end of each choice, are held back.

    Args:
        functions: the offered functions.
        forms: the forms of calls to look for.
        hold: True to hold all text back, so that the request can be sent again.
    """

    def __init__(
        self, functions: OfferedFunctions, forms: Collection[Form] = EVERY_FORM, *, hold: bool = False
    ) -> None:
        self._functions = functions
        self._forms = forms
        self._hold = hold
        self._open: dict[int, _Open] = {}
        self._ending: list[Event] = []

    def feed(self, event: Event) -> list[Event]:
        """Take one event; return the events that go on."""
        if isinstance(event, Delta):
            choice = self._choice(event.choice)
            if event.tools and not choice.native:
                choice.native = True
                return [event._replace(text=choice.reader.fed[len(choice.reader.text) :] + event.text)]
            if not event.text or choice.native:
                return [event]
            if self._hold:
                choice.reader.hold(event.text)
            delta = event._replace(text="" if self._hold else choice.reader.feed(event.text))
            return [] if delta.empty else [delta]
        if isinstance(event, Finish):
            self._choice(event.choice).finish = event
            return []
        if isinstance(event, Usage):
            self._ending.append(event)
            return []
        return [event]

    def _choice(self, index: int) -> _Open:
        if index not in self._open:
            self._open[index] = _Open(CallReader(self._functions.names, self._forms))
        return self._open[index]

    def ended(self) -> list[CallChoice]:
        """Return each choice whose calls the backend has not made itself. After the last event."""
        return [self._end(one) for one in self._open.values() if not one.native]

    def _end(self, choice: _Open) -> CallChoice:
        if choice.ended is None:
            choice.ended = self._read(choice)
        return choice.ended

    def _read(self, choice: _Open) -> CallChoice:
        reader = choice.reader
        reading = reader.end()
        cut = choice.finish is not None and choice.finish.reason in ("length", "content_filter")
        calls = reading.calls[:1] if self._functions.one_only else reading.calls
        pieces: list[ToolPiece] = []
        fault, strict = reading.fault, False
        for index, call in enumerate(calls):
            arguments, wrong = self._functions.checked(call.name, call.arguments)
            fault = fault or wrong
            strict = strict or (bool(wrong) and self._functions.strict(call.name))
            pieces.append(ToolPiece(index, written(arguments), name=call.name))
        return CallChoice(reader.text, reader.fed, tuple(pieces), reading.text, fault, strict, cut)

    def flush(self) -> list[Event]:
        """Return what was held back: the calls of each choice, or its text, and its end."""
        events: list[Event] = []
        for index, choice in self._open.items():
            finish = choice.finish
            if not choice.native:
                ended = self._end(choice)
                text = ended.before if ended.calls else ended.fed[len(ended.text) :]
                if text or ended.calls:
                    events.append(Delta(text, tools=ended.calls, choice=index))
                if ended.calls and finish is not None:
                    finish = Finish("tool_calls", index)
            if finish is not None:
                events.append(finish)
        return [*events, *self._ending]


def judged(request: ChatRequest, functions: OfferedFunctions, choices: CallChoices) -> Judgement:
    """Accept the calls of an answer, or ask again with what is wrong with them.

    If the request cannot be sent again, a demanded call that is missing or wrong is a failure, and so are
    arguments that do not fit a strict function. Everything else goes on as it is: a call whose arguments
    the client will refuse itself, and text about an unknown function as text.
    """
    for choice in choices.ended():
        fault = choice.fault or ("" if choice.calls or not functions.required else _NO_CALL)
        if choice.cut or not fault:
            continue
        failure = None
        if functions.required or choice.strict:
            failure = ToolCallFailed(f"The model's tool call cannot be used: {fault}.")
        return AskAgain(corrected(request, choice.fed, _WRONG.format(fault=fault)), "tool_call", failure)
    return ACCEPT
