"""Whether a backend may be asked, and how much: one state machine a backend. Pure: events in, verdicts out.

    up ──refused, or `fall` failures in a row──▶ down ──a probe answers──▶ half_open ──`rise` good──▶ ramping
    up ──`fall` strikes──▶ (doubted) ──a trial of its own fails──▶ sick ──one real answer───────────▶ ramping
    up ──"busy, come back later"──▶ paused ──▶ up                    ramping ──`slow_start` seconds──▶ up

Rules. Busy is not dead: a probe that times out while work of ours is under way says nothing. Refused is dead:
nobody listens. A failure of a request that reached the server (a 5xx, garbage, silence) is a *strike*. The
same request sent again is the same strike, as the fault may be its own; `AGAIN` more are enough whatever they
were. Strikes may all be the fault of what one tenant sends, so they put nothing out: they have the backend
*doubted*, which means a trial, a small request of our own, also where nothing is probed. Until that has ended
a doubted backend stays in, but is the last choice. Strikes are wiped out by an answer, never by a probe, for
a poisoned card answers probes well; and what a failed trial took out only a real answer brings back. A
connection that fails is a *miss*, which any sign of life wipes out; one that is reset after the request was
sent may be the request's doing and is never the miss that puts a backend out, but has it probed, and tried
out where probes are answered all the same. A client's error is nobody's failure. Neither is a refusal of the
gateway itself, such as a 404: that backend is *unfit*, the last choice for a while, as each request it gets
costs a second try. While a backend is out nobody is sent there, so what still ends there is old news and not
heard.

Theory of operation. `tried`, `probed` and `trialled` change the state; `usable`, `slots_now`, `share` and
`next_change` are what a scheduler asks; `errand` and `due` tell a prober what to do and when. Times
are monotonic seconds, `chance` is a random number from 0 up to 1 that spreads the back-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from typing import Literal, TypeAlias

from gateway.errors import (
    ConnectFailed,
    ContextExceeded,
    GatewayError,
    UpstreamBusy,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling.availability import LAST

State: TypeAlias = Literal["up", "ramping", "paused", "half_open", "down", "sick"]
"""How a backend is, in one word."""
Probe: TypeAlias = Literal["ok", "refused", "failed", "bad_status", "timeout", "busy"]
"""How a probe ended; `failed` is a connection that broke, `busy` a time-out with work of ours under way."""
Errand: TypeAlias = Literal["probe", "trial"]
"""What a prober can do for a backend: a cheap GET, or a small real generation."""

REST = 0.5
"""Seconds out after the first failure; doubles with each further one."""
LONGEST_REST = 10.0
"""The longest rest where nothing is probed, and a user's request must find out; in seconds."""
LONGEST_PAUSE = 60.0
"""The longest time for which a backend's own "come back later" is believed, in seconds."""
CONFIRM = 0.5
"""Seconds to the next probe after one that was the first to be answered again."""
SPREAD = 0.25
"""How much of a back-off chance may take off, so that gateways do not come back in step."""

RESERVED = 0.1
"""Seconds between two looks for a slot that is free for a trial."""

AGAIN = 2
"""How many failures more put a backend out if all were of the same request: what an SDK sends again by itself
does not."""

STATES: tuple[State, ...] = ("up", "ramping", "paused", "half_open", "down", "sick")
PROBES: tuple[Probe, ...] = ("ok", "refused", "failed", "bad_status", "timeout", "busy")
REASONS = frozenset(
    {
        "refused",
        "connect",
        "upstream_5xx",
        "truncated",
        "bad_payload",
        "first_token_timeout",
        "stall",
        "total_timeout",
        "probe_failed",
        "probe_bad_status",
        "probe_timeout",
    }
)
"""Why a backend can be out."""

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class HealthRules:
    """How quickly a backend is given up and taken back.

    `fall` failures in a row put it out, `rise` good signs bring it back; over `slow_start` seconds it then
    gets its slots back. `interval` is the time between two probes, which no back-off exceeds; None: nothing
    is probed, and only requests tell how backends are, and trials where requests fail.
    """

    fall: int = 3
    rise: int = 2
    slow_start: float = 10.0
    interval: float | None = 2.0


