"""Metrics count what receipts contain, read states at scrape time, and clients cannot add series."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.dialects.shared.losses import NAMES
from gateway.errors import TABLE
from gateway.formats.events import Usage
from gateway.telemetry.comparison import ComparedAnswer, Comparison
from gateway.telemetry.metrics.exporter import (
    BATCH,
    CONTENT_TYPE,
    MOST_KINDS,
    OUTCOMES,
    REJECTIONS,
    Metrics,
    ServiceState,
)
from gateway.telemetry.metrics.families import FAMILIES, REPAIRS
from gateway.telemetry.receipt import AttemptRecord, CanaryRecord, Receipt

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

ODD = ["", "m" * 5000, "a\nb", 'quo"te', "\ud800", "\udfff tail", "\x00", "模型", "{}", "\\", "+Inf"]


class Present:
    """A `LiveState` whose values are set by the test."""

    def __init__(self) -> None:
        self.depths: dict[str, int] = {}
        self.busy: dict[str, int] = {}
        self.down: set[str] = set()
        self.lingering: dict[str, int] = {}
        self.at_once: dict[str, int] = {}

    def queue_depth(self, model: str) -> int:
        return self.depths.get(model, 0)

    def in_flight(self, backend: str) -> int:
        return self.busy.get(backend, 0)

    def up(self, backend: str) -> bool:
        return backend not in self.down

    def health(self, backend: str) -> str:
        return "sick" if backend in self.down else "up"

    def zombies(self, backend: str) -> int:
        return self.lingering.get(backend, 0)


CARDS = ServiceState(members=3, left_out=1, result="ok", answered_at=1e9)


def metrics(
    live: Present | None = None,
    registry: CollectorRegistry | None = None,
    services: Callable[[], Mapping[str, ServiceState]] = lambda: {"cards": CARDS},
    models: Sequence[str] = ("chatglm2-6b", "智谱"),
) -> Metrics:
    return Metrics(
        models=models,
        backends={"gpu-0": 1, "gpu-1": 8},
        live=live or Present(),
        version="1.2.3",
        registry=registry,
        services=services,
    )


def receipt(**values: Any) -> Receipt:
    """A streamed answer of 11 tokens: 1 s in the queue, first token at 2 s, last at 4 s, end at 4.5 s."""
    told: dict[str, Any] = {
        "request_id": "r-1",
        "door": "chat",
        "received": 100.0,
        "model": "chatglm2-6b",
        "stream": True,
        "status": 200,
        "outcome": "ok",
        "backend": "gpu-0",
        "attempts": [AttemptRecord("gpu-0", "ok", 3.0)],
        "queue_seconds": 1.0,
        "granted": 101.0,
        "first_token": 102.0,
        "last_token": 104.0,
        "finished": 104.5,
        "upstream_seconds": 3.25,
        "usage": Usage(7, 11, "backend"),
    }
    return Receipt(**(told | values))


def samples(of: Metrics) -> Samples:
    body, _ = of.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(of: Metrics, name: str, **labels: str) -> float | None:
    return samples(of).get((name, frozenset(labels.items())))


def present(of: Metrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return all series of a sample name that are not 0, by their sorted labels."""
    return {
        tuple(sorted(labels)): number
        for (known, labels), number in samples(of).items()
        if known == name and number
    }


def test_a_request_is_counted_once_under_all_its_labels() -> None:
    seen = metrics()
    seen.settled(receipt())
    labels = {"door": "chat", "model": "chatglm2-6b", "stream": "true", "status": "200", "outcome": "ok"}
    assert value(seen, "gateway_requests_total", **labels) == 1
    assert len(present(seen, "gateway_requests_total")) == 1


@pytest.mark.parametrize("many", [1, BATCH - 1, BATCH, 3 * BATCH + 1])
def test_a_scrape_sees_every_request_that_is_over_and_few_wait_for_it(many: int) -> None:
    seen = metrics()
    for _ in range(many):
        seen.settled(receipt())
        assert len(vars(seen)["_settled"]) < BATCH
    for _ in range(2):
        assert sum(present(seen, "gateway_requests_total").values()) == many


