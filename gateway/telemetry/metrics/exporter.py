"""Counts events and renders `/metrics`. Only this module and `counters` import prometheus_client.

`Metrics` is a `Hook`. It counts finished requests in the plain counters of `counters`, because Prometheus'
client takes a lock and four calls for each event. States such as queue lengths and busy slots are not
stored here; they are read at scrape time.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.dialects.shared.losses import NAMES as PARAMETERS
from gateway.errors import TABLE, Draining, NoBackend, QueueFull, QueueTimeout
from gateway.formats import token_counts
from gateway.formats.events import UsageSource
from gateway.scheduling.endpoints import RESULTS
from gateway.scheduling.health_states import PROBES, REASONS, STATES
from gateway.telemetry.comparison import ComparedAnswer, Comparison, Skip
from gateway.telemetry.logs.writer import NOTHING_LOST, Loss
from gateway.telemetry.metrics.counters import (
    CounterCell,
    CounterRow,
    CounterTable,
    Labels,
    LengthHistogram,
    exported,
)
from gateway.telemetry.metrics.families import (
    BY_NAME,
    CANARY_RESULTS,
    FAMILIES,
    OTHER,
    REFUSALS,
    RELOADS,
    REPAIRS,
    SKIPS,
)
from gateway.telemetry.receipt import AttemptRecord, CanaryRecord, Door, Phase, Receipt

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of `Metrics.render`. The metric names need no later version of the format, and every
scraper reads this one."""

OUTCOMES = frozenset({"ok", *(row.outcome for row in TABLE.values())})
"""The possible outcomes of a request or an attempt."""

REJECTIONS = frozenset(TABLE[error].outcome for error in (QueueFull, QueueTimeout, NoBackend, Draining))
"""The possible outcomes of a refused ticket."""

BATCH = 64
"""Number of finished requests that are collected before they are counted."""

MOST_KINDS = 1024
"""Maximum number of request kinds whose series are cached."""

_WAIT_ENDS = REJECTIONS | {"granted", "left"}
_AUTH_REASONS = frozenset({"missing", "wrong", "expired"})
_DOORS = frozenset(get_args(Door))
_PHASES = frozenset(get_args(Phase))
_SOURCES = frozenset(get_args(UsageSource))
_MEMORY = ("bytes", "limit_bytes", "waiting")
_STREAM = ("false", "true")
_SAME = ("different", "same")
_PROBE_ENDS = frozenset({*PROBES, "trial_ok", "trial_failed"})
_STATUSES = {status: str(status) for status in range(100, 600)}


class ServiceState(NamedTuple):
    """The state of a service whose servers come from DNS.

    `members` is the number of its backends, and `left_out` the number of servers beyond the allowed
    maximum. `result` is the result of the last query. `answered_at` is the time of the last successful
    query, in Unix seconds.
    """

    members: int
    left_out: int
    result: str
    answered_at: float


class LiveState(Protocol):
    """The current state, read from the dispatcher at scrape time, for configured names only."""

    @property
    def at_once(self) -> Mapping[str, int]:
        """How many requests of each model got a slot without waiting."""

    def queue_depth(self, model: str) -> int:
        """Return how many requests wait for the model."""

    def in_flight(self, backend: str) -> int:
        """Return how many slots are taken, including zombies."""

    def up(self, backend: str) -> bool:
        """Return True if requests may be sent to the backend."""

    def health(self, backend: str) -> str:
        """Return the state of the backend: a word of `scheduling.health_states.State`."""

    def zombies(self, backend: str) -> int:
        """Return how many slots are held by generations that no client waits for."""


class Budget(Protocol):
    """The memory budget of requests, in bytes."""

    used: int
    limit: int

    @property
    def waiting(self) -> int:
        """How many requests wait for memory."""


