"""What one simulated server is: its dialect, its brain, its pace, its faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.simulator.faults import FaultSpec

Sleep = Callable[[float], Awaitable[None]]
"""Waits the given seconds; a test passes its own and needs no real time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything a `Simulator` is made from; the defaults give an instant, polite ChatGLM2-6B.

    `dialect` and `variant` name the server program (`gateway.simulator.DIALECTS`). `brain` is `canned`,
    `echo` or `llama`; `model` is the file the `llama` brain reads: a .gguf, or a wheel that holds one.
    """

    dialect: str = "chatglm2"
    variant: str | None = None
    brain: str = "canned"
    model: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""
    latency: float = 0.0
    """Seconds before the first piece of an answer."""
    speed: float = 0.0
    """Characters a second; 0 = without a pause."""
    reply: str | None = None
    """The text of every answer, whatever was asked; a directive inside a prompt still wins."""
    piece_size: int = 4
    """Characters (= tokens) that the model gives at once."""
    faults: tuple[FaultSpec, ...] = ()
    """Mishaps to play, oldest first; see `gateway.simulator.faults`."""
    history: int = 1000
    """How many requests the recorder remembers."""
    sleep: Sleep = field(default=asyncio.sleep, repr=False)