def test_a_request_lasts_from_its_receipt_to_its_end() -> None:
    seen = metrics()
    seen.settled(receipt(stream=False))
    labels = {"door": "chat", "model": "chatglm2-6b", "stream": "false"}
    assert value(seen, "gateway_request_duration_seconds_sum", **labels) == 4.5
    assert value(seen, "gateway_request_duration_seconds_bucket", le="5.0", **labels) == 1
    assert value(seen, "gateway_request_duration_seconds_bucket", le="2.5", **labels) == 0


def test_the_overhead_is_what_neither_queue_nor_backend_took() -> None:
    seen = metrics()
    seen.settled(receipt())
    assert value(seen, "gateway_overhead_seconds_sum", door="chat") == 0.25


def test_an_overhead_below_nothing_counts_as_nothing() -> None:
    seen = metrics()
    seen.settled(receipt(upstream_seconds=9.0))
    assert value(seen, "gateway_overhead_seconds_sum", door="chat") == 0
    assert value(seen, "gateway_overhead_seconds_count", door="chat") == 1


def test_the_first_token_is_timed_from_the_receipt_with_the_queue() -> None:
    seen = metrics()
    seen.settled(receipt())
    labels = {"model": "chatglm2-6b", "backend": "gpu-0"}
    assert value(seen, "gateway_time_to_first_token_seconds_sum", **labels) == 2.0


def test_the_time_per_token_is_the_mean_of_the_gaps_between_tokens() -> None:
    seen = metrics()
    seen.settled(receipt())
    labels = {"model": "chatglm2-6b", "backend": "gpu-0"}
    assert value(seen, "gateway_time_per_output_token_seconds_sum", **labels) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"last_token": 102.0}, id="answer-came-at-once"),
        pytest.param({"usage": Usage(7, 1, "backend")}, id="one-token"),
        pytest.param({"usage": None}, id="nobody-counted"),
        pytest.param({"first_token": None, "last_token": None}, id="no-token"),
    ],
)
def test_no_time_per_token_is_told_where_there_is_none(values: Mapping[str, Any]) -> None:
    seen = metrics()
    seen.settled(receipt(**values))
    assert present(seen, "gateway_time_per_output_token_seconds_count") == {}


def test_tokens_are_counted_by_direction_and_by_who_counted_them() -> None:
    seen = metrics()
    seen.settled(receipt())
    seen.settled(receipt(usage=Usage(5, 6, "estimate")))
    labels = {"model": "chatglm2-6b", "backend": "gpu-0"}
    assert value(seen, "gateway_tokens_total", token_type="input", source="backend", **labels) == 7
    assert value(seen, "gateway_tokens_total", token_type="output", source="backend", **labels) == 11
    assert value(seen, "gateway_tokens_total", token_type="input", source="estimate", **labels) == 5
    assert value(seen, "gateway_tokens_total", token_type="output", source="estimate", **labels) == 6


def test_a_backends_negative_count_is_taken_for_nothing() -> None:
    seen = metrics()
    seen.settled(receipt(usage=Usage(-3, -8, "backend")))
    assert present(seen, "gateway_tokens_total") == {}


@pytest.mark.parametrize(
    "count", [10**400, 10**5000, float("nan"), float("inf"), True, 100_000_001], ids=range(6)
)
def test_a_nonsense_count_is_taken_for_nothing_and_a_scrape_still_works(count: Any) -> None:
    seen = metrics()
    seen.settled(receipt(usage=Usage(count, count, "backend")))
    seen.settled(receipt())
    labels = {"model": "chatglm2-6b", "backend": "gpu-0", "source": "backend"}
    assert value(seen, "gateway_tokens_total", token_type="input", **labels) == 7
    assert b"gateway_tokens_total" in seen.render()[0]


def test_every_try_is_counted_on_its_own_backend_and_every_retry_on_the_model() -> None:
    seen = metrics()
    tries = [AttemptRecord("gpu-1", "connect", 0.5), AttemptRecord("gpu-0", "ok", 3.0)]
    seen.settled(receipt(attempts=tries, retries=["connect"]))
    assert value(seen, "gateway_backend_requests_total", backend="gpu-1", outcome="connect") == 1
    assert value(seen, "gateway_backend_requests_total", backend="gpu-0", outcome="ok") == 1
    assert value(seen, "gateway_backend_duration_seconds_sum", backend="gpu-1", outcome="connect") == 0.5
    assert value(seen, "gateway_retries_total", model="chatglm2-6b", reason="connect") == 1


