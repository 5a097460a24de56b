"""What can be told of an answer without keeping its text: its length, its end, a digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from gateway.formats import jsontext
from gateway.formats.events import Delta, Event, Finish, Passed

_SEPARATOR = b"\0"
"""No text of an answer holds it once its blanks are gone; it keeps names of functions apart from the rest."""

_CHOICES = range(128)
"""The most that can be asked for."""


class AnswerFingerprint:
    """Taken down event by event; holds some bytes for each choice, however long the answer. One per answer.

    `characters` counts the texts of all choices, `finish` is the last finish reason. `legible` is false once
    something could not be read: then `digest` says nothing.
    """

    def __init__(self) -> None:
        self.characters = 0
        self.finish = ""
        self.legible = True
        self._said: dict[int, Any] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take down what came next. Never raises for what a backend may send."""
        for event in events:
            if isinstance(event, Delta):
                if event.choice not in _CHOICES:
                    self.legible = False
                    continue
                self._say(event.choice, event.text)
                for piece in event.tools:
                    self._call(event.choice, piece.name, piece.arguments)
            elif isinstance(event, Finish):
                self.finish = event.reason
            elif isinstance(event, Passed):
                self.finish = event.finish or self.finish
                self._read(event.data)

    @property
    def digest(self) -> bytes:
        """Equal for answers that say the same in every choice; neither blanks nor pieces count."""
        whole = blake2b(digest_size=16)
        for choice in sorted(self._said):
            whole.update(choice.to_bytes())
            whole.update(self._said[choice].digest())
        return whole.digest()

    # --- what is said ------------------------------------------------------------------------------

    def _say(self, choice: int, text: str) -> None:
        if text:
            self.characters += len(text)
            self._add(choice, text)

    def _call(self, choice: int, name: str | None, arguments: str) -> None:
        if name:
            self._digest(choice).update(_SEPARATOR)
            self._add(choice, name)
            self._digest(choice).update(_SEPARATOR)
        self._add(choice, arguments)

    def _add(self, choice: int, text: str) -> None:
        if bare := "".join(text.split()):
            self._digest(choice).update(bare.encode(errors="surrogatepass"))

    def _digest(self, choice: int) -> Any:
        if (said := self._said.get(choice)) is None:
            said = self._said[choice] = blake2b(digest_size=16)
        return said

    # --- bytes that passed -------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        try:
            if not data.startswith(b"data:"):
                self._read_object(data)
                return
            for event in filter(None, data.split(b"\n\n")):  # whole events, of one line each
                self._read_object(event.removeprefix(b"data:"))
        except (ValueError, TypeError, AttributeError, KeyError):  # not the answer of an OpenAI after all
            self.legible = False

    def _read_object(self, data: bytes) -> None:
        for choice in jsontext.read_lenient(data)["choices"]:
            self._read_choice(choice["index"], choice.get("delta") or choice.get("message") or {})

    def _read_choice(self, index: int, said: Mapping[str, Any]) -> None:
        if type(index) is not int or index not in _CHOICES:
            raise ValueError("no choice that anybody asked for")
        self._say(index, said.get("content") or "")
        for call in said.get("tool_calls") or ():
            function = call.get("function") or {}
            self._call(index, function.get("name"), function.get("arguments") or "")
