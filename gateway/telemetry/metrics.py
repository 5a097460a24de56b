"""Prometheus metrics; the only file that knows Prometheus.

`Metrics` is a `Hook`: what is counted is counted once a request is over, in plain numbers of our own that
become Prometheus' when somebody scrapes: its client takes a lock and four calls for each. What is a state
(queues, slots) is not kept here at all: it is read at the scrape.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple, Protocol, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.dialects.losses import NAMES as PARAMETERS
from gateway.errors import TABLE, Draining, NoBackend, QueueFull, QueueTimeout
from gateway.scheduling.health import PROBES, REASONS, STATES
from gateway.scheduling.roster import RESULTS
from gateway.telemetry.comparison import Comparison, Side, Skip
from gateway.telemetry.families import (
    BY_NAME,
    CANARY_RESULTS,
    FAMILIES,
    OTHER,
    REFUSALS,
    RELOADS,
    REPAIRS,
    SKIPS,
)
from gateway.telemetry.receipt import Canary, Door, Phase, Receipt
from gateway.wire.events import Usage, UsageSource

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `Metrics.render`. Our names need nothing of the later versions, and every scraper reads this one."""

OUTCOMES = frozenset({"ok", *(row.outcome for row in TABLE.values())})
"""How a request or a try can end."""

REJECTIONS = frozenset(TABLE[error].outcome for error in (QueueFull, QueueTimeout, NoBackend, Draining))
"""Why a ticket can be refused."""

BATCH = 64
"""Requests that may wait to be counted."""

_WAIT_ENDS = REJECTIONS | {"granted", "left"}
_AUTH_REASONS = frozenset({"missing", "wrong", "expired"})
_DOORS = frozenset(get_args(Door))
_PHASES = frozenset(get_args(Phase))
_SOURCES = frozenset(get_args(UsageSource))
_STREAM = ("false", "true")
_SAME = ("different", "same")
_PROBE_ENDS = frozenset({*PROBES, "trial_ok", "trial_failed"})
_STATUSES = {status: str(status) for status in range(100, 600)}

Labels = tuple[str, ...]
"""The labels of one series, in the order of the table."""


class Service(NamedTuple):
    """How a service is, whose servers DNS names: backends there are, and servers beyond what may be.

    `result` is how the last asking ended, `answered_at` when it last did well, in Unix seconds.
    """

    members: int
    left_out: int
    result: str
    answered_at: float


class Live(Protocol):
    """The present, as the dispatcher knows it; asked at scrape time for configured names only."""

    @property
    def at_once(self) -> Mapping[str, int]:
        """How many requests of each model have been granted a slot without a wait."""

    def queue_depth(self, model: str) -> int:
        """Tickets that wait for the model."""

    def in_flight(self, backend: str) -> int:
        """Slots taken, zombies included."""

    def up(self, backend: str) -> bool:
        """Whether the backend may be asked."""

    def health(self, backend: str) -> str:
        """How the backend is: a word of `scheduling.health.State`."""

    def zombies(self, backend: str) -> int:
        """Slots held by generations that nobody waits for."""


