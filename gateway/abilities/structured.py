"""Structured output (`response_format`) on backends that do not have it.

The schema goes to the model as an instruction. The answer is held back until a JSON value has been found in
it that fits the schema; the client gets that value alone. If there is none, the model is shown what is
wrong and asked once more. If that fails too, the request fails with `structured_output_failed`: a client
never gets an answer that does not fit as if it did.

With `stream_unvalidated`, a stream is passed on while it arrives, without the text around the JSON value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.abilities.base import ACCEPT, Ability, AskAgain, Judgement
from gateway.abilities.instructions import corrected, messages_of, with_instruction
from gateway.dialects.base import Dialect, Outgoing, Profile, has
from gateway.errors import BadRequest, StructuredOutputFailed
from gateway.formats.events import Delta, Event, Finish, Repair, Usage
from gateway.formats.openai import ChatRequest
from gateway.formats.structured.fitting import fitted
from gateway.formats.structured.recovery import json_values, strict

if TYPE_CHECKING:
    from gateway.formats.structured.schema import JsonSchema

PARAM = "response_format.json_schema.schema"

_ANY_OBJECT = (
    "只输出一个 JSON 对象，不要输出其他文字，不要使用代码块。"
    "Reply with one JSON object and nothing else: no prose, no code fence."
)
_BY_SCHEMA = (
    "只输出一个符合下面 JSON Schema 的 JSON 值，不要输出其他文字，不要使用代码块，不要输出 Schema 本身。"
    "Reply with one JSON value that fits this JSON Schema and nothing else: no prose, no code fence, "
    "not the schema.\n"
)
_WRONG = (
    "上面的回答不符合要求：{fault}。请只输出修正后的 JSON。"
    "The reply above is not accepted: {fault}. Reply with the corrected JSON only."
)


class StructuredOutput(Ability):
    """Turns the text of each choice into JSON that fits `response_format`.

    All events are held back until `judge` has accepted them, except with `stream_unvalidated`.
    """

    asked_by = frozenset({"response_format"})

    def __init__(self, request: ChatRequest, *, passing: bool) -> None:
        self._request = request
        self._schema = _schema_of(request)
        self._passing = passing
        self._scanners: dict[int, _ValueScanner] = {}
        self._held: list[Event] = []

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        if request.response_format is None or _kind(request) not in ("json_object", "json_schema"):
            return False
        return "structured" in profile.emulate and not has("structured", dialect, profile)

    @classmethod
    def prepare(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> ChatRequest:  # noqa: ARG003 - an Ability's form
        schema = _schema_of(request)
        text = _ANY_OBJECT
        if schema is not None:
            text = _BY_SCHEMA + json.dumps(schema.plain, ensure_ascii=False, separators=(",", ":"))
        return request.changed(messages=with_instruction(messages_of(request), text), response_format=None)

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> StructuredOutput:  # noqa: ARG003 - an Ability's form
        profile = outgoing.profile
        return cls(request, passing=bool(request.stream and profile and profile.stream_unvalidated))

    def feed(self, event: Event) -> list[Event]:
        if not self._passing:
            self._held.append(event)
            return []
        if not isinstance(event, Delta) or not event.text:
            return [event]
        scanner = self._scanners.setdefault(event.choice, _ValueScanner())
        delta = event._replace(text=scanner.feed(event.text))
        return [] if delta.empty else [delta]

    def judge(self) -> Judgement:
        answers = _Answers(self._held)
        self._held = []
        for choice, text in answers.texts.items():
            if choice in answers.with_calls or answers.reasons.get(choice) == "content_filter":
                continue
            value, fault = self._proven(text)
            if fault is None:
                answers.texts[choice] = value
            elif answers.reasons.get(choice) != "length":  # a truncated answer is passed on unchanged
                return self._rejected(text, fault)
        self._held = answers.events()
        return ACCEPT

    def flush(self) -> list[Event]:
        held, self._held = self._held, []
        return held

    def _rejected(self, text: str, fault: str) -> AskAgain:
        return AskAgain(
            corrected(self._request, text, _WRONG.format(fault=fault)),
            "structured_output",
            StructuredOutputFailed(f"The model's answer does not fit response_format: {fault}."),
        )

    def _proven(self, text: str) -> tuple[str, str | None]:
        """Return the JSON that the answer means and None, or the text and why it means none that fits."""
        fault: str | None = None
        values = list(json_values(text))
        for value in values:
            complaint = self._complaint(value)
            if complaint is None:
                return _written(value, text), None
            fault = fault or complaint
        if self._schema is not None:
            for value in values:
                for form in fitted(value, self._schema.plain):
                    if self._complaint(form) is None:
                        return _written(form, text), None
        return text, fault or "it holds no JSON value"

    def _complaint(self, value: Any) -> str | None:
        if self._schema is not None:
            return self._schema.fault(value)
        return None if isinstance(value, dict) else "a JSON object is wanted"


class _Answers:
    """The text, the calls and the finish reason of each choice, and the events that are none of these."""

    def __init__(self, events: list[Event]) -> None:
        self.texts: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.with_calls: set[int] = set()
        self._others: list[Event] = []
        self._ending: list[Event] = []
        for event in events:
            if isinstance(event, Delta):
                self._add(event)
            elif isinstance(event, Finish):
                self.texts.setdefault(event.choice, "")
                self.reasons[event.choice] = event.reason
                self._ending.append(event)
            elif isinstance(event, Usage):
                self._ending.append(event)
            else:
                self._others.append(event)

    def _add(self, delta: Delta) -> None:
        self.texts[delta.choice] = self.texts.get(delta.choice, "") + delta.text
        if delta.tools:
            self.with_calls.add(delta.choice)
        rest = delta._replace(text="", logprobs=None)
        if not rest.empty:
            self._others.append(rest)

    def events(self) -> list[Event]:
        """Return the events of the answer with these texts, each as one delta."""
        texts = [Delta(text, choice=choice) for choice, text in self.texts.items() if text]
        repairs = [one for one in self._others if isinstance(one, Repair)]
        others = [one for one in self._others if not isinstance(one, Repair)]
        reasoning = [one for one in others if isinstance(one, Delta) and not one.tools]
        calls = [one for one in others if not (isinstance(one, Delta) and not one.tools)]
        return [*repairs, *reasoning, *texts, *calls, *self._ending]


class _ValueScanner:
    """Passes the first JSON object or list of a text on while it arrives, and nothing else."""

    def __init__(self) -> None:
        self._depth = 0
        self._over = False
        self._quoted = self._escaped = False

    def feed(self, text: str) -> str:
        """Return the part of a piece of text that belongs to the value."""
        start = 0 if self._depth else None
        for place, char in enumerate(text):
            if self._over:
                break
            if start is None:
                if char not in "{[":
                    continue
                start = place
            if self._closes(char):
                return text[start : place + 1]
        return "" if start is None or self._over else text[start:]

    def _closes(self, char: str) -> bool:
        if self._quoted:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._quoted = False
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self._over = self._depth == 0
        return self._over


def _kind(request: ChatRequest) -> str:
    kind = (request.response_format or {}).get("type")
    return kind if isinstance(kind, str) else ""


def _schema_of(request: ChatRequest) -> JsonSchema | None:
    """Return the schema of a request; None for `json_object`. Raises `BadRequest`."""
    # Imported when it is first needed: it takes 70 ms and 10 MB, and few requests need it.
    from gateway.formats.structured.schema import JsonSchema

    wanted = request.response_format or {}
    if wanted.get("type") != "json_schema":
        return None
    described = wanted.get("json_schema")
    if not isinstance(described, dict):
        raise BadRequest(
            "response_format.json_schema is required with type json_schema.",
            param="response_format.json_schema",
        )
    schema = described.get("schema", {})
    if not isinstance(schema, dict | bool):
        raise BadRequest(f"{PARAM}: it should be an object.", param=PARAM)
    return JsonSchema(schema, PARAM)


def _written(value: Any, text: str) -> str:
    """Return a value as JSON: the model's own bytes if these are JSON already."""
    return text.strip() if strict(text.strip()) == value else json.dumps(value, ensure_ascii=False)