@pytest.mark.parametrize("phase", ["queued", "before_first", "streaming"])
def test_a_client_that_leaves_is_counted_by_where_it_left(phase: str) -> None:
    seen = metrics()
    seen.settled(receipt(left_while=phase, status=499, outcome="client_gone"))
    assert present(seen, "gateway_client_disconnects_total") == {(("phase", phase),): 1}


def test_ignored_parameters_and_repairs_are_counted_one_by_one() -> None:
    seen = metrics()
    seen.settled(receipt(ignored=("seed", "logprobs"), repairs=["no_finish", "no_finish"]))
    assert value(seen, "gateway_ignored_params_total", param="seed", backend="gpu-0") == 1
    assert value(seen, "gateway_ignored_params_total", param="logprobs", backend="gpu-0") == 1
    assert value(seen, "gateway_repairs_total", backend="gpu-0", repair="no_finish") == 2


def test_a_granted_ticket_has_a_wait_and_no_refusal() -> None:
    seen = metrics()
    seen.queue_wait("chatglm2-6b", "granted", 1.5)
    labels = {"model": "chatglm2-6b", "outcome": "granted"}
    assert value(seen, "gateway_queue_wait_seconds_sum", **labels) == 1.5
    assert present(seen, "gateway_queue_rejected_total") == {}


@pytest.mark.parametrize("outcome", sorted(REJECTIONS))
def test_a_refused_ticket_has_a_wait_and_a_reason(outcome: str) -> None:
    seen = metrics()
    seen.queue_wait("chatglm2-6b", outcome, 60.0)
    assert value(seen, "gateway_queue_wait_seconds_sum", model="chatglm2-6b", outcome=outcome) == 60.0
    assert value(seen, "gateway_queue_rejected_total", model="chatglm2-6b", reason=outcome) == 1


def test_a_client_that_leaves_the_queue_was_not_refused() -> None:
    seen = metrics()
    seen.queue_wait("chatglm2-6b", "left", 2.0)
    assert value(seen, "gateway_queue_wait_seconds_count", model="chatglm2-6b", outcome="left") == 1
    assert present(seen, "gateway_queue_rejected_total") == {}


def test_refused_keys_are_counted_by_reason() -> None:
    seen = metrics()
    for reason in ("missing", "wrong", "wrong", "expired"):
        seen.auth_failed(reason)
    assert present(seen, "gateway_auth_failures_total") == {
        (("reason", "missing"),): 1,
        (("reason", "wrong"),): 2,
        (("reason", "expired"),): 1,
    }


def test_the_lag_of_the_loop_is_a_histogram_and_never_below_nothing() -> None:
    seen = metrics()
    seen.observe_lag(0.02)
    seen.observe_lag(-0.001)
    assert value(seen, "gateway_event_loop_lag_seconds_count") == 2
    assert value(seen, "gateway_event_loop_lag_seconds_sum") == 0.02


def test_states_are_read_when_somebody_scrapes() -> None:
    live = Present()
    seen = metrics(live)
    live.depths, live.busy, live.lingering, live.down = {"智谱": 3}, {"gpu-1": 5}, {"gpu-1": 2}, {"gpu-0"}
    seen.backend_changed("gpu-0", False, "refused")
    assert value(seen, "gateway_queue_depth", model="智谱") == 3
    assert value(seen, "gateway_queue_depth", model="chatglm2-6b") == 0
    assert value(seen, "gateway_backend_inflight", backend="gpu-1") == 5
    assert value(seen, "gateway_backend_zombies", backend="gpu-1") == 2
    assert value(seen, "gateway_backend_slots", backend="gpu-1") == 8
    assert value(seen, "gateway_backend_up", backend="gpu-0") == 0
    assert value(seen, "gateway_backend_up", backend="gpu-1") == 1
    assert value(seen, "gateway_backend_state", backend="gpu-0", state="sick") == 1
    assert value(seen, "gateway_backend_state", backend="gpu-0", state="up") == 0
    live.down = set()
    assert value(seen, "gateway_backend_up", backend="gpu-0") == 1
    assert value(seen, "gateway_backend_state", backend="gpu-0", state="up") == 1


