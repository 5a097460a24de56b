"""Prometheus metrics; the only file that knows Prometheus.

`Metrics` is a `Hook`: what is counted is counted when a request is over, by a few look-ups of series that
are made once. What is a state (queues, slots) is not kept here at all: it is read when somebody scrapes.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.dialects.losses import NAMES as PARAMETERS
from gateway.errors import TABLE, Draining, NoBackend, QueueFull, QueueTimeout
from gateway.scheduling.health import PROBES, REASONS, STATES
from gateway.telemetry.families import BY_NAME, FAMILIES, OTHER, REFUSALS, REPAIRS
from gateway.telemetry.receipt import Door, Phase, Receipt
from gateway.wire.events import Usage, UsageSource

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `Metrics.render`. Our names need nothing of the later versions, and every scraper reads this one."""

OUTCOMES = frozenset({"ok", *(row.outcome for row in TABLE.values())})
"""How a request or a try can end."""

REJECTIONS = frozenset(TABLE[error].outcome for error in (QueueFull, QueueTimeout, NoBackend, Draining))
"""Why a ticket can be refused."""

_WAIT_ENDS = REJECTIONS | {"granted", "left"}
_AUTH_REASONS = frozenset({"missing", "wrong", "expired"})
_DOORS = frozenset(get_args(Door))
_PHASES = frozenset(get_args(Phase))
_SOURCES = frozenset(get_args(UsageSource))
_STREAM = ("false", "true")
_PROBE_ENDS = frozenset({*PROBES, "trial_ok", "trial_failed"})

Child = TypeVar("Child", bound=MetricWrapperBase)


class Live(Protocol):
    """The present, as the dispatcher knows it; asked at scrape time for configured names only."""

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

    `models` are the configured names; `backends` maps names to slots. All other names count as "other".
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        models: Collection[str],
        backends: Mapping[str, int],
        live: Live,
        version: str,
    ) -> None:
        registry = self._registry = registry or CollectorRegistry()
        self._models = frozenset(models)
        self._backends = frozenset(backends)
        ProcessCollector(registry=registry)
        registry.register(_States(models, backends, live, version))
        self._requests = _counters(registry, "gateway_requests_total")
        self._durations = _histograms(registry, "gateway_request_duration_seconds")
        self._first_token = _histograms(registry, "gateway_time_to_first_token_seconds")
        self._per_token = _histograms(registry, "gateway_time_per_output_token_seconds")
        self._overhead = _histograms(registry, "gateway_overhead_seconds")
        self._tokens = _counters(registry, "gateway_tokens_total")
        self._queue_waits = _histograms(registry, "gateway_queue_wait_seconds")
        self._rejections = _counters(registry, "gateway_queue_rejected_total")
        self._tries = _counters(registry, "gateway_backend_requests_total")
        self._try_durations = _histograms(registry, "gateway_backend_duration_seconds")
        self._ejections = _counters(registry, "gateway_backend_ejections_total")
        self._probes = _counters(registry, "gateway_backend_probes_total")
        self._retries = _counters(registry, "gateway_retries_total")
        self._auth_failures = _counters(registry, "gateway_auth_failures_total")
        self._refusals = _counters(registry, "gateway_client_refusals_total")
        self._disconnects = _counters(registry, "gateway_client_disconnects_total")
        self._ignored = _counters(registry, "gateway_ignored_params_total")
        self._repairs = _counters(registry, "gateway_repairs_total")
        self._lag = _histograms(registry, "gateway_event_loop_lag_seconds")
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        # increase() and rate() do not see the first event of a series that was not there before it.
        self._auth_failures.make((reason,) for reason in _AUTH_REASONS)
        self._refusals.make((reason,) for reason in REFUSALS)
        self._disconnects.make((phase,) for phase in _PHASES)
        self._rejections.make((model, reason) for model in self._models for reason in REJECTIONS)
        self._tries.make((backend, "ok") for backend in self._backends)
        self._ejections.make((backend, "refused") for backend in self._backends)

    # --- Hook --------------------------------------------------------------------------------------

    def settled(self, receipt: Receipt) -> None:
        """Count one request."""
        model = _known(receipt.model, self._models)
        backend = _known(receipt.backend, self._backends)
        self._count_request(receipt, model)
        self._count_tries(receipt, model)
        self._time_tokens(receipt, model, backend)
        if receipt.usage is not None:
            self._count_tokens(receipt.usage, model, backend)
        if receipt.left_while is not None:
            self._disconnects[(_known(receipt.left_while, _PHASES),)].inc()
        for param in receipt.ignored:
            self._ignored[_known(param, PARAMETERS), backend].inc()
        for repair in receipt.repairs:
            self._repairs[backend, _known(repair, REPAIRS)].inc()

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None:
        """Count one ticket."""
        model = _known(model, self._models)
        end = _known(outcome, _WAIT_ENDS)
        self._queue_waits[model, end].observe(seconds)
        if end in REJECTIONS:
            self._rejections[model, end].inc()

    def backend_changed(self, backend: str, up: bool, reason: str) -> None:
        """Count a backend that went out; how it is now a scrape asks `Live` itself."""
        if not up:
            self._ejections[_known(backend, self._backends), _known(reason, REASONS)].inc()

    def auth_failed(self, reason: str) -> None:
        """Count one refused key."""
        self._auth_failures[(_known(reason, _AUTH_REASONS),)].inc()

    # --- what is not a Hook's ----------------------------------------------------------------------

    def probed(self, backend: str, end: str) -> None:
        """Count one probe or trial."""
        self._probes[_known(backend, self._backends), _known(end, _PROBE_ENDS)].inc()

    def client_refused(self, reason: str) -> None:
        """Count one client that was turned away, or cut off, below the doors."""
        self._refusals[(_known(reason, REFUSALS),)].inc()

    def observe_lag(self, seconds: float) -> None:
        """Take one measurement: how much later than asked the event loop woke up."""
        self._lag[()].observe(max(0.0, seconds))

    def render(self) -> tuple[bytes, str]:
        """Give the text for a scraper and its content type."""
        return generate_latest(_Lean(self._registry)), CONTENT_TYPE

    # --- parts of settled --------------------------------------------------------------------------

    def _count_request(self, receipt: Receipt, model: str) -> None:
        door = _known(receipt.door, _DOORS)
        stream = _STREAM[receipt.stream]
        status = str(receipt.status) if 100 <= receipt.status <= 599 else OTHER
        self._requests[door, model, stream, status, _known(receipt.outcome, OUTCOMES)].inc()
        self._durations[door, model, stream].observe(receipt.seconds)
        own = receipt.seconds - receipt.queue_seconds - receipt.upstream_seconds
        self._overhead[(door,)].observe(max(0.0, own))

    def _count_tries(self, receipt: Receipt, model: str) -> None:
        for attempt in receipt.attempts:
            labels = _known(attempt.backend, self._backends), _known(attempt.outcome, OUTCOMES)
            self._tries[labels].inc()
            self._try_durations[labels].observe(attempt.seconds)
        for reason in receipt.retries:
            self._retries[model, _known(reason, OUTCOMES)].inc()

    def _time_tokens(self, receipt: Receipt, model: str, backend: str) -> None:
        first, last, usage = receipt.first_token, receipt.last_token, receipt.usage
        if first is None:
            return
        self._first_token[model, backend].observe(first - receipt.received)
        # Of an answer that came at once there is no telling how long a token took.
        if last is not None and last > first and usage is not None and usage.completion > 1:
            self._per_token[model, backend].observe((last - first) / (usage.completion - 1))

    def _count_tokens(self, usage: Usage, model: str, backend: str) -> None:
        source = _known(usage.source, _SOURCES)
        # A backend's own count may be nonsense, and a counter raises on less than nothing.
        self._tokens[model, backend, "input", source].inc(max(0, usage.prompt))
        self._tokens[model, backend, "output", source].inc(max(0, usage.completion))

    def __repr__(self) -> str:
        return f"<Metrics models={len(self._models)} backends={len(self._backends)}>"


