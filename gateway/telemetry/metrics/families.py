"""The metric families of the gateway as one immutable table, from which `exporter` and the docs are made.

Every label has a closed set of values; any other value becomes `OTHER`. So no request can create a new
series, and no text from a user reaches a label, where a lone surrogate would break the scrape.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from gateway.telemetry.comparison import Skip
from gateway.telemetry.receipt import CanaryResult

Kind: TypeAlias = Literal["counter", "histogram", "gauge"]

OTHER = "other"
"""The label value for everything that is not in the label's closed set."""

REPAIRS = frozenset(
    {"short_stream", "get_event", "missing_done", "no_finish", "no_stream", "no_tool_stream", "other_kind"}
    | {"unknown_finish"}
)
"""The faults of backends that the gateway repairs, by the words that the dialects use."""

REFUSALS = frozenset(
    {
        "bad_request",
        "headers_too_large",
        "no_memory",
        "out_of_descriptors",
        "request_timeout",
        "target_too_long",
        "too_many_connections",
        "unsupported_transfer_coding",
        "write_timeout",
    }
)
"""Why a client is refused or disconnected before its request reaches a door: error codes, `bad_request` for
errors without a code, and `write_timeout`, which cannot be reported to the client."""

RELOADS = frozenset({"ok", "unchanged", "invalid", "fixed"})
"""The results of a reload of config.toml: applied, no change, an invalid file, or a change that needs a
restart."""

CANARY_RESULTS = frozenset(get_args(CanaryResult))
"""The possible results of a request that was selected for a canary."""

SKIPS = frozenset(get_args(Skip))
"""The reasons for which a shadow copy is skipped."""

# Requests to a 6B model on one GPU can wait for minutes. A bucket boundary must not lie where most answers
# are.
LONG = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Buckets for whole requests, waits and first tokens, in seconds."""

PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
"""Buckets for one output token, in seconds."""

SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Buckets for short durations, in seconds: the gateway's own work, and the lag of the event loop."""

