"""Reasoning that a server leaves in the text or in one member only (`reasoning` in the backend's table).

    think        the answer begins with `<think>` ... `</think>`: that part becomes reasoning
    open-think   the same without the opening tag, which the server's chat template has put into the prompt
    mirror       the text is left as it is

In each case reasoning goes to the client as `reasoning_content` and as `reasoning`, because clients read
one or the other. An answer that has no text at the end, because the server has put all of it into its
reasoning member (sglang #37645), is given as text as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.abilities.base import Ability
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.formats.events import Delta, Event, Finish
from gateway.formats.openai import ChatRequest

OPEN, CLOSE = "<think>", "</think>"
NAMES = ("reasoning_content", "reasoning")
"""The members of a message and of a delta that hold reasoning."""


class ReasoningSplit(Ability):
    """Moves reasoning out of the text of each choice."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._choices: dict[int, _Choice] = {}

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:  # noqa: ARG003 - an Ability's form
        return profile.reasoning != "pass"

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> ReasoningSplit:  # noqa: ARG003 - an Ability's form
        return cls(outgoing.profile.reasoning if outgoing.profile else "mirror")

    def feed(self, event: Event) -> list[Event]:
        if isinstance(event, Delta):
            return self._split(event)
        if isinstance(event, Finish):
            return [*self._ended(event), event]
        return [event]

    def flush(self) -> list[Event]:
        return [Delta(rest, choice=index) for index, one in self._choices.items() if (rest := one.tags.end())]

    def _choice(self, index: int) -> _Choice:
        if index not in self._choices:
            self._choices[index] = _Choice(_Tags(self._mode))
        return self._choices[index]

    def _split(self, delta: Delta) -> list[Event]:
        choice = self._choice(delta.choice)
        reasoning = next((text for name in NAMES if isinstance(text := delta.extras.get(name), str)), "")
        choice.given.append(reasoning)
        thought, text = choice.tags.feed(delta.text) if delta.text else ("", "")
        choice.answered = choice.answered or bool(text.strip() or delta.tools)
        reasoning += thought
        extras = {name: value for name, value in delta.extras.items() if name not in NAMES}
        if reasoning:
            extras |= dict.fromkeys(NAMES, reasoning)
        split = delta._replace(text=text, extras=extras)
        return [] if split.empty else [split]

    def _ended(self, finish: Finish) -> list[Event]:
        """Return what is missing before the end of a choice: held text, or an answer in the wrong member."""
        choice = self._choice(finish.choice)
        rest = choice.tags.end()
        if rest:
            choice.answered = choice.answered or bool(rest.strip())
            return [Delta(rest, choice=finish.choice)]
        given = "".join(choice.given)
        if given and not choice.answered and finish.reason == "stop":
            return [Delta(given, choice=finish.choice)]
        return []


@dataclass(slots=True)
class _Choice:
    tags: _Tags
    answered: bool = False
    given: list[str] = field(default_factory=list)


class _Tags:
    """Separates the part between the tags, at the beginning of a text, from the rest."""

    def __init__(self, mode: str) -> None:
        self._held = ""
        self._stage = {"think": "before", "open-think": "inside"}.get(mode, "behind")

    def feed(self, piece: str) -> tuple[str, str]:
        """Take a piece of text; return the reasoning and the text in it."""
        if self._stage == "behind":
            return "", piece
        self._held += piece
        if self._stage == "before":
            begun = self._held.lstrip()
            if not begun.startswith(OPEN):
                if OPEN.startswith(begun):
                    return "", ""  # may become the tag
                self._stage = "behind"
                return "", self._taken(len(self._held))
            self._stage, self._held = "inside", begun.removeprefix(OPEN).lstrip("\n")
        return self._inside()

    def _inside(self) -> tuple[str, str]:
        if self._stage == "inside" and self._held.startswith(OPEN):
            self._held = self._held.removeprefix(OPEN)  # the server has sent the opening tag after all
        end = self._held.find(CLOSE)
        if end >= 0:
            self._stage = "behind"
            thought = self._taken(end).rstrip("\n")
            text, self._held = self._held.removeprefix(CLOSE).lstrip("\n"), ""
            return thought, text
        keep = next((size for size in range(len(CLOSE) - 1, 0, -1) if self._held.endswith(CLOSE[:size])), 0)
        return self._taken(len(self._held) - keep), ""

    def _taken(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def end(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        rest, self._held = self._held, ""
        return rest