def test_ejections_and_probes_are_counted_by_their_words() -> None:
    seen = metrics()
    assert value(seen, "gateway_backend_ejections_total", backend="gpu-0", reason="refused") == 0
    seen.backend_changed("gpu-0", False, "refused")
    seen.backend_changed("gpu-0", True, "probed")
    for end in ("ok", "ok", "trial_failed", "a word nobody knows"):
        seen.probed("gpu-0", end)
    assert value(seen, "gateway_backend_ejections_total", backend="gpu-0", reason="refused") == 1
    assert value(seen, "gateway_backend_probes_total", backend="gpu-0", result="ok") == 2
    assert value(seen, "gateway_backend_probes_total", backend="gpu-0", result="trial_failed") == 1
    assert value(seen, "gateway_backend_probes_total", backend="gpu-0", result="other") == 1


def test_services_are_told_with_how_dns_was_asked() -> None:
    services = {"cards": CARDS}
    seen = metrics(services=lambda: services)
    for result in ("ok", "ok", "timeout", "a word nobody knows"):
        seen.looked_up("cards", result)
    seen.looked_up("a name nobody knows", "ok")
    counted = "gateway_discovery_lookups_total"
    assert value(seen, counted, service="cards", result="ok") == 2
    assert value(seen, counted, service="cards", result="timeout") == 1
    assert value(seen, counted, service="cards", result="nxdomain") == 0
    assert value(seen, counted, service="cards", result="other") == 1
    assert value(seen, counted, service="other", result="ok") == 1
    assert value(seen, "gateway_discovery_members", service="cards") == 3
    assert value(seen, "gateway_discovery_left_out", service="cards") == 1
    assert value(seen, "gateway_discovery_last_success_timestamp_seconds", service="cards") == 1e9
    services.clear()
    assert value(seen, "gateway_discovery_members", service="cards") is None


@pytest.mark.parametrize(
    ("canary", "answered", "fallbacks"),
    [
        pytest.param(CanaryRecord("智谱", "taken"), "智谱", 0, id="canary-is-no-fallback"),
        pytest.param(CanaryRecord("智谱", "returned"), "", 0, id="given-back"),
        pytest.param(CanaryRecord("智谱", "taken"), "chatglm2-6b", 1, id="a-fallback-behind-it"),
        pytest.param(CanaryRecord("智谱", "unfit"), "", 0, id="unfit"),
    ],
)
def test_a_request_that_fell_to_a_canary_is_counted_by_what_became_of_it(
    canary: CanaryRecord, answered: str, fallbacks: int
) -> None:
    seen = metrics()
    seen.settled(receipt(canary=canary, answered=answered))
    labels = {"model": "chatglm2-6b", "canary": "智谱", "result": canary.result, "outcome": "ok"}
    assert value(seen, "gateway_canary_requests_total", **labels) == 1
    assert sum(present(seen, "gateway_fallbacks_total").values()) == fallbacks
    tokens = {"model": answered or "chatglm2-6b", "backend": "gpu-0", "token_type": "output"}
    assert value(seen, "gateway_tokens_total", **tokens, source="backend") == 11


SIDE = ComparedAnswer("gpu-0", "ok", "stop", 100, 0.5, 2.0)


@pytest.mark.parametrize(
    ("copy", "same_text", "compared"),
    [
        pytest.param(SIDE, True, {"outcome": "same", "finish": "same", "text": "same"}, id="same"),
        pytest.param(
            replace(SIDE, finish="length"),
            False,
            {"outcome": "same", "finish": "different", "text": "different"},
            id="different",
        ),
        pytest.param(SIDE, None, {"outcome": "same", "finish": "same"}, id="illegible"),
        pytest.param(replace(SIDE, outcome="stall"), None, {"outcome": "different"}, id="failed"),
    ],
)
def test_a_copy_is_counted_by_what_it_has_in_common_with_the_answer(
    copy: ComparedAnswer, same_text: bool | None, compared: dict[str, str]
) -> None:
    seen = metrics()
    seen.shadowed(Comparison("r", "chatglm2-6b", "智谱", SIDE, copy, same_text))
    pair = {"model": "chatglm2-6b", "shadow": "智谱"}
    assert value(seen, "gateway_shadow_copies_total", **pair, outcome=copy.outcome) == 1
    found = {
        dict(labels)["what"]: dict(labels)["result"]
        for labels in present(seen, "gateway_shadow_compared_total")
    }
    assert found == compared
    whole = int(copy.outcome == "ok")
    for side in ("caller", "copy"):
        for name, sum_ in (
            ("duration_seconds", 2.0),
            ("first_token_seconds", 0.5),
            ("answer_characters", 100),
        ):
            found_sum = value(seen, f"gateway_shadow_{name}_sum", **pair, side=side)
            assert (found_sum or 0) == sum_ * whole
    assert present(seen, "gateway_requests_total") == present(seen, "gateway_tokens_total") == {}