class Metrics:
    """The gateway's metrics over one registry (a new one unless given). A `Hook`; one per gateway.

    `models` are the configured names; `backends` maps names to slots; `services` tells of those that DNS is
    asked for. All other names count as "other".
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        models: Collection[str],
        backends: Mapping[str, int],
        live: Live,
        version: str,
        services: Callable[[], Mapping[str, Service]] = dict,
    ) -> None:
        registry = self._registry = registry or CollectorRegistry()
        self._models = frozenset(models)
        self._backends = frozenset(backends)
        self._settled: list[Receipt] = []
        ProcessCollector(registry=registry)
        self._states = _States(models, backends, live, version, services)
        registry.register(self._states)
        self._services = services
        self._live = live
        self._at_once: dict[str, int] = {}
        tallies: list[_Counts | _Lengths] = []
        self._requests = _counters(tallies, "gateway_requests_total")
        self._durations = _histograms(tallies, "gateway_request_duration_seconds")
        self._first_token = _histograms(tallies, "gateway_time_to_first_token_seconds")
        self._per_token = _histograms(tallies, "gateway_time_per_output_token_seconds")
        self._overhead = _histograms(tallies, "gateway_overhead_seconds")
        self._tokens = _counters(tallies, "gateway_tokens_total")
        self._queue_waits = _histograms(tallies, "gateway_queue_wait_seconds")
        self._rejections = _counters(tallies, "gateway_queue_rejected_total")
        self._tries = _counters(tallies, "gateway_backend_requests_total")
        self._try_durations = _histograms(tallies, "gateway_backend_duration_seconds")
        self._ejections = _counters(tallies, "gateway_backend_ejections_total")
        self._probes = _counters(tallies, "gateway_backend_probes_total")
        self._retries = _counters(tallies, "gateway_retries_total")
        self._fallbacks = _counters(tallies, "gateway_fallbacks_total")
        self._canaries = _counters(tallies, "gateway_canary_requests_total")
        self._copies = _counters(tallies, "gateway_shadow_copies_total")
        self._skipped = _counters(tallies, "gateway_shadow_skipped_total")
        self._compared = _counters(tallies, "gateway_shadow_compared_total")
        self._shadow_first = _histograms(tallies, "gateway_shadow_first_token_seconds")
        self._shadow_durations = _histograms(tallies, "gateway_shadow_duration_seconds")
        self._shadow_characters = _histograms(tallies, "gateway_shadow_answer_characters")
        self._auth_failures = _counters(tallies, "gateway_auth_failures_total")
        self._refusals = _counters(tallies, "gateway_client_refusals_total")
        self._disconnects = _counters(tallies, "gateway_client_disconnects_total")
        self._ignored = _counters(tallies, "gateway_ignored_params_total")
        self._repairs = _counters(tallies, "gateway_repairs_total")
        self._lookups = _counters(tallies, "gateway_discovery_lookups_total")
        self._lag = _histograms(tallies, "gateway_event_loop_lag_seconds")
        self._reloads = _counters(tallies, "gateway_config_reloads_total")
        self._start_at_zero()
        registry.register(_Tallies(tallies))

    def _start_at_zero(self) -> None:
        # increase() and rate() do not see the first event of a series that was not there before it.
        self._auth_failures.make((reason,) for reason in _AUTH_REASONS)
        self._refusals.make((reason,) for reason in REFUSALS)
        self._disconnects.make((phase,) for phase in _PHASES)
        self._rejections.make((model, reason) for model in self._models for reason in REJECTIONS)
        self._tries.make((backend, "ok") for backend in self._backends)
        self._ejections.make((backend, "refused") for backend in self._backends)
        self._reloads.make((result,) for result in RELOADS)

    def reconfigure(self, models: Collection[str], backends: Mapping[str, int]) -> None:
        """Show these from now on. What was counted under other names stays, and may still grow."""
        self._count_settled()
        self._models |= frozenset(models)
        self._backends |= frozenset(backends)
        self._states.reconfigure(models, backends)
        self._start_at_zero()

    # --- Hook --------------------------------------------------------------------------------------

    def settled(self, receipt: Receipt) -> None:
        """Count one request, soon: many in a row are counted in a third of the time that each takes alone."""
        self._settled.append(receipt)
        if len(self._settled) >= BATCH:
            self._count_settled()

    def _count_settled(self) -> None:
        receipts, self._settled = self._settled, []
        for receipt in receipts:
            self._count(receipt)

    def _count(self, receipt: Receipt) -> None:
        model = receipt.model if receipt.model in self._models else OTHER
        backend = receipt.backend if receipt.backend in self._backends else OTHER
        self._count_request(receipt, model)
        self._count_tries(receipt, model)
        if receipt.canary is not None:
            self._count_canary(receipt, receipt.canary, model)
        if receipt.answered:
            asked, model = model, _known(receipt.answered, self._models)
            if receipt.canary is None or receipt.canary.model != receipt.answered:
                self._fallbacks[asked, model] += 1
        if receipt.first_token is not None:
            self._time_tokens(receipt, receipt.first_token, model, backend)
        if receipt.usage is not None:
            self._count_tokens(receipt.usage, model, backend)
        if receipt.left_while is not None:
            self._disconnects[(_known(receipt.left_while, _PHASES),)] += 1
        for param in receipt.ignored:
            self._ignored[_known(param, PARAMETERS), backend] += 1
        for repair in receipt.repairs:
            self._repairs[backend, _known(repair, REPAIRS)] += 1

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Count one ticket."""
        model = model if model in self._models else OTHER
        end = outcome if outcome in _WAIT_ENDS else OTHER
        self._queue_waits.observe((model, end), seconds)
        if end in REJECTIONS:
            self._rejections[model, end] += 1

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Count a backend that went out; how it is now a scrape asks `Live` itself."""
        if not up:
            self._ejections[_known(backend, self._backends), _known(reason, REASONS)] += 1

    def auth_failed(self, reason: str) -> None:
        """Count one refused key."""
        self._auth_failures[(_known(reason, _AUTH_REASONS),)] += 1

    # --- Observer ----------------------------------------------------------------------------------

    def shadowed(self, comparison: Comparison) -> None:
        """Count one copy and what it has in common with the caller's answer."""
        caller, mine = comparison.caller, comparison.copy
        pair = _known(comparison.model, self._models), _known(comparison.shadow, self._models)
        self._copies[*pair, _known(mine.outcome, OUTCOMES)] += 1
        self._compared[*pair, "outcome", _SAME[caller.outcome == mine.outcome]] += 1
        if not comparison.both_answered:
            return
        self._compared[*pair, "finish", _SAME[caller.finish == mine.finish]] += 1
        if comparison.same_text is not None:
            self._compared[*pair, "text", _SAME[comparison.same_text]] += 1
        self._measure((*pair, "caller"), caller)
        self._measure((*pair, "copy"), mine)

    def _measure(self, labels: Labels, side: Side) -> None:
        if side.first_token is not None:
            self._shadow_first.observe(labels, side.first_token)
        self._shadow_durations.observe(labels, side.seconds)
        self._shadow_characters.observe(labels, side.characters)

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Count one copy that was not made."""
        self._skipped[_known(model, self._models), _known(shadow, self._models), _known(reason, SKIPS)] += 1

    # --- what is not a Hook's ----------------------------------------------------------------------

    def probed(self, backend: str, end: str) -> None:
        """Count one probe or trial."""
        self._probes[_known(backend, self._backends), _known(end, _PROBE_ENDS)] += 1

    def looked_up(self, service: str, result: str) -> None:
        """Count one time that DNS was asked for the servers of a service."""
        service = _known(service, frozenset(self._services()))
        self._lookups.make((service, one) for one in RESULTS)
        self._lookups[service, _known(result, frozenset(RESULTS))] += 1

    def client_refused(self, reason: str) -> None:
        """Count one client that was turned away, or cut off, below the doors."""
        self._refusals[(_known(reason, REFUSALS),)] += 1

    def configured(self, digest: str, now: float) -> None:
        """Take note of the configuration that is in force since `now`, in Unix seconds."""
        self._states.config = digest, now

    def reloaded(self, result: str) -> None:
        """Count one reload: a word of `RELOADS`."""
        self._reloads[(_known(result, RELOADS),)] += 1

    def observe_lag(self, seconds: float) -> None:
        """Take one measurement: how much later than asked the event loop woke up."""
        self._lag.observe((), max(0.0, seconds))

    def render(self) -> tuple[bytes, str]:
        """Give the text for a scraper and its content type."""
        self._count_settled()
        self._count_at_once()
        return generate_latest(self._registry), CONTENT_TYPE

    def _count_at_once(self) -> None:
        for model, times in self._live.at_once.items():
            if new := times - self._at_once.get(model, 0):
                self._at_once[model] = times
                self._queue_waits.observe((_known(model, self._models), "granted"), 0.0, times=new)

    # --- parts of settled --------------------------------------------------------------------------

    def _count_request(self, receipt: Receipt, model: str) -> None:
        door = receipt.door if receipt.door in _DOORS else OTHER
        outcome = receipt.outcome if receipt.outcome in OUTCOMES else OTHER
        stream = _STREAM[receipt.stream]
        status = _STATUSES.get(receipt.status, OTHER)
        seconds = receipt.seconds
        self._requests[door, model, stream, status, outcome] += 1
        self._durations.observe((door, model, stream), seconds)
        own = seconds - receipt.queue_seconds - receipt.upstream_seconds
        self._overhead.observe((door,), own if own > 0 else 0.0)

    def _count_canary(self, receipt: Receipt, canary: Canary, model: str) -> None:
        result = _known(canary.result, CANARY_RESULTS)
        outcome = _known(receipt.outcome, OUTCOMES)
        self._canaries[model, _known(canary.model, self._models), result, outcome] += 1

    def _count_tries(self, receipt: Receipt, model: str) -> None:
        for attempt in receipt.attempts:
            labels = (
                attempt.backend if attempt.backend in self._backends else OTHER,
                attempt.outcome if attempt.outcome in OUTCOMES else OTHER,
            )
            self._tries[labels] += 1
            self._try_durations.observe(labels, attempt.seconds)
        for reason in receipt.retries:
            self._retries[model, _known(reason, OUTCOMES)] += 1

    def _time_tokens(self, receipt: Receipt, first: float, model: str, backend: str) -> None:
        last, usage = receipt.last_token, receipt.usage
        self._first_token.observe((model, backend), first - receipt.received)
        # Of an answer that came at once there is no telling how long a token took.
        if last is not None and last > first and usage is not None and usage.completion > 1:
            self._per_token.observe((model, backend), (last - first) / (usage.completion - 1))

    def _count_tokens(self, usage: Usage, model: str, backend: str) -> None:
        source = usage.source if usage.source in _SOURCES else OTHER
        # A backend's own count may be nonsense, and a counter never becomes less.
        self._tokens[model, backend, "input", source] += max(0, usage.prompt)
        self._tokens[model, backend, "output", source] += max(0, usage.completion)

    def __repr__(self) -> str:
        return f"<Metrics models={len(self._models)} backends={len(self._backends)}>"


def _known(name: str, allowed: frozenset[str]) -> str:
    return name if name in allowed else OTHER


class _Counts(defaultdict[Labels, float]):
    """A family of counters: the values of its series by their labels."""

    def __init__(self, name: str) -> None:
        super().__init__(int)
        self.family = BY_NAME[name]
        if not self.family.labels:
            self[()] = 0

    def make(self, series: Iterable[Labels]) -> None:
        """Make these series now, with the value 0 where they are new."""
        for labels in series:
            self.setdefault(labels, 0)

    def written(self) -> Metric:
        """The family as a scrape shows it."""
        family = self.family
        written = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for labels, value in self.items():
            written.add_metric(labels, value)
        return written


class _Lengths:
    """A family of histograms: how often a length fell into each bucket, and their sum, by labels."""

    def __init__(self, name: str) -> None:
        self.family = BY_NAME[name]
        self._bounds = self.family.buckets
        self._names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        self._rows: dict[Labels, list[float]] = {}  # how many in each bucket, and the sum at the end
        if not self.family.labels:
            self._make(())

    def _make(self, labels: Labels) -> list[float]:
        row = self._rows[labels] = [*([0] * len(self._names)), 0.0]
        return row

    def observe(self, labels: Labels, length: float, times: int = 1) -> None:
        """Count a length, in the family's unit, once or several times."""
        row = self._rows.get(labels) or self._make(labels)
        row[bisect_left(self._bounds, length)] += times
        row[-1] += length * times

    def written(self) -> Metric:
        """The family as a scrape shows it."""
        family = self.family
        written = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, (*counts, total) in self._rows.items():
            buckets = list(zip(self._names, accumulate(counts), strict=True))
            written.add_metric(labels, buckets, total)
        return written


