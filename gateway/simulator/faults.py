"""Mishaps on demand: what goes wrong, how often, and on which requests.

Written as text, `KIND[:VALUE][*TIMES][@PATH]`, or as an object with the keys `kind`, `value`, `times`,
`path`:

| text | what the client sees |
|---|---|
| `status:503` | that status with the server's usual error body |
| `reset` | RST before any byte of the answer |
| `close` | FIN before any byte of the answer |
| `hang` | nothing, until it leaves or the server stops |
| `garbage` | 200, JSON by its type, not by its body |
| `html` | 200 and a web page |
| `empty` | 200 and an answer without text |
| `cut:3` | the connection closed after three events of a stream, or three bytes of a body |
| `slow:2` | the usual answer, two seconds late |
| `missing-response` | 200 without `response`, or with `choices: []` |

TIMES is a number or `always` (default 1). Without PATH a fault waits for a request that generates; `@any`
takes every request, `@/health` that path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KINDS = ("status", "reset", "close", "hang", "garbage", "html", "empty", "cut", "slow", "missing-response")
_VALUED = ("status", "cut", "slow")
_TEXT = re.compile(
    r"(?P<kind>[a-z-]+)(:(?P<value>[0-9.]+))?(\*(?P<times>[0-9]+|always))?(@(?P<path>any|/\S*))?\Z"
)

ALWAYS = -1
"""As `times`: the fault never wears off."""


class FaultError(ValueError):
    """A fault that cannot be understood."""


@dataclass(frozen=True, slots=True)
class SimulatedFault:
    """One mishap: its kind, its number (a status, seconds, events), how often, and where."""

    kind: str
    value: float = 0.0
    times: int = 1
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FaultError(f"unknown fault {self.kind!r}; one of {', '.join(KINDS)}")
        if self.kind == "status" and not 200 <= self.value <= 599:
            raise FaultError(f"fault 'status' needs a status from 200 to 599, not {self.value:g}")

    def meets(self, path: str, *, generates: bool) -> bool:
        """Whether this fault is for such a request."""
        return generates if self.path is None else self.path in ("any", path)


FaultSpec = str | SimulatedFault | Mapping[str, object]
"""A fault in any of its spellings."""


def parse_fault(spec: object) -> SimulatedFault:
    """Read one fault; `FaultError` says what is wrong with it."""
    if isinstance(spec, SimulatedFault):
        return spec
    if isinstance(spec, str):
        match = _TEXT.match(spec)
        if match is None:
            raise FaultError(f"cannot read the fault {spec!r}; it is KIND[:VALUE][*TIMES][@PATH]")
        return _build(match.groupdict())
    if not isinstance(spec, Mapping):
        raise FaultError(f"a fault is a text or an object, not {spec!r}")
    unknown = set(spec) - {"kind", "value", "times", "path"}
    if unknown:
        raise FaultError(f"unknown keys of a fault: {', '.join(sorted(unknown))}")
    return _build(spec)


def _build(parts: Mapping[str, object]) -> SimulatedFault:
    kind, value, times, path = (parts.get(key) for key in ("kind", "value", "times", "path"))
    if kind in _VALUED and value is None:
        raise FaultError(f"fault {kind!r} needs a number, as in '{kind}:2'")
    try:
        return SimulatedFault(
            str(kind),
            float(str(value or 0)),
            ALWAYS if times == "always" else int(str(times or 1)),
            None if path is None else str(path),
        )
    except ValueError as error:
        raise FaultError(str(error)) from error


class SimulatedFaults:
    """The faults still to come, oldest first. One per simulated server."""

    def __init__(self, specs: Iterable[FaultSpec] = ()) -> None:
        self._left: list[tuple[SimulatedFault, int]] = []
        self.extend(specs)

    def extend(self, specs: Iterable[object]) -> None:
        """Queue faults behind the others: all, or on a FaultError none."""
        faults = [parse_fault(spec) for spec in specs]
        self._left += [(fault, fault.times) for fault in faults]

    def take(self, path: str, *, generates: bool) -> SimulatedFault | None:
        """The fault that befalls this request, used up once; None = all goes well."""
        for place, (fault, left) in enumerate(self._left):
            if fault.meets(path, generates=generates):
                if left == 1:
                    del self._left[place]
                elif left != ALWAYS:
                    self._left[place] = (fault, left - 1)
                return fault
        return None

    def clear(self) -> None:
        """Forget them all."""
        self._left.clear()

    def __len__(self) -> int:
        return len(self._left)