def _known(name: str, allowed: frozenset[str]) -> str:
    return name if name in allowed else OTHER


class _Children(dict[tuple[str, ...], Child], Generic[Child]):
    """The series of one family by their label values, in the table's order; each is made once."""

    def __init__(self, family: Child, *, labelled: bool) -> None:
        super().__init__()
        self._family = family
        if not labelled:
            self[()] = family

    def __missing__(self, labels: tuple[str, ...]) -> Child:
        child = self[labels] = self._family.labels(*labels)
        return child

    def make(self, series: Iterable[tuple[str, ...]]) -> None:
        """Make these series now, with the value 0."""
        for labels in series:
            self[labels]


def _counters(registry: CollectorRegistry, name: str) -> _Children[Counter]:
    family = BY_NAME[name]
    counter = Counter(family.name, family.help, family.labels, registry=registry)
    return _Children(counter, labelled=bool(family.labels))


def _histograms(registry: CollectorRegistry, name: str) -> _Children[Histogram]:
    family = BY_NAME[name]
    histogram = Histogram(family.name, family.help, family.labels, registry=registry, buckets=family.buckets)
    return _Children(histogram, labelled=bool(family.labels))


class _States(Collector):
    """The gauges: asked of `Live` at scrape time, so that nothing has to be kept in step."""

    def __init__(
        self, models: Collection[str], backends: Mapping[str, int], live: Live, version: str
    ) -> None:
        self._models = tuple(models)
        self._backends = dict(backends)
        self._live = live
        self._build = (version, platform.python_version())

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
        yield _gauge("gateway_build_info", [(self._build, 1)])


def _gauge(name: str, series: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    family = BY_NAME[name]
    gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in series:
        gauge.add_metric(labels, value)
    return gauge


class _Lean(Collector):
    """A registry without its `_created` samples: one more line for each series, and of no use here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