def _counters(tallies: list[_Counts | _Lengths], name: str) -> _Counts:
    counts = _Counts(name)
    tallies.append(counts)
    return counts


def _histograms(tallies: list[_Counts | _Lengths], name: str) -> _Lengths:
    lengths = _Lengths(name)
    tallies.append(lengths)
    return lengths


class _Tallies(Collector):
    """What was counted, as Prometheus' client reads it."""

    def __init__(self, tallies: Collection[_Counts | _Lengths]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        return (tally.written() for tally in self._tallies)


class _States(Collector):
    """The gauges: asked of `Live` at scrape time, so that nothing has to be kept in step."""

    def __init__(
        self,
        models: Collection[str],
        backends: Mapping[str, int],
        live: Live,
        version: str,
        services: Callable[[], Mapping[str, Service]],
    ) -> None:
        self._live = live
        self._services = services
        self._build = (version, platform.python_version())
        self.config = ("", 0.0)
        self.reconfigure(models, backends)

    def reconfigure(self, models: Collection[str], backends: Mapping[str, int]) -> None:
        """Show these from now on."""
        self._models = tuple(models)
        self._backends = dict(backends)

    def describe(self) -> Iterator[Metric]:
        """Name the families, so that the registry refuses a second one of the same name."""
        return (_gauge(family.name, ()) for family in FAMILIES if family.kind == "gauge")

    def collect(self) -> Iterator[Metric]:
        live, backends = self._live, self._backends
        yield _gauge("gateway_queue_depth", [((name,), live.queue_depth(name)) for name in self._models])
        yield _gauge("gateway_backend_up", [((name,), live.up(name)) for name in backends])
        states = {name: live.health(name) for name in backends}
        yield _gauge(
            "gateway_backend_state",
            [((name, word), states[name] == word) for name in backends for word in STATES],
        )
        yield _gauge("gateway_backend_inflight", [((name,), live.in_flight(name)) for name in backends])
        yield _gauge("gateway_backend_slots", [((name,), slots) for name, slots in backends.items()])
        yield _gauge("gateway_backend_zombies", [((name,), live.zombies(name)) for name in backends])
        services = self._services()
        yield _gauge("gateway_discovery_members", [((name,), s.members) for name, s in services.items()])
        yield _gauge("gateway_discovery_left_out", [((name,), s.left_out) for name, s in services.items()])
        yield _gauge(
            "gateway_discovery_last_success_timestamp_seconds",
            [((name,), s.answered_at) for name, s in services.items()],
        )
        digest, since = self.config
        yield _gauge("gateway_config_info", [((digest,), 1)])
        yield _gauge("gateway_config_last_success_timestamp_seconds", [((), since)])
        yield _gauge("gateway_build_info", [(self._build, 1)])


def _gauge(name: str, series: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = BY_NAME[name]
    gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in series:
        gauge.add_metric(labels, value)
    return gauge
