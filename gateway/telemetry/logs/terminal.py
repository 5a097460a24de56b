"""The log for a person at a terminal: a banner at the start, then one short line per event.

The format may change in any version. Programs should read the format `json`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TextIO

from gateway.telemetry.logs.lines import Fields, fields_of, shown
from gateway.telemetry.metrics.families import OTHER

GREY, RED, GREEN, YELLOW = 90, 31, 32, 33
"""ANSI colour codes."""

BANNER = "banner"
"""The event whose field `lines` is printed unchanged."""

MOST_MODELS = 12
"""Maximum number of models in the banner, so that it fits on a screen."""
MOST_NAMES = 4
"""Maximum number of backend names in the banner, per model and for the backends that are down."""

_ALL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound
_MODEL_DOORS = frozenset({"chat", "native"})
"""The doors whose requests are shown by model; other requests are shown by method and path."""


def in_colour(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if lines on `stream` may be coloured: it is a capable terminal and NO_COLOR is not set."""
    if stream is None:  # the process was started without this stream
        return False
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def banner(
    *,
    version: str,
    url: str,
    admin_url: str,
    models: Mapping[str, Sequence[str]],
    usable: Mapping[str, bool],
    config: str,
) -> list[str]:
    """Return the lines that `serve` prints at the start on a terminal.

    `models` maps each model to its backends. `usable` tells for each backend if it accepts requests.
    `config` is the path of the config file, or a text in its place.
    """
    down = [name for name, up in usable.items() if not up]
    state = f"{len(usable) - len(down)} up, {len(down)} down" + (f" ({_few(down)})" if down else "")
    first = islice(models.items(), MOST_MODELS)
    rows = [f"  {name}: {_few(backends) or 'no server found yet'}" for name, backends in first]
    if (more := len(models) - len(rows)) > 0:
        rows.append(f"  and {more} more: {url}/v1/models")
    return [
        f"ChatGLM gateway {version}",
        f"OpenAI API   {url}/v1",
        f"ChatGLM API  {url}/",
        f"Admin        {admin_url}",
        f"Config       {config}",
        f"Backends     {state}",
        "Models",
        *rows,
        "Ctrl-C ends it.",
    ]


def reachable(url: str) -> str:
    """Return the URL of a plane with an address that local programs can connect to instead of 0.0.0.0."""
    scheme, mark, place = url.partition("://")
    host, colon, port = place.rpartition(":")
    return scheme + mark + _ALL.get(host, host) + colon + port


def _few(names: Sequence[str]) -> str:
    """Return the first names and the number of the others."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class TerminalLines(logging.Formatter):
    """One short line per event, with ANSI colours if `colour` is true."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        if fields["event"] == BANNER:
            return "\n".join(["", *map(_safe, fields["lines"]), ""])
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        told = self._request(fields) if fields["event"] == "request" else self._event(record, fields)
        return f"{self._painted(time, GREY)}  {told}"

    def _request(self, fields: Fields) -> str:
        colour = _colour_of(fields["status"])
        words = [self._painted(str(fields["status"]), colour), *map(_safe, _told(fields))]
        if fields["outcome"] != "ok":
            words.append(self._painted(_safe(fields["error"] or fields["outcome"]), colour))
        if fields["ignored"]:
            words.append(_safe(f"ignored: {', '.join(fields['ignored'])}"))
        return "  ".join(words)

    def _event(self, record: logging.LogRecord, fields: Fields) -> str:
        level = record.levelno
        colour = RED if level >= logging.ERROR else YELLOW if level >= logging.WARNING else GREY
        told = {name: value for name, value in fields.items() if value not in (None, "", [], (), {})}
        head = str(told.pop("event")).replace("_", " ")
        if head in ("note", "log"):
            head = str(told.pop("message", head))
        details = [f"{name}={shown(value)}" for name, value in told.items()]
        return "  ".join([self._painted(_safe(head), colour), *details])

    def _painted(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def _told(fields: Fields) -> list[str]:
    """Return the request, the backend, the token counts, the waiting time and the duration."""
    words = [_what(fields), fields["backend"] or "-"]
    if fields["prompt_tokens"] is not None:
        words.append(f"{fields['prompt_tokens']}+{fields['completion_tokens']} tokens")
    if fields["queue_ms"] >= 1:
        words.append(f"waited {_seconds(fields['queue_ms'])}")
    return [*words, _seconds(fields["duration_ms"])]


def _what(fields: Fields) -> str:
    """Return the model and the model that answered in its place, or the method and path."""
    if fields["door"] not in _MODEL_DOORS:
        return f"{fields['method']} {fields['path']}"
    answered = f" -> {fields['answered']}" if fields["answered"] else ""
    return f"{_model(fields)}{answered}{' (stream)' if fields['stream'] else ''}"


def _model(fields: Fields) -> str:
    """Return the model, or the name that the client sent if there is no such model."""
    found: str = fields["model"]
    return fields.get("asked") or found if found == OTHER else found


def _colour_of(status: int) -> int:
    if status >= 500:
        return RED
    return YELLOW if status >= 400 else GREEN


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s"


def _safe(text: Any) -> str:
    """Return text without characters that move the cursor or end the line, cut at `LIMIT`."""
    told = shown(text)
    return told[1:-1] if told.startswith('"') else told