def test_a_copy_that_was_not_made_is_counted_by_its_reason() -> None:
    seen = metrics()
    seen.shadow_skipped("chatglm2-6b", "智谱", "busy")
    labels = {"model": "chatglm2-6b", "shadow": "智谱", "reason": "busy"}
    assert value(seen, "gateway_shadow_skipped_total", **labels) == 1


def test_the_build_says_its_version() -> None:
    labels = next(iter(present(metrics(), "gateway_build_info")))
    assert dict(labels)["version"] == "1.2.3"


def test_exactly_the_families_of_the_table_are_rendered_each_with_its_help_and_kind() -> None:
    text = metrics().render()[0].decode()
    for family in FAMILIES:
        assert f"# HELP {family.name} {family.help}\n" in text
        assert f"# TYPE {family.name} {family.kind}\n" in text
    rendered = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE gateway_")]
    assert sorted(rendered) == sorted(family.name for family in FAMILIES)


def test_labels_of_rendered_series_are_those_of_the_table() -> None:
    seen = metrics()
    touch_everything(seen, "chatglm2-6b")
    labels = {family.name: set(family.labels) for family in FAMILIES}
    found = {
        family.name + ("_total" if family.type == "counter" else ""): {*sample.labels} - {"le"}
        for family in text_string_to_metric_families(seen.render()[0].decode())
        if family.name.startswith("gateway_")
        for sample in family.samples
    }
    assert found == labels


def test_the_process_itself_is_told_of() -> None:
    assert (value(metrics(), "process_resident_memory_bytes") or 0) > 0


def test_no_created_samples_are_rendered() -> None:
    seen = metrics()
    touch_everything(seen, "chatglm2-6b")
    assert b"_created" not in seen.render()[0]


def test_the_content_type_is_the_plain_text_every_scraper_reads() -> None:
    assert metrics().render()[1] == CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_series_that_alerts_need_are_there_from_the_start_with_zero() -> None:
    seen = metrics()
    assert value(seen, "gateway_auth_failures_total", reason="wrong") == 0
    assert value(seen, "gateway_client_disconnects_total", phase="streaming") == 0
    assert value(seen, "gateway_queue_rejected_total", model="智谱", reason="queue_full") == 0
    assert value(seen, "gateway_backend_requests_total", backend="gpu-1", outcome="ok") == 0


def test_every_outcome_of_the_error_table_has_its_own_label() -> None:
    seen = metrics()
    for row in TABLE.values():
        seen.settled(receipt(status=row.status, outcome=row.outcome))
    outcomes = {dict(labels)["outcome"] for labels in present(seen, "gateway_requests_total")}
    assert outcomes == OUTCOMES - {"ok"}


def test_two_gateways_in_one_process_do_not_share_anything() -> None:
    first, second = metrics(), metrics()
    first.auth_failed("wrong")
    assert value(second, "gateway_auth_failures_total", reason="wrong") == 0