class BackendHealth:
    """The health of one backend with `slots` slots. One for the whole life of the configuration.

    `steady`: up, with nothing counted against it, so that another good answer changes nothing. `tries`: how
    many tries have ended here. `reason`: the word of `REASONS` that put it out last, "" for none. `since`:
    when it last went out or came back.
    """

    __slots__ = (
        "_goods",
        "_hits",
        "_looked_at",
        "_misses",
        "_paused_until",
        "_pauses",
        "_ramp_from",
        "_reserved_until",
        "_resets",
        "_rests",
        "_rules",
        "_slots",
        "_state",
        "_strikes",
        "_tenants",
        "_tried_out_at",
        "_unfit",
        "_unfit_until",
        "_until",
        "doubted",
        "errand_at",
        "needs_answer",
        "reason",
        "since",
        "steady",
        "suspected",
        "tries",
    )

    def __init__(self, slots: int, rules: HealthRules, now: float = 0.0) -> None:
        self._slots = slots
        self._rules = rules
        self._state: Literal["up", "half_open", "down", "sick"] = "up"
        self._until = now
        self._looked_at = now - CONFIRM
        self._paused_until = 0.0
        self._ramp_from: float | None = None
        self._misses = 0
        self._goods = 0
        self._rests = 0
        self._pauses = 0
        self._strikes: set[object] = set()
        self._hits = 0
        self._resets = 0
        self._unfit = 0
        self._unfit_until = 0.0
        self._tenants: set[str] = set()
        self._tried_out_at = now - LONGEST_REST
        self._reserved_until = 0.0
        self.doubted = False
        """Whether a trial is due, or under way, that tells whether it is sick."""
        self.needs_answer = False
        """Whether only a real answer brings it back."""
        self.suspected = False
        """Whether a connection broke and nobody has looked yet: then even a busy backend is probed."""
        self.errand_at = now
        self.reason = ""
        self.since = now
        self.steady = True
        self.tries = 0

    def refit(self, slots: int, rules: HealthRules) -> None:
        """Go on with other slots and rules; what is known of the backend stays."""
        self._slots, self._rules = slots, rules

    # --- events ------------------------------------------------------------------------------------

    def tried(
        self,
        error: GatewayError | None,
        now: float,
        chance: float,
        request: object | None = None,
        tenant: str = "",
    ) -> None:
        """Take note of the end of a user's try: its error, None for a whole answer.

        Tries with equal `request` are the same request sent again; None is like no other. `tenant` is who
        sent it.
        """
        self.tries += 1
        if error is None and self.steady:
            return
        self._advance(now)
        if self._state in ("down", "sick"):
            return
        if error is None:
            self._answered(now)
        elif isinstance(error, UpstreamBusy):
            self._busy(error, now, chance, request, tenant)
        elif isinstance(error, ConnectFailed | UpstreamReset | UpstreamTLS):
            self._missed(_reason(error), now, chance, by=tenant if isinstance(error, UpstreamReset) else None)
        elif isinstance(error, ContextExceeded | UpstreamRejected | UpstreamMisconfigured):
            if isinstance(error, UpstreamMisconfigured):
                self._unfit += 1
                self._unfit_until = now + _rest(self._unfit, LONGEST_PAUSE, chance)
            self._alive(now)
        elif error.row.blames:
            self._struck(now, request, tenant)
            if isinstance(error, UpstreamTruncated):
                self._suspect(now)

    def probed(self, end: Probe, now: float, chance: float, rest: float = 0.0) -> None:
        """Take note of the end of a probe; `rest`: seconds for which the server asks to be left alone."""
        self.suspected = False
        self._looked_at = now
        self._advance(now)
        if end == "ok":
            self._alive(now)
        elif end != "busy":
            self._missed("refused" if end == "refused" else f"probe_{end}", now, chance)
        if self._state == "half_open" and not self.needs_answer:
            self.errand_at = now + min(CONFIRM, self._interval)
        elif self._state in ("up", "half_open") or end == "busy":
            self.errand_at = now + _spread(self._interval, chance)
        if end == "ok" and self._resets >= self._rules.fall:  # it takes connections, and no requests
            self._doubt(now)
        if self.doubted:
            self._call_trial(now)
        if rest:
            self.errand_at = max(self.errand_at, now + min(rest, LONGEST_PAUSE))

    def trialled(self, error: GatewayError | None, now: float, chance: float) -> None:
        """Take note of the end of a trial: its error, None for a whole answer."""
        if self._state != "sick":
            if self.doubted:
                self._judged(error, now, chance)
            return
        if error is None:
            self._recover(now)
        elif isinstance(error, ContextExceeded | UpstreamRejected | UpstreamMisconfigured):
            self._open_half(now)  # it did not take our request; perhaps it takes those of users
            self.errand_at = now + _spread(self._interval, chance)
        elif isinstance(error, UpstreamBusy) and error.retry_after:
            self._until = self.errand_at = now + min(error.retry_after, LONGEST_PAUSE)
        else:
            self._go_out("sick", _reason(error), now, chance)

    def reserved(self, now: float) -> None:
        """Take note that no slot is free for a trial that is due: the next one is the trial's."""
        if self.doubted:
            self._reserved_until = now + 2 * RESERVED
            self.errand_at = now + RESERVED

    def trying(self) -> None:
        """Take note that a trial has begun, on a slot of its own."""
        self._reserved_until = 0.0

    def deserted(self, now: float) -> None:
        """Take note that it closed a connection that nobody used: servers do so when they end.

        Some do after every answer, that of a probe too; so it is not looked at again before `CONFIRM`.
        """
        if self._state == "up":
            self._suspect(max(now, self._looked_at + CONFIRM))

    def repeated(self, now: float) -> None:
        """Take note that it closed a used connection as a request went out, which is sent once more.

        A miss, and a reason to look, but never the miss that puts it out: many connections may be closed at
        once where nothing is wrong, and the second sending of each request will tell.
        """
        self.tries += 1
        self._advance(now)
        if self._state == "up":
            if self._misses + len(self._strikes) + 1 < self._rules.fall:
                self._misses += 1
            self._suspect(max(now, self._looked_at + CONFIRM))

    def skipped(self, now: float, chance: float) -> None:
        """Take note that the prober left a backend alone because it works for us."""
        self.errand_at = now + _spread(self._interval, chance)

    # --- verdicts ----------------------------------------------------------------------------------

    def usable(self, now: float) -> bool:
        """Whether it may be asked, at once or soon; a paused backend may be waited for."""
        return self._state == "up" or self._phase(now) not in ("down", "sick")

    def slots_now(self, now: float) -> int:
        """How many requests may be in flight there at this moment."""
        if self.steady and self._ramp_from is None:
            return self._slots
        if now < self._paused_until:
            return 0
        phase = self._phase(now)
        reserved = now < self._reserved_until
        if phase == "half_open":
            return 0 if reserved else 1
        slots = self._ramped(now) if phase in ("up", "ramping") else 0
        return min(slots, self._slots - 1) if reserved else slots

    def share(self, now: float) -> float:
        """How much of a whole backend it is, above 0 and up to 1; below 1 while it ramps.

        Of free backends the greater share goes first: one with a single slot that has just come back gets
        what the others cannot take at once, until its slow start is over. A doubted or unfit one is the last.
        """
        if self.steady and self._ramp_from is None:
            return 1.0
        if self.doubted or now < self._unfit_until:
            return LAST
        phase = self._phase(now)
        if phase == "up":
            return 1.0
        if phase != "ramping" or self._ramp_from is None:
            return _EPSILON
        return max(_EPSILON, (now - self._ramp_from) / self._rules.slow_start)

    def next_change(self, now: float) -> float | None:
        """When `usable` or `slots_now` next changes by time alone; None if only an event changes it."""
        changes = []
        if now < self._paused_until:
            changes.append(self._paused_until)
        if now < self._reserved_until:
            changes.append(self._reserved_until)
        if now < self._unfit_until:
            changes.append(self._unfit_until)
        if self._out and self._rules.interval is None and now < self._until:
            changes.append(self._until)
        if self._phase(now) == "ramping" and self._ramp_from is not None:
            slots = self._ramped(now)
            if slots < self._slots:
                changes.append(self._ramp_from + self._rules.slow_start * slots / self._slots)
        return min(changes, default=None)

    def state(self, now: float) -> State:
        """How it is, in one word."""
        phase = self._phase(now)
        return "paused" if now < self._paused_until and phase not in ("down", "sick") else phase

    @property
    def due(self) -> float:
        """When its errand is due: `errand_at`, but never for one that is neither probed nor doubted."""
        return self.errand_at if self._rules.interval is not None or self.doubted else inf

    def errand(self) -> Errand:
        """What a prober should do when `errand_at` has come."""
        return "trial" if self._state == "sick" or self.doubted else "probe"

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self._out else ""
        return f"<Health {self._state}{why} misses={self._misses} strikes={len(self._strikes)}>"

    # --- parts of events ---------------------------------------------------------------------------

    def _answered(self, now: float) -> None:
        self._acquit()
        self._pauses = self._misses = self._unfit = 0
        self._unfit_until = 0.0
        self._rise(now)
        self._settle()

    def _alive(self, now: float) -> None:
        """A sign of life that is no answer: the process is there, its card may not be."""
        self._misses = 0
        if self._state == "down":
            self._open_half(now)
        if self._state == "half_open" and not self.needs_answer:
            self._rise(now)
        self._settle()

    def _rise(self, now: float) -> None:
        if self._state == "half_open":
            self._goods += 1
            if self._goods >= self._rules.rise:
                self._recover(now)

    def _acquit(self) -> None:
        """Hold nothing against it that requests have brought about."""
        self._strikes.clear()
        self._tenants.clear()
        self._hits = self._resets = 0
        self.doubted = False
        self._reserved_until = 0.0

    def _missed(self, reason: str, now: float, chance: float, *, by: str | None = None) -> None:
        """Count a miss; `by` is the tenant whose request may have brought it about."""
        if self._state == "sick":  # found out by a probe of an earlier state: the trial will tell
            return
        if by is not None:  # a probe will tell, or a trial
            self._tenants.add(by)
            self._resets += 1
            self._misses = min(self._misses + 1, max(0, self._rules.fall - 1))
            self._suspect(now)
            if self._rules.interval is None and self._resets >= self._rules.fall:
                self._doubt(now)
            return
        self._misses += 1
        if reason == "refused" or self._state != "up" or self._misses >= self._rules.fall:
            self._go_out("sick" if self._must_answer() else "down", reason, now, chance)
        else:
            self._suspect(now)

    def _struck(self, now: float, request: object | None, tenant: str) -> None:
        self._strikes.add((tenant, object() if request is None else request))
        self._tenants.add(tenant)
        self._hits += 1
        self._settle()
        if self._enough():
            self._doubt(now)

    def _doubt(self, now: float) -> None:
        if not self.doubted:
            self.doubted = True
            self._call_trial(now)

    def _call_trial(self, now: float) -> None:
        """Have it tried out at once, but not more often than it would be probed."""
        self.errand_at = max(now, self._tried_out_at + self._interval)

    def _judged(self, error: GatewayError | None, now: float, chance: float) -> None:
        """Take note of the end of a doubted backend's trial."""
        self._tried_out_at = now
        if error is None:
            self._answered(now)
            if self._state == "half_open":
                self._recover(now)
        elif isinstance(error, UpstreamBusy) and error.retry_after:
            self._paused_until = max(self._paused_until, now + min(error.retry_after, LONGEST_PAUSE))
            self.errand_at = self._paused_until
            return
        elif error.row.blames or isinstance(error, UpstreamBusy) or len(self._tenants) > 1:
            self._go_out("sick", _reason(error) if error.row.blames else "upstream_5xx", now, chance)
            return
        else:  # our own request is not to its taste, and what it failed at was one tenant's
            self._acquit()
            self._settle()
        self.errand_at = now + _spread(self._interval, chance)

    def _busy(
        self, error: UpstreamBusy, now: float, chance: float, request: object | None, tenant: str
    ) -> None:
        """It told us to stay away: until then it gets nothing, whatever else ends well there meanwhile."""
        seconds = min(error.retry_after or 0.0, LONGEST_PAUSE)
        if not seconds:  # it did not say for how long, and may be broken as well
            self._pauses += 1
            seconds = 2 * _rest(self._pauses, LONGEST_REST, chance)
            self._struck(now, request, tenant)
        if not self._out:
            self._paused_until = max(self._paused_until, now + seconds)
        self._settle()

    def _enough(self) -> bool:
        if self._state != "up":
            return True
        different, all_of_them = self._misses + len(self._strikes), self._misses + self._hits
        return different >= self._rules.fall or all_of_them >= self._rules.fall + AGAIN

    def _must_answer(self) -> bool:
        return self.needs_answer or len(self._strikes) > 0

    def _suspect(self, look_at: float) -> None:
        self.suspected = True
        if not self.doubted:  # a trial has its own time, and will tell
            self.errand_at = min(self.errand_at, look_at)
        self._settle()

    def _go_out(self, state: Literal["down", "sick"], reason: str, now: float, chance: float) -> None:
        if not self._out:
            self.since = now
        self._state, self.reason, self.needs_answer = state, reason, state == "sick"
        self._rests += 1
        self._until = self.errand_at = now + _rest(self._rests, self._interval, chance)
        self._misses = self._goods = 0
        self._ramp_from = None
        self.suspected = False
        self._acquit()
        self._settle()

    def _open_half(self, now: float) -> None:
        self._state, self._goods, self.since = "half_open", 0, now
        self._settle()

    def _recover(self, now: float) -> None:
        self._state, self.since = "up", now
        self.needs_answer = False
        self._misses = self._rests = 0
        self._ramp_from = now if self._rules.slow_start > 0 else None
        self.errand_at = max(self.errand_at, now)
        self._settle()

    def _settle(self) -> None:
        clean = not (self._misses or self._strikes or self._pauses or self._resets or self._unfit)
        self.steady = self._state == "up" and clean and not self._paused_until

    # --- time --------------------------------------------------------------------------------------

    @property
    def _interval(self) -> float:
        return LONGEST_REST if self._rules.interval is None else self._rules.interval

    @property
    def _out(self) -> bool:
        return self._state in ("down", "sick")

    def _phase(self, now: float) -> Literal["up", "ramping", "half_open", "down", "sick"]:
        if self._state == "up":
            ramp = self._ramp_from
            return "up" if ramp is None or now >= ramp + self._rules.slow_start else "ramping"
        if self._out and self._rules.interval is None and now >= self._until:
            return "half_open"
        return self._state

    def _advance(self, now: float) -> None:
        """Make lasting what time alone has done."""
        phase = self._phase(now)
        if phase == "half_open" and self._out:
            self._open_half(now)
        if phase == "up":
            self._ramp_from = None
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            self._settle()

    def _ramped(self, now: float) -> int:
        if self._ramp_from is None:
            return self._slots
        share = (now - self._ramp_from) / self._rules.slow_start
        return max(1, min(self._slots, 1 + floor(self._slots * share + _EPSILON)))


def _reason(error: GatewayError) -> str:
    if isinstance(error, ConnectFailed) and error.refused:
        return "refused"
    return error.row.outcome


def _rest(count: int, longest: float, chance: float) -> float:
    """Seconds of rest after so many failures in a row, from 1."""
    doublings = min(count - 1, 16)  # far beyond the longest rest, far below what a float can hold
    return _spread(min(longest, REST * 2.0**doublings), chance)


def _spread(seconds: float, chance: float) -> float:
    return seconds * (1.0 - SPREAD * chance)