class Metrics:
    """The gateway's metrics in one registry (a new one by default). A `Hook`; one per gateway.

    `models` are the configured names. `backends` maps names to slots. `services` returns the state of the
    services in DNS. `lost_lines` returns how many log lines were lost. `memory` is the memory budget of
    requests. All names that are not configured count as "other".
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        models: Collection[str],
        backends: Mapping[str, int],
        live: LiveState,
        version: str,
        services: Callable[[], Mapping[str, ServiceState]] = dict,
        lost_lines: Callable[[], Mapping[Loss, int]] = lambda: NOTHING_LOST,
        memory: Budget | None = None,
    ) -> None:
        registry = self._registry = registry or CollectorRegistry()
        self._models = frozenset(models)
        self._backends = frozenset(backends)
        self._settled: list[Receipt] = []
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        ProcessCollector(registry=registry)
        self._states = _States(models, backends, live, version, services, memory)
        registry.register(self._states)
        self._services = services
        self._live = live
        self._at_once: dict[str, int] = {}
        self._lost_lines = lost_lines
        tallies: list[CounterTable | LengthHistogram] = []
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
        self._lost = _counters(tallies, "gateway_log_lines_lost_total")
        self._lag = _histograms(tallies, "gateway_event_loop_lag_seconds")
        self._reloads = _counters(tallies, "gateway_config_reloads_total")
        self._start_at_zero()
        registry.register(_CounterCollector(tallies))

    def _start_at_zero(self) -> None:
        # increase() and rate() do not see the first event of a series that did not exist before.
        self._auth_failures.make((reason,) for reason in _AUTH_REASONS)
        self._refusals.make((reason,) for reason in REFUSALS)
        self._disconnects.make((phase,) for phase in _PHASES)
        self._rejections.make((model, reason) for model in self._models for reason in REJECTIONS)
        self._tries.make((backend, "ok") for backend in self._backends)
        self._ejections.make((backend, "refused") for backend in self._backends)
        self._reloads.make((result,) for result in RELOADS)
        self._lost.make((reason,) for reason in NOTHING_LOST)

    def reconfigure(self, models: Collection[str], backends: Mapping[str, int]) -> None:
        """Show these models and backends from now on. Series of other names are kept and may still grow."""
        self._count_settled()
        self._kinds.clear()  # a name that was "other" may be configured now
        self._models |= frozenset(models)
        self._backends |= frozenset(backends)
        self._states.reconfigure(models, backends)
        self._start_at_zero()

    # --- Hook --------------------------------------------------------------------------------------

    def settled(self, receipt: Receipt) -> None:
        """Record a finished request for the next batch. Counting in batches takes a third of the time."""
        self._settled.append(receipt)
        if len(self._settled) >= BATCH:
            self._count_settled()

    def _count_settled(self) -> None:
        receipts, self._settled = self._settled, []
        for receipt in receipts:
            self._count(receipt)

    def _count(self, receipt: Receipt) -> None:
        first, last, usage = receipt.first_token, receipt.last_token, receipt.usage
        kind = (
            receipt.door, receipt.model, receipt.stream, receipt.status, receipt.outcome, receipt.backend,
            receipt.answered, None if usage is None else usage.source,
        )  # fmt: skip
        series = self._kinds.get(kind) or self._make_kind(kind, receipt)
        # Dialects check token counts. If a wrong value gets here anyway, it must not spoil the counters.
        if usage is not None and not token_counts.both_plausible(usage.prompt, usage.completion):
            usage = None
        seconds = receipt.seconds
        own = seconds - receipt.queue_seconds - receipt.upstream_seconds
        series.requests.value += 1
        series.durations.observe(seconds)
        series.overhead.observe(own if own > 0 else 0.0)
        for attempt in receipt.attempts:
            self._count_try(attempt)
        if first is not None:
            self._first_token.row(series.answering).observe(first - receipt.received)
            # An answer that arrived as a whole does not show how long one token took.
            if last is not None and last > first and usage is not None and usage.completion > 1:
                self._per_token.row(series.answering).observe((last - first) / (usage.completion - 1))
        if usage is not None and series.tokens is not None:
            series.tokens[0].value += usage.prompt
            series.tokens[1].value += usage.completion
        if receipt.retries or receipt.answered or receipt.canary or receipt.left_while:
            self._count_detours(receipt, series)
        for param in receipt.ignored:
            self._ignored.add(_known(param, PARAMETERS), series.answering[1])
        for repair in receipt.repairs:
            self._repairs.add(series.answering[1], _known(repair, REPAIRS))

    def _make_kind(self, kind: tuple[object, ...], receipt: Receipt) -> _Kind:
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        door, asked = _known(receipt.door, _DOORS), _known(receipt.model, self._models)
        stream, outcome = _STREAM[receipt.stream], _known(receipt.outcome, OUTCOMES)
        model = _known(receipt.answered, self._models) if receipt.answered else asked
        backend = _known(receipt.backend, self._backends)
        tokens = None
        if receipt.usage is not None:
            source = _known(receipt.usage.source, _SOURCES)
            tokens = (
                self._tokens.cell((model, backend, "input", source)),
                self._tokens.cell((model, backend, "output", source)),
            )
        status = _STATUSES.get(receipt.status, OTHER)
        series = self._kinds[kind] = _Kind(
            asked=asked,
            answering=(model, backend),
            requests=self._requests.cell((door, asked, stream, status, outcome)),
            durations=self._durations.row((door, asked, stream)),
            overhead=self._overhead.row((door,)),
            tokens=tokens,
        )
        return series

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Count the end of one ticket."""
        model = model if model in self._models else OTHER
        end = outcome if outcome in _WAIT_ENDS else OTHER
        self._queue_waits.row((model, end)).observe(seconds)
        if end in REJECTIONS:
            self._rejections.add(model, end)

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Count a backend that went out of service; `LiveState` provides its current state."""
        if not up:
            self._ejections.add(_known(backend, self._backends), _known(reason, REASONS))

    def auth_failed(self, reason: str) -> None:
        """Count one refused key."""
        self._auth_failures.add(_known(reason, _AUTH_REASONS))

    # --- Observer ----------------------------------------------------------------------------------

    def shadowed(self, comparison: Comparison) -> None:
        """Count one copy, and what it has in common with the caller's answer."""
        caller, mine = comparison.caller, comparison.copy
        pair = _known(comparison.model, self._models), _known(comparison.shadow, self._models)
        self._copies.add(*pair, _known(mine.outcome, OUTCOMES))
        self._compared.add(*pair, "outcome", _SAME[caller.outcome == mine.outcome])
        if not comparison.both_answered:
            return
        self._compared.add(*pair, "finish", _SAME[caller.finish == mine.finish])
        if comparison.same_text is not None:
            self._compared.add(*pair, "text", _SAME[comparison.same_text])
        self._measure((*pair, "caller"), caller)
        self._measure((*pair, "copy"), mine)

    def _measure(self, labels: Labels, side: ComparedAnswer) -> None:
        if side.first_token is not None:
            self._shadow_first.row(labels).observe(side.first_token)
        self._shadow_durations.row(labels).observe(side.seconds)
        self._shadow_characters.row(labels).observe(side.characters)

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        """Count one copy that was not made or not completed."""
        self._skipped.add(_known(model, self._models), _known(shadow, self._models), _known(reason, SKIPS))

    # --- what is not a Hook's ----------------------------------------------------------------------

    def probed(self, backend: str, end: str) -> None:
        """Count one probe or trial."""
        self._probes.add(_known(backend, self._backends), _known(end, _PROBE_ENDS))

    def looked_up(self, service: str, result: str) -> None:
        """Count one DNS query for the servers of a service."""
        service = _known(service, frozenset(self._services()))
        self._lookups.make((service, one) for one in RESULTS)
        self._lookups.add(service, _known(result, frozenset(RESULTS)))

    def client_refused(self, reason: str) -> None:
        """Count one client that was refused or disconnected before its request reached a door."""
        self._refusals.add(_known(reason, REFUSALS))

    def configured(self, digest: str, now: float) -> None:
        """Record that the configuration with this digest is in force since `now`, in Unix seconds."""
        self._states.config = digest, now

    def reloaded(self, result: str) -> None:
        """Count one reload; `result` is a word of `RELOADS`."""
        self._reloads.add(_known(result, RELOADS))

    def observe_lag(self, seconds: float) -> None:
        """Record how many seconds later than requested the event loop woke up."""
        self._lag.row(()).observe(max(0.0, seconds))

    def render(self) -> tuple[bytes, str]:
        """Return the text for a scraper and its content type."""
        self.prepare()
        return self.write()

    def prepare(self) -> None:
        """Read the current state. This is fast and must run in the event loop."""
        self._count_settled()
        self._count_at_once()
        for reason, lines in self._lost_lines().items():
            self._lost.cell((reason,)).value = lines
        self._states.prepare()

    def write(self) -> tuple[bytes, str]:
        """Return the text of the prepared state and its content type.

        With thousands of series this takes half a second, so it may run in a thread, one call at a time.
        """
        # The garbage collector would scan all samples repeatedly, and the event loop would wait for it.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return generate_latest(self._registry), CONTENT_TYPE
        finally:
            if collecting:
                gc.enable()

    def _count_at_once(self) -> None:
        for model, times in self._live.at_once.items():
            if new := times - self._at_once.get(model, 0):
                self._at_once[model] = times
                self._queue_waits.row((_known(model, self._models), "granted")).observe(0.0, times=new)

    # --- parts of settled --------------------------------------------------------------------------

    def _count_try(self, attempt: AttemptRecord) -> None:
        labels = (
            attempt.backend if attempt.backend in self._backends else OTHER,
            attempt.outcome if attempt.outcome in OUTCOMES else OTHER,
        )
        self._tries.cell(labels).value += 1
        self._try_durations.row(labels).observe(attempt.seconds)

    def _count_detours(self, receipt: Receipt, series: _Kind) -> None:
        """Count retries, fallbacks, the canary, and a client that disconnected."""
        asked = series.asked
        for reason in receipt.retries:
            self._retries.add(asked, _known(reason, OUTCOMES))
        canary = receipt.canary
        if canary is not None:
            self._count_canary(receipt, canary, asked)
        if receipt.answered and (canary is None or canary.model != receipt.answered):
            self._fallbacks.add(asked, series.answering[0])
        if receipt.left_while is not None:
            self._disconnects.add(_known(receipt.left_while, _PHASES))

    def _count_canary(self, receipt: Receipt, canary: CanaryRecord, model: str) -> None:
        result = _known(canary.result, CANARY_RESULTS)
        outcome = _known(receipt.outcome, OUTCOMES)
        self._canaries.add(model, _known(canary.model, self._models), result, outcome)

    def __repr__(self) -> str:
        return f"<Metrics models={len(self._models)} backends={len(self._backends)}>"


