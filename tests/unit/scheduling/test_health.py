"""The state machine of one backend's health: tables of events, and properties of any event sequence."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BadRequest,
    ClientGone,
    ConnectFailed,
    ContextExceeded,
    FirstTokenTimeout,
    GatewayError,
    QueueFull,
    StallTimeout,
    TotalTimeout,
    Unauthorized,
    UnsupportedParameter,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamGarbled,
    UpstreamMisconfigured,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.scheduling.availability import LAST
from gateway.scheduling.backoff import REST, SPREAD
from gateway.scheduling.health import (
    CONFIRM,
    LONGEST_PAUSE,
    LONGEST_REST,
    RESERVED,
    BackendHealth,
    HealthRules,
)
from gateway.scheduling.health_states import PROBES, REASONS, STATES, Probe

REFUSED = ConnectFailed("", refused=True)
SILENT = ConnectFailed("")
RESET = UpstreamReset("")
BROKEN = UpstreamError("")
PROBED = HealthRules()
ALONE = HealthRules(interval=None)


class Trial:
    """The end of a trial, as an event."""

    def __init__(self, error: GatewayError | None = None) -> None:
        self.error = error


Event: TypeAlias = GatewayError | Probe | Trial | None
FAILED = Trial(BROKEN)


def health(slots: int = 1, rules: HealthRules = PROBED) -> BackendHealth:
    return BackendHealth(slots, rules)


def play(one: BackendHealth, *events: Event, now: float = 0.0) -> BackendHealth:
    """Apply the ends of attempts, probes and trials, all at time `now`; each attempt is of another tenant."""
    for number, event in enumerate(events):
        if isinstance(event, str):
            one.probed(event, now, 0.0)
        elif isinstance(event, Trial):
            one.trialled(event.error, now, 0.0)
        else:
            one.tried(event, now, 0.0, tenant=f"tenant-{number}")
    return one


def sick(rules: HealthRules = PROBED, slots: int = 1) -> BackendHealth:
    return play(health(slots, rules), BROKEN, BROKEN, BROKEN, FAILED)


# --- going out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param([], "up", id="new"),
        pytest.param([None], "up", id="an-answer"),
        pytest.param([REFUSED], "down", id="refused-once"),
        pytest.param(["refused"], "down", id="a-probe-refused-once"),
        pytest.param([SILENT, SILENT], "up", id="two-silent-connects"),
        pytest.param([SILENT, SILENT, SILENT], "down", id="three-silent-connects"),
        pytest.param([RESET, UpstreamTLS(""), SILENT], "down", id="three-misses-of-any-kind"),
        pytest.param([RESET] * 9, "up", id="resets-alone-may-be-the-requests-doing"),
        pytest.param([RESET, RESET, "failed"], "down", id="a-probe-confirms-resets"),
        pytest.param([RESET, RESET, None, RESET, RESET], "up", id="an-answer-wipes-out-misses"),
        pytest.param([RESET, RESET, "ok", RESET, RESET], "up", id="a-probe-wipes-out-misses"),
        pytest.param([RESET, RESET, UpstreamRejected(""), RESET], "up", id="a-422-wipes-out-misses"),
        pytest.param([UpstreamNotFound("")] * 9, "up", id="a-404-is-a-fault-of-configuration"),
        pytest.param([RESET, RESET, UpstreamNotFound(""), RESET], "up", id="a-404-wipes-out-misses"),
        pytest.param(["timeout", "timeout"], "up", id="two-silent-probes"),
        pytest.param(["timeout", "timeout", "timeout"], "down", id="three-silent-probes"),
        pytest.param(["bad_status", "failed", "timeout"], "down", id="three-bad-probes"),
        pytest.param(["busy"] * 9, "up", id="busy-is-not-dead"),
        pytest.param([BROKEN, BROKEN], "up", id="two-500s"),
        pytest.param([BROKEN] * 9, "up", id="500s-without-a-trial"),
        pytest.param([BROKEN, BROKEN, BROKEN, FAILED], "sick", id="three-500s-and-a-trial"),
        pytest.param([BROKEN, BROKEN, FAILED], "up", id="a-trial-that-nobody-asked-for"),
        pytest.param(
            [BROKEN, BROKEN, BROKEN, Trial(), BROKEN, BROKEN], "up", id="a-good-trial-wipes-out-500s"
        ),
        pytest.param([BROKEN] * 3 + [None, FAILED], "up", id="an-answer-before-the-trial-has-ended"),
        pytest.param([BROKEN, "ok", BROKEN, "ok", BROKEN, FAILED], "sick", id="probes-do-not-wipe-out-500s"),
        pytest.param([BROKEN, UpstreamRejected(""), BROKEN, BROKEN, FAILED], "sick", id="nor-does-a-422"),
        pytest.param([BROKEN, BROKEN, None, BROKEN, BROKEN], "up", id="an-answer-wipes-out-500s"),
        pytest.param([UpstreamGarbled(""), UpstreamEmpty(""), BROKEN, FAILED], "sick", id="bad-answers"),
        pytest.param([FirstTokenTimeout(""), StallTimeout(""), TotalTimeout(""), FAILED], "sick", id="hung"),
        pytest.param([UpstreamTruncated("")] * 3 + [FAILED], "sick", id="answers-that-break-off"),
        pytest.param([RESET, RESET, BROKEN, FAILED], "sick", id="a-mixture-is-tried-out"),
        pytest.param([BROKEN, SILENT, SILENT, SILENT], "sick", id="a-mixture-needs-an-answer"),
        pytest.param([BROKEN] * 3 + [Trial(UpstreamRejected(""))], "sick", id="no-trial-but-several-tenants"),
        pytest.param([BROKEN] * 3 + [Trial(UpstreamBusy(""))], "sick", id="a-trial-that-is-busy"),
        pytest.param(
            [BROKEN] * 3 + [Trial(UpstreamBusy("", retry_after=3))], "paused", id="told-to-come-again"
        ),
        pytest.param([BROKEN, REFUSED], "sick", id="refused-after-a-500-needs-an-answer"),
        pytest.param([UpstreamBusy("", retry_after=5)] * 9, "paused", id="told-to-wait"),
        pytest.param([UpstreamBusy("")], "paused", id="busy-without-a-time"),
        pytest.param([UpstreamBusy("")] * 3 + [Trial(UpstreamBusy(""))], "sick", id="busy-without-end"),
        pytest.param([BadRequest(""), ContextExceeded("")] * 9, "up", id="client-errors"),
        pytest.param([ClientGone(""), Unauthorized("wrong"), QueueFull("")] * 9, "up", id="not-its-doing"),
    ],
)
def test_what_puts_a_backend_out(events: list[Event], state: str) -> None:
    one = play(health(), *events)
    assert one.state(0.0) == state
    assert one.usable(0.0) == (state not in ("down", "sick"))
    assert one.slots_now(0.0) == (1 if state == "up" else 0)


@pytest.mark.parametrize(
    ("requests", "state"),
    [
        pytest.param([1, 1, 1], "up", id="what-an-sdk-sends"),
        pytest.param([1, 1, 1, 1], "up", id="and-one-more"),
        pytest.param([1, 1, 1, 1, 1], "doubted", id="five-of-one"),
        pytest.param([1, 1, 2], "up", id="two-different"),
        pytest.param([1, 2, 3], "doubted", id="three-different"),
        pytest.param([None, None, None], "doubted", id="unknown"),
    ],
)
def test_one_request_sent_again_weighs_less_than_different_ones(
    requests: list[int | None], state: str
) -> None:
    one = health()
    for request in requests:
        one.tried(BROKEN, 0.0, 0.0, request)
    assert one.state(0.0) == "up"
    assert one.doubted == (state == "doubted")
    assert one.errand() == ("trial" if one.doubted else "probe")


def test_the_number_of_failures_is_the_operators() -> None:
    one = play(health(rules=HealthRules(fall=5)), *[BROKEN] * 4)
    assert not one.doubted
    assert play(one, BROKEN, FAILED).state(0.0) == "sick"


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        pytest.param([REFUSED], "refused", id="refused"),
        pytest.param([UpstreamTLS("")] * 3, "connect", id="tls"),
        pytest.param([BROKEN] * 3 + [FAILED], "upstream_5xx", id="500"),
        pytest.param(["timeout"] * 3, "probe_timeout", id="probe"),
        pytest.param([BROKEN] * 3 + [Trial(StallTimeout(""))], "stall", id="stalled"),
    ],
)
def test_a_backend_that_is_out_tells_why_and_since_when(events: list[Event], reason: str) -> None:
    one = play(health(), *events, now=7.0)
    assert (one.reason, one.since) == (reason, 7.0)
    assert reason in REASONS


def test_what_still_ends_on_a_backend_that_is_out_is_old_news() -> None:
    one = play(health(), REFUSED)
    assert play(one, None, None, BROKEN, BROKEN, BROKEN).state(0.0) == "down"
    assert play(sick(), None, REFUSED).state(0.0) == "sick"


# --- coming back -----------------------------------------------------------------------------------


def test_the_first_answered_probe_lets_one_request_in_and_the_second_all() -> None:
    one = play(health(slots=4, rules=HealthRules(slow_start=0)), REFUSED)
    play(one, "ok", now=1.0)
    assert (one.state(1.0), one.usable(1.0), one.slots_now(1.0)) == ("half_open", True, 1)
    assert one.errand_at == 1.0 + CONFIRM
    play(one, "ok", now=1.5)
    assert (one.state(1.5), one.slots_now(1.5), one.since) == ("up", 4, 1.5)


def test_an_answer_confirms_the_return_as_a_probe_does() -> None:
    one = play(health(), REFUSED, "ok", None)
    assert one.state(0.0) == "ramping"


def test_one_failure_on_trial_puts_it_out_again_for_longer() -> None:
    one = play(health(), REFUSED, "ok")
    play(one, SILENT, now=10.0)
    assert one.state(10.0) == "down"
    assert one.errand_at == 10.0 + 2 * REST


def test_a_backend_asked_to_come_back_by_one_sign_needs_no_trial() -> None:
    assert play(health(rules=HealthRules(rise=1)), REFUSED, "ok").state(0.0) == "ramping"


def test_only_a_real_answer_brings_a_sick_backend_back() -> None:
    one = sick()
    assert one.errand() == "trial"
    play(one, "ok", "ok", "ok", now=1.0)
    assert one.state(1.0) == "sick"
    one.trialled(BROKEN, 2.0, 0.0)
    assert (one.state(2.0), one.errand_at) == ("sick", 2.0 + 2 * REST)
    one.trialled(None, 3.0, 0.0)
    assert (one.state(3.0), one.usable(3.0)) == ("ramping", True)
    assert one.errand() == "probe"


def test_a_trial_that_is_refused_as_a_request_leaves_the_verdict_to_users() -> None:
    one = sick()
    one.trialled(UpstreamRejected(""), 1.0, 0.0)
    assert (one.state(1.0), one.slots_now(1.0)) == ("half_open", 1)
    play(one, "ok", "ok", "ok", now=2.0)
    assert one.state(2.0) == "half_open"
    assert play(one, None, None, now=3.0).state(3.0) == "ramping"


def test_a_trial_that_is_told_to_wait_waits() -> None:
    one = sick()
    one.trialled(UpstreamBusy("", retry_after=9), 1.0, 0.0)
    assert (one.state(1.0), one.errand_at) == ("sick", 10.0)


def test_a_trial_that_ends_after_the_verdict_changes_nothing() -> None:
    one = health()
    one.trialled(BROKEN, 0.0, 0.0)
    assert one.state(0.0) == "up"


def test_rests_double_up_to_the_probe_period_and_are_spread() -> None:
    one = play(health(rules=HealthRules(interval=5.0)), REFUSED)
    rests = []
    for _ in range(6):
        rests.append(one.errand_at)
        play(one, "refused", now=0.0)
    assert rests == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    one.probed("refused", 0.0, 0.999)
    assert 5.0 * (1 - SPREAD) <= one.errand_at < 5.0


def test_without_probes_a_backend_is_tried_by_one_user_after_its_rest() -> None:
    one = play(health(slots=4, rules=ALONE), REFUSED)
    assert (one.usable(0.4), one.next_change(0.4)) == (False, REST)
    assert (one.state(REST), one.slots_now(REST), one.next_change(REST)) == ("half_open", 1, None)
    play(one, REFUSED, now=REST)
    assert one.next_change(REST) == 3 * REST
    assert play(one, None, None, now=2.0).state(2.0) == "ramping"


def test_without_probes_the_longest_rest_is_bounded() -> None:
    one, now = play(health(rules=ALONE), REFUSED), 0.0
    for _ in range(40):
        now = one.next_change(now) or now
        play(one, REFUSED, now=now)
    assert one.next_change(now) == now + LONGEST_REST


def test_without_probes_a_sick_backend_is_tried_by_users_too() -> None:
    one = sick(ALONE)
    assert (one.state(REST), one.slots_now(REST)) == ("half_open", 1)
    assert play(one, BROKEN, FAILED, now=REST).state(REST) == "sick"
    assert play(one, None, None, now=9.0).state(9.0) == "ramping"


# --- doubts ----------------------------------------------------------------------------------------


def doubted(slots: int = 1, rules: HealthRules = PROBED, *, tenant: str = "one") -> BackendHealth:
    """Return a backend on which different requests of one tenant have failed."""
    one = health(slots, rules)
    for request in range(20):
        one.tried(BROKEN, 1.0, 0.0, request, tenant)
    return one


@pytest.mark.parametrize("rules", [PROBED, ALONE], ids=["probed", "alone"])
@pytest.mark.parametrize(
    "error", [BROKEN, UpstreamGarbled(""), UpstreamTruncated(""), StallTimeout(""), RESET]
)
def test_failures_of_one_tenant_alone_never_put_a_backend_out(
    error: GatewayError, rules: HealthRules
) -> None:
    one = health(4, rules)
    for request in range(50):
        one.tried(error, float(request), 0.0, request, "one")
        assert (one.state(float(request)), one.slots_now(float(request))) == ("up", 4)


@pytest.mark.parametrize(
    "error", [BROKEN, UpstreamGarbled(""), UpstreamTruncated(""), StallTimeout(""), RESET]
)
def test_without_probes_there_are_trials_when_requests_fail_and_at_no_other_time(error: GatewayError) -> None:
    one = health(rules=ALONE)
    assert one.due == inf
    for request in range(3):
        assert one.due == inf
        one.tried(error, 1.0, 0.0, request, "one")
    assert (one.errand(), one.due) == ("trial", 1.0)
    one.trialled(None, 2.0, 0.0)
    assert (one.state(2.0), one.steady, one.due) == ("up", True, inf)
    for request in range(3):
        one.tried(error, 3.0, 0.0, request, "one")
    assert one.due == 2.0 + LONGEST_REST
    one.trialled(BROKEN, 12.0, 0.0)
    assert (one.state(12.0), one.due) == ("sick", inf)


def test_a_server_that_resets_requests_and_answers_probes_is_tried_out() -> None:
    one = play(health(), RESET, "ok", RESET, "ok")
    assert not one.doubted
    play(one, RESET)
    assert (one.doubted, one.errand()) == (False, "probe")  # the server may have stopped
    play(one, "ok")
    assert (one.state(0.0), one.errand()) == ("up", "trial")
    assert play(one, FAILED).state(0.0) == "sick"


MISFITS = [UpstreamNotFound(""), UpstreamMisconfigured("")]


@pytest.mark.parametrize("error", MISFITS)
def test_a_backend_that_refuses_the_gateway_itself_is_the_last_choice_for_a_while(
    error: GatewayError,
) -> None:
    one = play(health(), error)
    assert (one.state(0.0), one.slots_now(0.0), one.doubted) == ("up", 1, False)
    assert one.share(0.0) == LAST
    assert one.next_change(0.0) == REST
    assert (one.share(REST), one.next_change(REST)) == (1.0, None)
    play(one, error, now=REST)
    assert one.next_change(REST) == REST + 2 * REST
    for _ in range(20):
        play(one, error, now=9.0)
    assert one.next_change(9.0) == 9.0 + LONGEST_PAUSE
    play(one, None, now=10.0)
    assert (one.share(10.0), one.next_change(10.0), one.steady) == (1.0, None, True)
    assert play(one, error, now=10.0).next_change(10.0) == 10.0 + REST


def test_a_doubted_backend_stays_in_as_the_last_choice() -> None:
    one = doubted(4)
    assert (one.state(1.0), one.usable(1.0), one.slots_now(1.0), one.steady) == ("up", True, 4, False)
    assert one.share(1.0) == LAST
    one.trialled(None, 1.5, 0.0)
    assert (one.share(1.5), one.steady, one.doubted) == (1.0, True, False)


def test_a_doubted_backend_is_tried_out_at_once_but_not_more_often_than_it_is_probed() -> None:
    one = doubted()
    assert (one.errand(), one.errand_at) == ("trial", 1.0)
    one.trialled(None, 1.5, 0.0)
    for request in range(3):
        one.tried(BROKEN, 1.6, 0.0, request)
    assert (one.errand(), one.errand_at) == ("trial", 1.5 + 2.0)
    one.probed("ok", 1.7, 0.0)  # the probe had started before
    assert (one.errand(), one.errand_at) == ("trial", 1.5 + 2.0)


@pytest.mark.parametrize(("slots", "left"), [(1, 0), (4, 3)])
def test_a_trial_that_finds_no_slot_gets_the_next(slots: int, left: int) -> None:
    one = doubted(slots)
    one.reserved(2.0)
    assert (one.usable(2.0), one.slots_now(2.0), one.errand_at) == (True, left, 2.0 + RESERVED)
    assert one.next_change(2.0) == 2.0 + 2 * RESERVED
    assert one.slots_now(2.0 + 2 * RESERVED) == slots  # the prober no longer asks for a slot
    one.reserved(2.1)
    one.trying()
    assert one.slots_now(2.1) == slots


def test_a_slot_is_reserved_for_no_trial_that_is_not_due() -> None:
    one = health()
    one.reserved(0.0)
    assert one.slots_now(0.0) == 1
    one = doubted()
    one.reserved(1.0)
    play(one, None, now=1.0)
    assert (one.slots_now(1.0), one.steady) == (1, True)


def test_a_trial_that_cannot_be_made_acquits_what_only_one_tenant_accuses() -> None:
    one = doubted()
    one.trialled(UpstreamRejected(""), 2.0, 0.0)
    assert (one.state(2.0), one.doubted, one.errand_at) == ("up", False, 4.0)


def test_a_failure_while_half_open_is_tried_out_before_it_counts() -> None:
    one = play(health(), REFUSED, "ok")
    play(one, BROKEN, now=1.0)
    assert (one.state(1.0), one.errand()) == ("half_open", "trial")
    one.reserved(1.0)
    assert one.slots_now(1.0) == 0
    assert play(one, Trial(), now=1.0).state(1.0) == "ramping"
    one = play(health(), REFUSED, "ok", BROKEN, FAILED)
    assert one.state(0.0) == "sick"


@pytest.mark.parametrize(("asked", "at"), [(5.0, 6.0), (0.5, 3.0), (1e9, 1.0 + LONGEST_PAUSE)])
def test_a_server_that_asks_to_be_left_alone_is_not_probed_before(asked: float, at: float) -> None:
    one = health()
    one.probed("bad_status", 1.0, 0.0, asked)
    assert one.errand_at == at


# --- slow start ------------------------------------------------------------------------------------


def test_slots_come_back_one_by_one_over_the_slow_start() -> None:
    one = play(health(slots=4, rules=HealthRules(slow_start=8.0)), REFUSED, "ok", "ok")
    seen, now = [], 0.0
    while (change := one.next_change(now)) is not None:
        seen.append((now, one.slots_now(now), one.share(now)))
        now = change
    assert [(at, slots) for at, slots, _ in seen] == [(0.0, 1), (2.0, 2), (4.0, 3)]
    assert one.slots_now(6.0) == 4
    assert (one.state(7.9), one.state(8.0)) == ("ramping", "up")
    assert [one.share(now) for now in (2.0, 4.0, 8.0)] == [0.25, 0.5, 1.0]


def test_a_single_slot_is_back_at_once_but_behind_the_others() -> None:
    one = play(health(rules=HealthRules(slow_start=8.0)), REFUSED, "ok", "ok")
    assert (one.slots_now(0.0), one.next_change(0.0)) == (1, None)
    assert 0 < one.share(0.0) < one.share(4.0) < one.share(8.0) == 1.0


def test_a_slow_start_ends_for_good() -> None:
    one = play(health(slots=2, rules=HealthRules(slow_start=8.0)), REFUSED, "ok", "ok")
    play(one, "ok", now=9.0)
    assert (one.state(9.0), one.slots_now(9.0), one.share(9.0)) == ("up", 2, 1.0)
    assert one.steady


def test_a_backend_on_trial_has_next_to_no_share() -> None:
    assert 0 < play(health(), REFUSED, "ok").share(0.0) < 0.001


# --- pauses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "until"),
    [
        pytest.param(2.0, 2.0, id="short"),
        pytest.param(1e9, LONGEST_PAUSE, id="absurd"),
        pytest.param(0.0, 2 * REST, id="none"),
        pytest.param(None, 2 * REST, id="untold"),
    ],
)
def test_a_busy_backend_is_left_alone_as_long_as_it_says(told: float | None, until: float) -> None:
    one = play(health(), UpstreamBusy("", retry_after=told))
    assert (one.usable(0.0), one.slots_now(0.0), one.next_change(0.0)) == (True, 0, until)
    assert play(one, None).slots_now(until - 0.01) == 0
    assert (one.slots_now(until), one.state(until)) == (1, "up")


def test_pauses_that_nobody_asked_for_grow_and_are_forgotten_after_an_answer() -> None:
    one = play(health(), UpstreamBusy(""))
    play(one, UpstreamBusy(""), now=1.0)
    assert one.next_change(1.0) == 3.0
    play(one, None, now=3.0)
    assert one.steady
    assert play(one, UpstreamBusy(""), now=3.0).next_change(3.0) == 4.0


# --- errands ---------------------------------------------------------------------------------------


def test_a_new_backend_is_probed_at_once_and_then_every_interval() -> None:
    one = health()
    assert (one.errand(), one.errand_at) == ("probe", 0.0)
    assert play(one, "ok", now=1.0).errand_at == 3.0
    one.skipped(3.0, 0.5)
    assert one.errand_at == 3.0 + 2.0 * (1 - SPREAD / 2)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RESET, id="reset"),
        pytest.param(SILENT, id="silent-connect"),
        pytest.param(UpstreamTruncated(""), id="broken-off"),
    ],
)
def test_a_connection_that_breaks_calls_for_a_look_at_once(error: GatewayError) -> None:
    one = play(health(), "ok")
    play(one, error, now=1.0)
    assert (one.suspected, one.errand_at) == (True, 1.0)
    assert not play(one, "ok", now=1.0).suspected


@pytest.mark.parametrize(("at", "look_at"), [(0.0, CONFIRM), (CONFIRM, CONFIRM), (1.0, 1.0)])
def test_a_server_that_closes_an_idle_connection_is_looked_after_soon(at: float, look_at: float) -> None:
    one = play(health(), "ok")
    one.deserted(at)
    assert (one.suspected, one.errand_at) == (True, look_at)


def test_a_server_that_is_out_already_is_not_looked_after_any_sooner() -> None:
    gone = play(health(), REFUSED)
    gone.deserted(9.0)
    assert not gone.suspected


def test_a_500_calls_for_no_look() -> None:
    one = play(health(), "ok", BROKEN)
    assert (one.suspected, one.errand_at) == (False, 2.0)


def test_a_backend_that_is_down_with_work_under_way_is_looked_at_again() -> None:
    one = play(health(), REFUSED)
    play(one, "busy", now=1.0)
    assert (one.state(1.0), one.errand_at) == ("down", 3.0)


def test_a_good_answer_of_a_steady_backend_changes_nothing_but_the_count() -> None:
    one = health()
    before = repr(one)
    play(one, None, None)
    assert (one.tries, repr(one), one.steady) == (2, before, True)


def test_the_repr_tells_what_is_counted() -> None:
    assert repr(sick()) == "<Health sick (upstream_5xx) misses=0 strikes=0>"
    assert repr(play(health(), BROKEN, RESET)) == "<Health up misses=1 strikes=1>"


# --- any row of events -----------------------------------------------------------------------------

CLIENTS = [
    BadRequest(""),
    UnsupportedParameter(""),
    ContextExceeded(""),
    ClientGone(""),
    Unauthorized("wrong"),
]
ERRORS = [
    REFUSED,
    SILENT,
    RESET,
    BROKEN,
    UpstreamTruncated(""),
    UpstreamGarbled(""),
    FirstTokenTimeout(""),
    UpstreamRejected(""),
    UpstreamBusy(""),
    UpstreamBusy("", retry_after=7),
    *CLIENTS,
    None,
]
Step: TypeAlias = Callable[[BackendHealth, float, float], None]


def tries(errors: list[GatewayError | None]) -> st.SearchStrategy[Step]:
    def step(error: GatewayError | None, request: int | None) -> Step:
        return lambda one, now, chance: one.tried(error, now, chance, request)

    return st.builds(step, st.sampled_from(errors), st.none() | st.integers(0, 4))


def probes(ends: tuple[Probe, ...]) -> st.SearchStrategy[Step]:
    def step(end: Probe) -> Step:
        return lambda one, now, chance: one.probed(end, now, chance)

    return st.builds(step, st.sampled_from(ends))


def trials() -> st.SearchStrategy[Step]:
    def step(error: GatewayError | None) -> Step:
        return lambda one, now, chance: one.trialled(error, now, chance)

    return st.builds(step, st.sampled_from(ERRORS))


def rows(*steps: st.SearchStrategy[Step]) -> st.SearchStrategy[list[tuple[Step, float, float]]]:
    chance = st.floats(0, 1, exclude_max=True)
    return st.lists(st.tuples(st.one_of(*steps), st.floats(0, 20), chance), max_size=40)


ANYTHING = rows(tries(ERRORS), probes(PROBES), trials())
RULES = st.builds(
    HealthRules,
    fall=st.integers(1, 5),
    rise=st.integers(1, 4),
    slow_start=st.sampled_from([0.0, 3.0, 10.0]),
    interval=st.sampled_from([None, 0.1, 2.0, 30.0]),
)


def run(one: BackendHealth, row: list[tuple[Step, float, float]]) -> float:
    """Apply a sequence of events, each some seconds after the previous one. Return the time of the last."""
    now = 0.0
    for step, seconds, chance in row:
        now += seconds
        step(one, now, chance)
        check_verdicts(one, now)
    return now


def check_verdicts(one: BackendHealth, now: float) -> None:
    slots, usable, state = one.slots_now(now), one.usable(now), one.state(now)
    assert state in STATES
    assert usable == (state not in ("down", "sick"))
    assert 0 <= slots <= 4
    assert slots > 0 or state in ("paused", "down", "sick")
    assert state != "half_open" or slots == 1
    assert 0 < one.share(now) <= 1
    change = one.next_change(now)
    assert change is None or change > now


@given(RULES, ANYTHING)
def test_verdicts_agree_with_each_other_whatever_happens(
    rules: HealthRules, row: list[tuple[Step, float, float]]
) -> None:
    run(BackendHealth(4, rules), row)


@given(RULES, ANYTHING)
def test_every_backend_comes_back_once_it_is_well(
    rules: HealthRules, row: list[tuple[Step, float, float]]
) -> None:
    one = BackendHealth(4, rules)
    now = run(one, row)
    began = now
    period = rules.interval or LONGEST_REST
    for _ in range(200):
        if one.state(now) == "up" and one.slots_now(now) == 4:
            break
        now = max(now + 0.01, comeback(one, now, rules))
    assert (one.state(now), one.slots_now(now)) == ("up", 4)
    wait = max(period, LONGEST_PAUSE) + rules.rise * (period + CONFIRM) + rules.slow_start
    assert now - began <= wait + 2.0


def comeback(one: BackendHealth, now: float, rules: HealthRules) -> float:
    """Let the errand and a user's request succeed. Return the time at which something can happen next."""
    if rules.interval is not None and one.errand_at <= now:
        if one.errand() == "trial":
            one.trialled(None, now, 0.5)
        else:
            one.probed("ok", now, 0.5)
    if one.usable(now) and one.slots_now(now):
        one.tried(None, now, 0.5)
    times = [one.next_change(now), one.errand_at if rules.interval is not None else None]
    return min([at for at in times if at is not None and at > now], default=now + 1.0)