def test_a_registry_takes_one_set_of_metrics() -> None:
    registry = CollectorRegistry()
    metrics(registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics(registry=registry)


# --- labels are closed sets ------------------------------------------------------------------------


def odd_words(count: int) -> Iterator[str]:
    for number in range(count):
        yield ODD[number % len(ODD)] + str(number)


def touch_everything(seen: Metrics, word: str) -> None:
    """Put one word into every place from which a label is made."""
    odd: Any = word
    seen.settled(
        receipt(
            door=odd,
            model=word,
            backend=word,
            outcome=word,
            status=1_000_000,
            attempts=[AttemptRecord(word, word, 1.0)],
            retries=[word],
            usage=Usage(3, 4, odd),
            ignored=(word,),
            repairs=[word],
            left_while=odd,
            answered=word,
        )
    )
    seen.settled(receipt(canary=CanaryRecord(word, odd)))
    side = ComparedAnswer(word, word, word, 7, 0.1, 0.2)
    for outcome in (word, "ok"):
        one = replace(side, outcome=outcome)
        seen.shadowed(Comparison(word, word, word, one, one, same_text=True))
    seen.shadow_skipped(word, word, odd)
    seen.queue_wait(word, word, 1.0)
    seen.queue_wait(word, "queue_full", 1.0)
    seen.auth_failed(word)
    seen.backend_changed(word, False, word)
    seen.probed(word, word)
    seen.looked_up(word, word)


def test_ten_thousand_odd_names_make_no_series_of_their_own() -> None:
    seen = metrics()
    touch_everything(seen, "the first unknown name")
    before = samples(seen).keys()
    for word in odd_words(10_000):
        touch_everything(seen, word)
    assert samples(seen).keys() == before
    assert value(
        seen, "gateway_tokens_total", model="other", backend="other", token_type="input", source="other"
    )


def test_a_lone_surrogate_does_not_break_the_scrape() -> None:
    seen = metrics()
    touch_everything(seen, "\ud800")
    body, _ = seen.render()
    assert b'model="other"' in body


def test_known_names_keep_their_own_labels() -> None:
    seen = metrics()
    seen.settled(receipt(ignored=tuple(NAMES), repairs=list(REPAIRS), model="智谱"))
    params = {dict(labels)["param"] for labels in present(seen, "gateway_ignored_params_total")}
    repairs = {dict(labels)["repair"] for labels in present(seen, "gateway_repairs_total")}
    assert params == NAMES
    assert repairs == REPAIRS


def test_its_repr_tells_how_much_it_watches() -> None:
    assert repr(metrics()) == "<Metrics models=2 backends=2>"


def test_requests_that_did_not_wait_are_counted_when_somebody_looks() -> None:
    present = Present()
    seen = metrics(present)
    labels = {"model": "chatglm2-6b", "outcome": "granted"}
    for times in (2, 5):
        present.at_once["chatglm2-6b"] = times
        seen.render()
        assert value(seen, "gateway_queue_wait_seconds_count", **labels) == times
        assert value(seen, "gateway_queue_wait_seconds_sum", **labels) == 0


def test_a_model_that_a_reload_brings_counts_under_its_name_from_then_on() -> None:
    counting = metrics()
    counting.settled(receipt(model="new", backend="gpu-2"))
    counting.reconfigure(["new"], {"gpu-2": 1})
    counting.settled(receipt(model="new", backend="gpu-2"))
    labels = {"door": "chat", "stream": "true", "status": "200", "outcome": "ok"}
    assert value(counting, "gateway_requests_total", model="other", **labels) == 1
    assert value(counting, "gateway_requests_total", model="new", **labels) == 1


def test_the_kinds_of_request_that_are_remembered_are_bounded() -> None:
    counting = metrics()
    for number in range(MOST_KINDS + 100):
        counting.settled(receipt(model=f"m{number}"))
    labels = {"door": "chat", "model": "other", "stream": "true", "status": "200", "outcome": "ok"}
    assert value(counting, "gateway_requests_total", **labels) == MOST_KINDS + 100
    assert len(counting._kinds) <= MOST_KINDS


def test_what_was_prepared_can_be_written_in_a_thread_while_series_are_added() -> None:
    names = [f"m{number}" for number in range(300)]
    seen = metrics(models=names)
    seen.prepare()
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(seen.write)
        for name in names:
            seen.settled(receipt(model=name))
        text = writing.result(30)[0]
    assert text.count(b"gateway_queue_depth{") == 300


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_afterwards_as_it_was(collecting: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        metrics().render()
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_the_memory_of_requests_is_told_with_its_budget() -> None:
    class Budget:
        used, limit, waiting = 5_000, 8_000_000, 3

    told = Metrics(models=["m"], backends={}, live=Present(), version="1", memory=Budget())
    lines = told.render()[0].decode().splitlines()
    assert "gateway_request_memory_bytes 5000.0" in lines
    assert "gateway_request_memory_limit_bytes 8e+06" in lines
    assert "gateway_request_memory_waiting 3.0" in lines