class _Kind(NamedTuple):
    """The series in which requests of one kind are counted, so that they are looked up only once.

    `asked` is the model that was asked for; `answering` is the model and the backend that answered.
    """

    asked: str
    answering: tuple[str, str]
    requests: CounterCell
    durations: CounterRow
    overhead: CounterRow
    tokens: tuple[CounterCell, CounterCell] | None


def _known(name: str, allowed: frozenset[str]) -> str:
    return name if name in allowed else OTHER


def _counters(tallies: list[CounterTable | LengthHistogram], name: str) -> CounterTable:
    counts = CounterTable(name)
    tallies.append(counts)
    return counts


def _histograms(tallies: list[CounterTable | LengthHistogram], name: str) -> LengthHistogram:
    lengths = LengthHistogram(name)
    tallies.append(lengths)
    return lengths


class _CounterCollector(Collector):
    """Passes the counters and histograms to Prometheus' client."""

    def __init__(self, tallies: Collection[CounterTable | LengthHistogram]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        return (tally.written() for tally in self._tallies)


class _States(Collector):
    """The gauges. Their values are read from `LiveState` at scrape time and written in a thread."""

    def __init__(
        self,
        models: Collection[str],
        backends: Mapping[str, int],
        live: LiveState,
        version: str,
        services: Callable[[], Mapping[str, ServiceState]],
        memory: Budget | None,
    ) -> None:
        self._live = live
        self._memory = memory
        self._held = (0, 0, 0)
        self._services = services
        self._build = (version, platform.python_version())
        self.config = ("", 0.0)
        self._queues: list[tuple[Labels, float]] = []
        self._states: dict[str, str] = {}
        self._slots: list[tuple[str, bool, int, int, int]] = []
        self._found: dict[str, ServiceState] = {}
        self.reconfigure(models, backends)

    def reconfigure(self, models: Collection[str], backends: Mapping[str, int]) -> None:
        """Show these models and backends from now on."""
        self._models = tuple(models)
        self._backends = dict(backends)

    def describe(self) -> Iterator[Metric]:
        """Return the families without series, so that the registry refuses a duplicate name."""
        return (_gauge(family.name, ()) for family in FAMILIES if family.kind == "gauge")

    def prepare(self) -> None:
        """Read all values that a scrape shows."""
        live, backends = self._live, self._backends
        self._queues = [((name,), live.queue_depth(name)) for name in self._models]
        self._states = {name: live.health(name) for name in backends}
        self._slots = [
            (name, live.up(name), live.in_flight(name), slots, live.zombies(name))
            for name, slots in backends.items()
        ]
        self._found = dict(self._services())
        if (memory := self._memory) is not None:
            self._held = memory.used, memory.limit, memory.waiting

    def collect(self) -> Iterator[Metric]:
        """Yield the prepared values."""
        yield _gauge("gateway_queue_depth", self._queues)
        states, services = self._states, self._found
        yield _gauge("gateway_backend_up", [((name,), up) for name, up, *_ in self._slots])
        yield _gauge(
            "gateway_backend_state",
            [((name, word), state == word) for name, state in states.items() for word in STATES],
        )
        yield _gauge("gateway_backend_inflight", [((one[0],), one[2]) for one in self._slots])
        yield _gauge("gateway_backend_slots", [((one[0],), one[3]) for one in self._slots])
        yield _gauge("gateway_backend_zombies", [((one[0],), one[4]) for one in self._slots])
        yield _gauge("gateway_discovery_members", [((name,), s.members) for name, s in services.items()])
        yield _gauge("gateway_discovery_left_out", [((name,), s.left_out) for name, s in services.items()])
        yield _gauge(
            "gateway_discovery_last_success_timestamp_seconds",
            [((name,), s.answered_at) for name, s in services.items()],
        )
        for name, value in zip(_MEMORY, self._held, strict=True):
            yield _gauge(f"gateway_request_memory_{name}", [((), value)])
        digest, since = self.config
        yield _gauge("gateway_config_info", [((digest,), 1)])
        yield _gauge("gateway_config_last_success_timestamp_seconds", [((), since)])
        yield _gauge("gateway_build_info", [(self._build, 1)])


def _gauge(name: str, series: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = BY_NAME[name]
    gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in series:
        gauge.add_metric(labels, exported(value))
    return gauge