@given(RULES, rows(probes(("busy", "ok"))))
def test_a_busy_backend_never_goes_out_by_probes(
    rules: HealthRules, row: list[tuple[Step, float, float]]
) -> None:
    one = BackendHealth(4, rules)
    now = run(one, row)
    assert one.state(now) == "up"


@given(RULES, rows(tries([*CLIENTS, UpstreamRejected(""), None]), probes(("busy", "ok"))))
def test_clients_errors_never_count(rules: HealthRules, row: list[tuple[Step, float, float]]) -> None:
    one = BackendHealth(4, rules)
    now = run(one, row)
    assert (one.state(now), one.slots_now(now), one.steady) == ("up", 4, True)


@given(RULES, ANYTHING, st.floats(0, 20), st.floats(0, 1, exclude_max=True))
def test_refused_is_dead_at_once_whatever_was_before(
    rules: HealthRules, row: list[tuple[Step, float, float]], seconds: float, chance: float
) -> None:
    one = BackendHealth(4, rules)
    now = run(one, row) + seconds
    one.tried(REFUSED, now, chance)
    assert not one.usable(now)


def test_repeated_sendings_are_one_miss_less_than_put_it_out_and_have_it_looked_at() -> None:
    one = health()
    one.probed("ok", 0.0, 0.0)
    for _ in range(10):
        one.repeated(1.0)
    assert (one.usable(1.0), one.suspected, one.steady, one.tries) == (True, True, False, 10)
    assert one.errand_at == 1.0
    one.probed("failed", 1.0, 0.0)
    assert not one.usable(1.0)


def test_repeated_sendings_are_wiped_out_by_an_answer_and_never_put_out_who_falls_at_once() -> None:
    one = health(rules=HealthRules(fall=1))
    one.repeated(1.0)
    assert one.usable(1.0)
    one = health()
    for _ in range(3):
        one.repeated(1.0)
    one.tried(None, 2.0, 0.0)
    one.tried(RESET, 2.0, 0.0)
    one.tried(RESET, 2.0, 0.0)
    assert one.usable(2.0)
    one.repeated(2.0)
    one.probed("failed", 2.0, 0.0)
    assert not one.usable(2.0)
