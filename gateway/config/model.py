"""Model: a name clients may ask for, and its limits and manners."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gateway.config.section import Section, TimeoutOverrides
from gateway.config.traffic_split import CanarySettings, ShadowSettings
from gateway.config.value_types import Labels, ModelName, ModelNames, Temperature, Tokens, tuple_of

Emulations = Annotated[tuple[Literal["tools", "structured"], ...], BeforeValidator(tuple_of)]
"""What the gateway can emulate by prompt."""

Balance = Literal["least-busy", "weighted", "round-robin", "random-two", "session", "prefix"]
"""How a model's requests are spread over backends that are free."""


class ModelSettings(Section):
    """One model. It needs a table only to change a setting: a backend's `models` suffice to serve it."""

    name: ModelName
    """What clients send as `model`."""
    aliases: ModelNames = ()
    """Other names for it; the answer carries the name that was asked for."""
    backends: Labels = ()
    """Backends that serve it, besides those that list it in their `models`."""
    context: Tokens | None = None
    """Tokens of prompt and answer together. Unset: what the backend's dialect is known to take."""
    max_output: Tokens | None = None
    """Most tokens of an answer; larger wishes are lowered to it. Unset: as many as the context leaves."""
    default_output: Tokens = 1024
    """Tokens of an answer where the client names no limit."""
    max_n: Annotated[int, Field(ge=1, le=128)] = 4
    """Most answers to one request (`n`); each is a generation of its own. More is refused with 400."""
    strict: bool = False
    """Refuse with 400 what would else be ignored and reported in `x-gateway-ignored`, unknown members
    included."""
    trim: bool = False
    """Drop whole oldest question-answer pairs from a chat that is too long, instead of refusing it with
    `context_length_exceeded`."""
    system: Literal["merge", "pair"] = "merge"
    """System text on dialects without a system role: `merge` puts it before the question, `pair` makes it a
    pair of its own, answered by "好的。"."""
    leading_assistant: Literal["pair", "fold"] = "pair"
    """An assistant message before any question: `pair` gives it an empty question, `fold` puts its text
    before the first question."""
    tools: Literal["refuse", "ignore"] = "refuse"
    """Tools on dialects without tools: `refuse` with 400, or `ignore` and report."""
    max_temperature: Temperature | None = None
    """Higher temperatures are lowered to it. Unset: up to 2."""
    balance: Balance = "least-busy"
    """Which of several free backends takes a request: the emptiest in turn (`least-busy`), by the backends'
    `weight` (`weighted`), in order (`round-robin`), the emptier of two by chance (`random-two`), the one of
    the same session, by `x-session-affinity`, `user` or the first messages (`session`), or the one that saw
    most of the chat before (`prefix`). With none of them a backend idles while a request waits."""
    fallbacks: ModelNames = ()
    """Models that answer, before the first piece of an answer, while this one cannot: no backend is up, its
    queue is full or too slow, or every try failed. Their own fallbacks follow. The answer names the model
    that gave it. See failover.md."""
    context_fallbacks: ModelNames = ()
    """The same for chats that are too long for this model."""
    canary: CanarySettings | None = None
    """Another model that answers a share of this one's requests, such as `{ model = "new", share = 0.05 }`.
    The answer names it; where it cannot answer, this one does. See canary.md."""
    shadow: ShadowSettings | None = None
    """Another model that gets a copy of a share of this one's requests, such as
    `{ model = "new", share = 0.1 }`. Its answers are compared with the clients' and dropped; no client waits
    for them. See canary.md."""
    emulate: Emulations = ("structured",)
    """What the gateway adds by prompt where a backend lacks it: `structured` (`response_format`) and `tools`
    (function calling). See abilities.md."""
    stream_unvalidated: bool = False
    """With emulated `structured`: pass streams on as they arrive, without checking them."""
    timeouts: TimeoutOverrides = TimeoutOverrides()
    """Time-outs of this model; a backend's own win over them."""
