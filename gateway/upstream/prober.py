"""Looks after backends that no request tells of: a cheap GET each, or one small real generation.

A probe is left out while the backend works for us, as these servers answer nothing meanwhile; only when a
connection has just broken is it sent all the same, since a port that refuses does so at once. A backend
that is out is looked at again after its back-off, at the latest after `health.interval`. What failed to
answer requests must answer one before users get it back: a trial, on a slot like any request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol

from gateway.background import Background
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.errors import BadRequest, ConnectFailed, GatewayError, OutOfDescriptors, UpstreamRejected
from gateway.formats import openai
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.scheduling.health_states import Probe
from gateway.upstream.backend import Backend
from gateway.upstream.health_monitor import HealthMonitor

LONGEST_TRIAL = 60.0
"""The longest that a trial may take, in seconds: a card that needs more for so little is not well."""

_TRIAL = b'{"model":"trial","messages":[{"role":"user","content":"1+1="}],"max_tokens":16,"temperature":0}'
"""More than one token, as the first of many dialects is a newline, and stripped off."""


class ProbedSlots(Protocol):
    """What the prober needs of whoever hands out slots."""

    def in_flight(self, backend: str) -> int:
        """Slots taken on this backend."""

    def hold(self, backend: str) -> bool:
        """Take a slot though the backend is out; False if none is free."""

    def let_go(self, backend: str) -> None:
        """Give that slot back."""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """How one backend is looked after. `timeout` is a probe's; `trial` is None where none can be made."""

    path: str
    timeout: float
    trial: Outgoing | None
    limits: DeadlineLimits
    probed: bool = True


def trial_for(dialect: Dialect, profile: Profile) -> Outgoing | None:
    """The request of a trial, as this dialect would send a user's; None if it cannot say it."""
    try:
        return dialect.ask(openai.read_chat(_TRIAL), profile, stream=False)
    except BadRequest:
        return None


class Prober:
    """Looks after the backends in `checks`; one that is not `probed` is only tried out when it is doubted.

    `note` is told the backend and how each probe or trial ended (a word of `Probe`, or `trial_ok`,
    `trial_failed`); `crash` of our own bugs, which end no looking after.
    """

    def __init__(
        self,
        fleet: Mapping[str, Backend],
        checks: Mapping[str, ProbeTarget],
        health_monitor: HealthMonitor,
        clock: Callable[[], float],
        note: Callable[[str, str], None],
        crash: Callable[[str, BaseException], None],
    ) -> None:
        self._fleet = fleet
        self._checks = dict(checks)
        self._health_monitor = health_monitor
        self._clock = clock
        self._note = note
        self._crash = crash
        self._wakes: dict[str, asyncio.Event] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._unseen = {name for name, check in checks.items() if check.probed}
        self._all_seen = asyncio.Event()

    def start(self, slots: ProbedSlots, background: Background) -> None:
        """Begin; ends with `background`."""
        self._health_monitor.listen(self._wake)
        self._begin(slots, background)

    def reconfigure(
        self,
        fleet: Mapping[str, Backend],
        checks: Mapping[str, ProbeTarget],
        slots: ProbedSlots,
        background: Background,
    ) -> None:
        """Go on with other backends; the ward has to know them already.

        A backend that stays and is looked after in the same way is not disturbed: a trial goes on.
        """
        for name in tuple(self._watches):
            if fleet.get(name) is self._fleet[name] and checks.get(name) == self._checks[name]:
                self._wake(name)  # its rules may be others
            else:
                self._watches.pop(name).cancel()
                del self._wakes[name]
        self._fleet, self._checks = fleet, dict(checks)
        self._begin(slots, background)

    async def wait_first_looks(self, seconds: float) -> None:
        """Wait until every backend that is probed has been probed once, for so many seconds at most."""
        if self._unseen:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._all_seen.wait()

    def _begin(self, slots: ProbedSlots, background: Background) -> None:
        for name in [name for name in self._checks if name not in self._watches]:
            self._wakes[name] = asyncio.Event()
            self._watches[name] = background.start(self._watch(name, slots), f"probes of {name}")

    def _wake(self, backend: str) -> None:
        if backend in self._wakes:
            self._wakes[backend].set()

    async def _watch(self, name: str, slots: ProbedSlots) -> None:
        while True:
            await self._wait_due(name)
            try:
                await self._run_errand(name, slots)
            except Exception as error:  # noqa: BLE001 - told; a bug must not end the looking after a backend
                self._crash(f"the prober of {name}", error)
                self._health_monitor.skipped(name)

    async def _run_errand(self, name: str, slots: ProbedSlots) -> None:
        health = self._health_monitor.healths[name]
        if health.errand() == "trial":
            await self._try_out(name, slots)
        elif slots.in_flight(name) and health.usable(self._clock()) and not health.suspected:
            self._health_monitor.skipped(name)
        else:
            await self._probe(name, slots)

    async def _wait_due(self, name: str) -> None:
        health, wake = self._health_monitor.healths[name], self._wakes[name]
        while (delay := health.due - self._clock()) > 0:
            wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if delay == inf else delay):
                    await wake.wait()

    # --- a probe -----------------------------------------------------------------------------------

    async def _probe(self, name: str, slots: ProbedSlots) -> None:
        check, tries = self._checks[name], self._health_monitor.healths[name].tries
        rest = 0.0
        try:
            async with asyncio.timeout(check.timeout):
                answer = await self._fleet[name].client.probe(check.path)
            rest = answer.rest
            self._fleet[name].learn_program(answer.server)
            end: Probe = "ok" if answer.status < 500 else "bad_status"
        except TimeoutError:
            worked = slots.in_flight(name) > 0 or self._health_monitor.healths[name].tries != tries
            end = "busy" if worked else "timeout"
        except OutOfDescriptors:
            end = "busy"  # we are: it says nothing of the backend
        except GatewayError as error:
            end = "refused" if isinstance(error, ConnectFailed) and error.refused else "failed"
        self._note(name, end)
        self._health_monitor.probed(name, end, rest)
        self._unseen.discard(name)
        if not self._unseen:
            self._all_seen.set()

    # --- a trial -----------------------------------------------------------------------------------

    async def _try_out(self, name: str, slots: ProbedSlots) -> None:
        trial = self._checks[name].trial
        if trial is None:
            self._health_monitor.trialled(name, UpstreamRejected("The trial cannot be said in this dialect."))
        elif not slots.hold(name):
            if self._health_monitor.healths[name].doubted:
                self._health_monitor.reserved(name)
            else:
                self._health_monitor.skipped(name)
        else:
            try:
                self._health_monitor.trying(name)
                error = await self._generate(name, trial)
            finally:
                slots.let_go(name)
            if isinstance(error, OutOfDescriptors):  # the trial was not made
                self._health_monitor.skipped(name)
                return
            self._note(name, "trial_failed" if error else "trial_ok")
            self._health_monitor.trialled(name, error)

    async def _generate(self, name: str, trial: Outgoing) -> GatewayError | None:
        backend, limits = self._fleet[name], self._checks[name].limits
        short = DeadlineLimits(limits.connect, limits.first_token, limits.between_tokens, LONGEST_TRIAL)
        try:
            deadlines = Deadlines(short, self._clock(), streams=False)
            body = await backend.client.whole(trial, deadlines, partial(self._health_monitor.repeated, name))
            backend.dialect.read(trial, body)
        except GatewayError as error:
            return error
        return None

    def __repr__(self) -> str:
        return f"<Prober of {', '.join(self._checks) or 'nobody'}>"