CHARACTERS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000)
"""Buckets for the lengths of answers, in characters."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. `help` is one sentence; `buckets` are the upper bounds of a histogram."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


FAMILIES: tuple[Family, ...] = (
    Family(
        "gateway_requests_total",
        "counter",
        ("door", "model", "stream", "status", "outcome"),
        "Finished requests; status 499 is a client that disconnected before its answer began.",
    ),
    Family(
        "gateway_request_duration_seconds",
        "histogram",
        ("door", "model", "stream"),
        "From the first byte of a request to the last byte of its answer.",
        LONG,
    ),
    Family(
        "gateway_time_to_first_token_seconds",
        "histogram",
        ("model", "backend"),
        "From the first byte of a request to the first content of its answer, the queue included.",
        LONG,
    ),
    Family(
        "gateway_time_per_output_token_seconds",
        "histogram",
        ("model", "backend"),
        "Mean time between two tokens of one answer; only answers that were streamed count.",
        PER_TOKEN,
    ),
    Family(
        "gateway_overhead_seconds",
        "histogram",
        ("door",),
        "The gateway's own time: a request's duration minus its waits in the queue and for backends.",
        SHORT,
    ),
    Family(
        "gateway_tokens_total",
        "counter",
        ("model", "backend", "token_type", "source"),
        "Tokens of prompts (input) and answers (output), by the source of the count.",
    ),
    Family("gateway_queue_depth", "gauge", ("model",), "Requests that are waiting for a slot."),
    Family(
        "gateway_queue_wait_seconds",
        "histogram",
        ("model", "outcome"),
        "How long requests waited for a slot, by what ended the wait: granted, left, or a refusal's outcome.",
        LONG,
    ),
    Family(
        "gateway_queue_rejected_total", "counter", ("model", "reason"), "Waiting requests that were refused."
    ),
    Family(
        "gateway_backend_up", "gauge", ("backend",), "1 while requests may be sent to the backend, else 0."
    ),
    Family(
        "gateway_backend_state",
        "gauge",
        ("backend", "state"),
        "1 for the state the backend is in, 0 for all others.",
    ),
    Family(
        "gateway_backend_ejections_total",
        "counter",
        ("backend", "reason"),
        "Times the backend went out of service.",
    ),
    Family(
        "gateway_backend_probes_total",
        "counter",
        ("backend", "result"),
        "Probes and trials of the backend, by result.",
    ),
    Family("gateway_backend_inflight", "gauge", ("backend",), "Slots that are taken, including zombies."),
    Family("gateway_backend_slots", "gauge", ("backend",), "Slots of the backend."),
    Family(
        "gateway_backend_zombies",
        "gauge",
        ("backend",),
        "Slots held by generations that no client waits for and that cannot be stopped.",
    ),
    Family("gateway_backend_requests_total", "counter", ("backend", "outcome"), "Attempts on the backend."),
    Family(
        "gateway_backend_duration_seconds",
        "histogram",
        ("backend", "outcome"),
        "Duration of one attempt on the backend.",
        LONG,
    ),
    Family(
        "gateway_retries_total",
        "counter",
        ("model", "reason"),
        "Retries, by the outcome of the previous attempt.",
    ),
    Family(
        "gateway_fallbacks_total",
        "counter",
        ("from", "to"),
        "Requests for which another model was the last to be asked; tokens count under that model's name.",
    ),
    Family(
        "gateway_canary_requests_total",
        "counter",
        ("model", "canary", "result", "outcome"),
        "Requests selected for a model's canary, by what the canary did with them and by outcome.",
    ),
    Family(
        "gateway_shadow_copies_total",
        "counter",
        ("model", "shadow", "outcome"),
        "Copies of a model's requests sent to its shadow; they count under no client, key or backend.",
    ),
    Family(
        "gateway_shadow_skipped_total",
        "counter",
        ("model", "shadow", "reason"),
        "Copies that were not made or not completed.",
    ),
    Family(
        "gateway_shadow_compared_total",
        "counter",
        ("model", "shadow", "what", "result"),
        "Answers of shadows compared with the callers' answers: outcome, finish reason, text.",
    ),
    Family(
        "gateway_shadow_first_token_seconds",
        "histogram",
        ("model", "shadow", "side"),
        "From the slot to the first content, for the caller's answer and its copy, if both are complete.",
        LONG,
    ),
    Family(
        "gateway_shadow_duration_seconds",
        "histogram",
        ("model", "shadow", "side"),
        "From the slot to the end of the answer, for both sides, if both are complete.",
        LONG,
    ),
    Family(
        "gateway_shadow_answer_characters",
        "histogram",
        ("model", "shadow", "side"),
        "Length of the answer, for both sides, if both are complete.",
        CHARACTERS,
    ),
    Family("gateway_auth_failures_total", "counter", ("reason",), "Refused keys: missing, wrong or expired."),
    Family(
        "gateway_client_refusals_total",
        "counter",
        ("reason",),
        "Clients refused or disconnected before the API: badly framed, too large, too slow, too many.",
    ),
    Family(
        "gateway_client_disconnects_total",
        "counter",
        ("phase",),
        "Clients that disconnected: queued, before the first content, or while streaming.",
    ),
    Family(
        "gateway_ignored_params_total",
        "counter",
        ("param", "backend"),
        "Parameters that a backend could not honour; each was reported in x-gateway-ignored.",
    ),
    Family(
        "gateway_repairs_total",
        "counter",
        ("backend", "repair"),
        "Faults of backends that the gateway repaired.",
    ),
    Family(
        "gateway_discovery_lookups_total",
        "counter",
        ("service", "result"),
        "DNS lookups for the servers of a backend with discover, by result.",
    ),
    Family(
        "gateway_discovery_members",
        "gauge",
        ("service",),
        "Backends for servers found in DNS; the last known ones while DNS does not answer.",
    ),
    Family(
        "gateway_discovery_left_out",
        "gauge",
        ("service",),
        "Servers found in DNS beyond max_discovered.",
    ),
    Family(
        "gateway_discovery_last_success_timestamp_seconds",
        "gauge",
        ("service",),
        "Time of the last successful DNS lookup, in Unix seconds; 0 if there was none.",
    ),
    Family(
        "gateway_event_loop_lag_seconds",
        "histogram",
        (),
        "How much later than requested the event loop woke up.",
        SHORT,
    ),
    Family(
        "gateway_log_lines_lost_total",
        "counter",
        ("reason",),
        "Log lines that were not written: their reader stopped (queue_full) or is gone (unwritable).",
    ),
    Family(
        "gateway_config_reloads_total",
        "counter",
        ("result",),
        "Reloads of the configuration: ok, unchanged, invalid, or fixed (needs a restart).",
    ),
    Family(
        "gateway_config_last_success_timestamp_seconds",
        "gauge",
        (),
        "Time since which the configuration is in force, in Unix seconds.",
    ),
    Family(
        "gateway_config_info",
        "gauge",
        ("digest",),
        "Always 1; the label is a digest of the configuration in force, without its secrets.",
    ),
    Family(
        "gateway_request_memory_bytes",
        "gauge",
        (),
        "Memory that requests hold, including copies for shadows, as the budget counts it.",
    ),
    Family(
        "gateway_request_memory_limit_bytes",
        "gauge",
        (),
        "The memory budget of requests: server.memory, or its default.",
    ),
    Family(
        "gateway_request_memory_waiting", "gauge", (), "Requests that wait for memory; most are not read yet."
    ),
    Family(
        "gateway_build_info", "gauge", ("version", "python"), "Always 1; the labels are the running versions."
    ),
)
"""All families of `/metrics` except those of the process (`process_...`)."""

BY_NAME: MappingProxyType[str, Family] = MappingProxyType({family.name: family for family in FAMILIES})
"""The families by name."""


def markdown_table() -> str:
    """Return the table for docs/metrics.md."""
    head = "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    return head + "".join(_row(family) for family in FAMILIES)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "none"
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |\n"
