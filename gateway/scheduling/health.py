"""The health of one backend: a state machine that decides if and how much the backend is used. Pure.

    up ──refused, or `fall` failures in a row──▶ down ──a probe answers──▶ half_open ──`rise` good──▶ ramping
    up ──`fall` strikes──▶ (doubted) ──a trial of its own fails──▶ sick ──one real answer───────────▶ ramping
    up ──"busy, come back later"──▶ paused ──▶ up                    ramping ──`slow_start` seconds──▶ up

Terms. A *probe* is a cheap GET. A *trial* is a small generation request sent by the gateway itself. A
*miss* is a failed connection. A *strike* is the failure of a request that reached the server (a 5xx, a
malformed answer, or silence).

Rules.

- Busy is not dead: a probe that times out while requests of this gateway are in flight does not count.
- Refused is dead: if a connection is refused, no process is listening, and the backend is down at once.
- Repeated failures of the same request count as one strike, because the request itself may be the cause.
  But `fall` + `AGAIN` failures (see `failure_counts`) are enough, even if all are of the same request.
- Strikes alone do not take a backend out of service, because the requests of one tenant may be the cause of
  all of them. They make the backend *doubted*. A doubted backend gets a trial, even where no probes are
  configured. Until the trial ends, the backend stays in use but is chosen last.
- A complete answer clears the strikes. A probe does not, because a GPU in a broken state can still answer
  probes. A backend that went out because a trial failed returns only after a complete answer.
- Any sign of life clears the misses. A connection that is reset after the request was sent may be caused by
  the request, so a reset alone never takes the backend out of service. It leads to a probe, and after
  `fall` resets to a trial, even if probes succeed.
- An error of the client is not a failure of the backend. Neither is a response such as 404, which means
  that the gateway is misconfigured for this backend. The backend is then *unfit*: it is chosen last for a
  while, because each request it gets costs a second attempt.
- While a backend is out of service, no requests are sent to it. The results of requests sent before that
  are ignored.

Theory of operation. `tried`, `probed` and `trialled` change the state. The scheduler reads `usable`,
`slots_now`, `share` and `next_change`. The prober reads `errand` and `due`: what to do next, and when.
Times are monotonic seconds. `chance` is a random number from 0 to below 1 that spreads the back-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf
from typing import Literal

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
from gateway.scheduling.backoff import rest_after, spread
from gateway.scheduling.failure_counts import FailureCounts
from gateway.scheduling.health_states import Errand, Probe, State

LONGEST_REST = 10.0
"""Longest time out of service if no probes are configured and a user's request must test the backend, in
seconds."""
LONGEST_PAUSE = 60.0
"""Upper limit for the pause that a backend itself may ask for (Retry-After), in seconds."""
CONFIRM = 0.5
"""Seconds until the next probe after the first successful one."""
RESERVED = 0.1
"""Seconds between two attempts to get a free slot for a trial."""

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class HealthRules:
    """How quickly a backend is taken out of service and put back.

    `fall` failures in a row take a backend out of service, and `rise` good signs bring it back. Over the
    following `slow_start` seconds its slots become available step by step. `interval` is the time between
    two probes in seconds, and the upper limit of the back-off. None: no probes are sent; the state follows
    from the results of requests, and from trials after failed requests.
    """

    fall: int = 3
    rise: int = 2
    slow_start: float = 10.0
    interval: float | None = 2.0


class BackendHealth:
    """The health of one backend with `slots` slots. It lives as long as the backend is configured.

    `steady` is true if the backend is up and nothing counts against it, so that another complete answer
    changes nothing. `tries` is the number of attempts that have ended here. `reason` is the reason (see
    `health_states.REASONS`) for which the backend last went out of service, "" if it never did. `since` is
    the time at which it last went out of service or returned.
    """

    __slots__ = (
        "_failures",
        "_goods",
        "_last_probe_at",
        "_last_trial_at",
        "_paused_until",
        "_ramp_from",
        "_reserved_until",
        "_rests",
        "_rules",
        "_slots",
        "_state",
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
        self._last_probe_at = now - CONFIRM
        self._paused_until = 0.0
        self._ramp_from: float | None = None
        self._failures = FailureCounts()
        self._goods = 0
        self._rests = 0
        self._unfit_until = 0.0
        self._last_trial_at = now - LONGEST_REST
        self._reserved_until = 0.0
        self.doubted = False
        """True while a trial is due or running that decides if the backend is sick."""
        self.needs_answer = False
        """True if only a complete answer brings the backend back."""
        self.suspected = False
        """True if a connection broke and no probe was sent since. The backend is then probed even if it is
        busy."""
        self.errand_at = now
        self.reason = ""
        self.since = now
        self.steady = True
        self.tries = 0

    def refit(self, slots: int, rules: HealthRules) -> None:
        """Change slots and rules after a reload. The state is kept."""
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
        """Record the end of a user's attempt: its error, or None for a complete answer.

        Attempts with an equal `request` are the same request sent again. None is equal to no other request.
        `tenant` is the tenant who sent the request.
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
            self._count_miss(
                _reason(error), now, chance, by=tenant if isinstance(error, UpstreamReset) else None
            )
        elif isinstance(error, ContextExceeded | UpstreamRejected | UpstreamMisconfigured):
            if isinstance(error, UpstreamMisconfigured):
                self._failures.unfit += 1
                self._unfit_until = now + rest_after(self._failures.unfit, LONGEST_PAUSE, chance)
            self._sign_of_life(now)
        elif error.row.blames:
            self._count_strike(now, request, tenant)
            if isinstance(error, UpstreamTruncated):
                self._suspect(now)

    def probed(self, end: Probe, now: float, chance: float, rest: float = 0.0) -> None:
        """Record the end of a probe. `rest` is the time the server asked to be left alone, in seconds."""
        self.suspected = False
        self._last_probe_at = now
        self._advance(now)
        if end == "ok":
            self._sign_of_life(now)
        elif end != "busy":
            self._count_miss("refused" if end == "refused" else f"probe_{end}", now, chance)
        if self._state == "half_open" and not self.needs_answer:
            self.errand_at = now + min(CONFIRM, self._interval)
        elif self._state in ("up", "half_open") or end == "busy":
            self.errand_at = now + spread(self._interval, chance)
        if end == "ok" and self._failures.resets >= self._rules.fall:  # probes succeed, requests are reset
            self._doubt(now)
        if self.doubted:
            self._schedule_trial(now)
        if rest:
            self.errand_at = max(self.errand_at, now + min(rest, LONGEST_PAUSE))

    def trialled(self, error: GatewayError | None, now: float, chance: float) -> None:
        """Record the end of a trial: its error, or None for a complete answer."""
        if self._state != "sick":
            if self.doubted:
                self._end_trial_of_doubted(error, now, chance)
            return
        if error is None:
            self._recover(now)
        elif isinstance(error, ContextExceeded | UpstreamRejected | UpstreamMisconfigured):
            self._open_half(now)  # it rejects our trial, but may accept requests of users
            self.errand_at = now + spread(self._interval, chance)
        elif isinstance(error, UpstreamBusy) and error.retry_after:
            self._until = self.errand_at = now + min(error.retry_after, LONGEST_PAUSE)
        else:
            self._go_out("sick", _reason(error), now, chance)

    def reserved(self, now: float) -> None:
        """Record that a trial is due but no slot is free: the next free slot is kept for the trial."""
        if self.doubted:
            self._reserved_until = now + 2 * RESERVED
            self.errand_at = now + RESERVED

    def trying(self) -> None:
        """Record that a trial has started on a slot of its own."""
        self._reserved_until = 0.0

    def deserted(self, now: float) -> None:
        """Record that the backend closed an idle connection; a server does this when it shuts down.

        Some servers close the connection after every answer, even after a probe. So the next probe is not
        sent earlier than `CONFIRM` seconds after the last one.
        """
        if self._state == "up":
            self._suspect(max(now, self._last_probe_at + CONFIRM))

    def repeated(self, now: float) -> None:
        """Record that the backend closed a reused connection while a request was sent; it is sent again.

        This counts as a miss and leads to a probe, but never takes the backend out of service. Many
        connections may close at the same time although the backend is healthy, and the result of the second
        sending shows its real state.
        """
        self.tries += 1
        self._advance(now)
        if self._state == "up":
            self._failures.closed(self._rules.fall)
            self._suspect(max(now, self._last_probe_at + CONFIRM))

    def skipped(self, now: float, chance: float) -> None:
        """Record that the prober skipped the backend because it is working on our requests."""
        self.errand_at = now + spread(self._interval, chance)

    # --- verdicts ----------------------------------------------------------------------------------

    def usable(self, now: float) -> bool:
        """Return True if the backend accepts requests now or soon. Requests may wait for a paused backend."""
        return self._state == "up" or self._phase(now) not in ("down", "sick")

    def slots_now(self, now: float) -> int:
        """Return how many requests the backend may have in flight now."""
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
        """Return the backend's current capacity as a fraction, above 0 and up to 1; below 1 in slow start.

        Among free backends the larger share is chosen first. A backend with a single slot that has just
        returned therefore gets only requests that the other backends cannot accept at once, until its slow
        start ends. A doubted or unfit backend is chosen last.
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
        """Return when a value that the scheduler reads next changes without an event; None for never."""
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
        """Return the state at `now`."""
        phase = self._phase(now)
        return "paused" if now < self._paused_until and phase not in ("down", "sick") else phase

    @property
    def due(self) -> float:
        """When the next errand is due; infinity if the backend is neither probed nor doubted."""
        return self.errand_at if self._rules.interval is not None or self.doubted else inf

    def errand(self) -> Errand:
        """Return what the prober does when the errand is due."""
        return "trial" if self._state == "sick" or self.doubted else "probe"

    def __repr__(self) -> str:
        why = f" ({self.reason})" if self._out else ""
        return f"<Health {self._state}{why} misses={self._failures.misses} strikes={self._failures.strikes}>"

    # --- parts of events ---------------------------------------------------------------------------

    def _answered(self, now: float) -> None:
        self._end_doubt()
        self._failures.forget_all()
        self._unfit_until = 0.0
        self._count_good_sign(now)
        self._update_steady()

    def _sign_of_life(self, now: float) -> None:
        """Record a sign of life that is not an answer: the process runs, but its GPU may be broken."""
        self._failures.misses = 0
        if self._state == "down":
            self._open_half(now)
        if self._state == "half_open" and not self.needs_answer:
            self._count_good_sign(now)
        self._update_steady()

    def _count_good_sign(self, now: float) -> None:
        if self._state == "half_open":
            self._goods += 1
            if self._goods >= self._rules.rise:
                self._recover(now)

    def _end_doubt(self) -> None:
        """Forget the failures of requests, and cancel the trial that they led to."""
        self._failures.forget_requests()
        self.doubted = False
        self._reserved_until = 0.0

    def _count_miss(self, reason: str, now: float, chance: float, *, by: str | None = None) -> None:
        """Count a miss; `by` is the tenant whose request may be the cause."""
        if self._state == "sick":  # a probe from an earlier state; the trial decides
            return
        if by is not None:  # a probe or a trial decides
            self._failures.reset(by, self._rules.fall)
            self._suspect(now)
            if self._rules.interval is None and self._failures.resets >= self._rules.fall:
                self._doubt(now)
            return
        self._failures.misses += 1
        if reason == "refused" or self._state != "up" or self._failures.misses >= self._rules.fall:
            self._go_out(
                "sick" if self.needs_answer or self._failures.strikes else "down", reason, now, chance
            )
        else:
            self._suspect(now)

    def _count_strike(self, now: float, request: object | None, tenant: str) -> None:
        self._failures.strike(request, tenant)
        self._update_steady()
        if self._state != "up" or self._failures.enough(self._rules.fall):
            self._doubt(now)

    def _doubt(self, now: float) -> None:
        if not self.doubted:
            self.doubted = True
            self._schedule_trial(now)

    def _schedule_trial(self, now: float) -> None:
        """Schedule a trial now, but not more often than probes are sent."""
        self.errand_at = max(now, self._last_trial_at + self._interval)

    def _end_trial_of_doubted(self, error: GatewayError | None, now: float, chance: float) -> None:
        """Record the end of a doubted backend's trial."""
        self._last_trial_at = now
        if error is None:
            self._answered(now)
            if self._state == "half_open":
                self._recover(now)
        elif isinstance(error, UpstreamBusy) and error.retry_after:
            self._paused_until = max(self._paused_until, now + min(error.retry_after, LONGEST_PAUSE))
            self.errand_at = self._paused_until
            return
        elif error.row.blames or isinstance(error, UpstreamBusy) or self._failures.several_tenants:
            self._go_out("sick", _reason(error) if error.row.blames else "upstream_5xx", now, chance)
            return
        else:  # the backend rejects our trial, and all failures were of one tenant
            self._end_doubt()
            self._update_steady()
        self.errand_at = now + spread(self._interval, chance)

    def _busy(
        self, error: UpstreamBusy, now: float, chance: float, request: object | None, tenant: str
    ) -> None:
        """Pause a backend that reported it is busy. Answers that end meanwhile do not end the pause."""
        seconds = min(error.retry_after or 0.0, LONGEST_PAUSE)
        if not seconds:  # no Retry-After: the backend may also be broken
            self._failures.pauses += 1
            seconds = 2 * rest_after(self._failures.pauses, LONGEST_REST, chance)
            self._count_strike(now, request, tenant)
        if not self._out:
            self._paused_until = max(self._paused_until, now + seconds)
        self._update_steady()

    def _suspect(self, look_at: float) -> None:
        self.suspected = True
        if not self.doubted:  # a trial has its own schedule
            self.errand_at = min(self.errand_at, look_at)
        self._update_steady()

    def _go_out(self, state: Literal["down", "sick"], reason: str, now: float, chance: float) -> None:
        if not self._out:
            self.since = now
        self._state, self.reason, self.needs_answer = state, reason, state == "sick"
        self._rests += 1
        self._until = self.errand_at = now + rest_after(self._rests, self._interval, chance)
        self._failures.misses = self._goods = 0
        self._ramp_from = None
        self.suspected = False
        self._end_doubt()
        self._update_steady()

    def _open_half(self, now: float) -> None:
        self._state, self._goods, self.since = "half_open", 0, now
        self._update_steady()

    def _recover(self, now: float) -> None:
        self._state, self.since = "up", now
        self.needs_answer = False
        self._failures.misses = self._rests = 0
        self._ramp_from = now if self._rules.slow_start > 0 else None
        self.errand_at = max(self.errand_at, now)
        self._update_steady()

    def _update_steady(self) -> None:
        self.steady = self._state == "up" and self._failures.none and not self._paused_until

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
        """Apply the state changes that are due because time has passed."""
        phase = self._phase(now)
        if phase == "half_open" and self._out:
            self._open_half(now)
        if phase == "up":
            self._ramp_from = None
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            self._update_steady()

    def _ramped(self, now: float) -> int:
        if self._ramp_from is None:
            return self._slots
        share = (now - self._ramp_from) / self._rules.slow_start
        return max(1, min(self._slots, 1 + floor(self._slots * share + _EPSILON)))


def _reason(error: GatewayError) -> str:
    if isinstance(error, ConnectFailed) and error.refused:
        return "refused"
    return error.row.outcome
