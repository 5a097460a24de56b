"""The metric families of the gateway as one frozen table: `exporter` is made from it, and the docs too.

Every label is from a closed set; what is not in its set becomes `OTHER`. So no request, however odd,
makes a new series, and no user's text reaches a label (a lone surrogate there would break the scrape).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from gateway.telemetry.comparison import Skip
from gateway.telemetry.receipt import CanaryResult

Kind: TypeAlias = Literal["counter", "histogram", "gauge"]

OTHER = "other"
"""The label of whatever is not in a label's closed set."""

REPAIRS = frozenset(
    {"short_stream", "get_event", "missing_done", "no_finish", "no_stream", "no_tool_stream", "other_kind"}
    | {"unknown_finish"}
)
"""The faults of backends that are repaired on the way, by the words the dialects use for them."""

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
"""Why a client is turned away before a door has seen its request, or its connection cut: codes of errors,
`bad_request` where the error has none, `write_timeout` where nobody can be told."""

RELOADS = frozenset({"ok", "unchanged", "invalid", "fixed"})
"""How a reload of config.toml can end: swapped, nothing new, a broken file, a change that needs a restart."""

CANARY_RESULTS = frozenset(get_args(CanaryResult))
"""What can become of a request that falls to a canary."""

SKIPS = frozenset(get_args(Skip))
"""Why a shadow's copy can be skipped."""

# 6B models on one card queue for minutes; a bucket's edge must not stand where most answers lie.
LONG = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Buckets for whole requests, waits and first tokens, in seconds."""

PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
"""Buckets for one output token, in seconds."""

SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
"""Buckets for what should take next to no time: our own work, and the lag of the event loop. In seconds."""

CHARACTERS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000)
"""Buckets for the lengths of answers, in characters."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. `help` is one sentence; `buckets` (upper bounds) are a histogram's."""

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
        "Requests that are over; status 499 is a client that left before its answer began.",
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
        "Mean time between two tokens of one answer; only answers that came in pieces count.",
        PER_TOKEN,
    ),
    Family(
        "gateway_overhead_seconds",
        "histogram",
        ("door",),
        "The gateway's own time: a request's duration less its waiting in the queue and for backends.",
        SHORT,
    ),
    Family(
        "gateway_tokens_total",
        "counter",
        ("model", "backend", "token_type", "source"),
        "Tokens of prompts (input) and answers (output), by who counted them.",
    ),
    Family("gateway_queue_depth", "gauge", ("model",), "Requests that wait for a slot now."),
    Family(
        "gateway_queue_wait_seconds",
        "histogram",
        ("model", "outcome"),
        "How long tickets waited, by what ended it: granted, left, or the outcome of a refusal.",
        LONG,
    ),
    Family("gateway_queue_rejected_total", "counter", ("model", "reason"), "Tickets that were refused."),
    Family("gateway_backend_up", "gauge", ("backend",), "1 while the backend may be asked, else 0."),
    Family(
        "gateway_backend_state",
        "gauge",
        ("backend", "state"),
        "1 for the state the backend is in, 0 for all others.",
    ),
    Family("gateway_backend_ejections_total", "counter", ("backend", "reason"), "Times it was put out."),
    Family(
        "gateway_backend_probes_total",
        "counter",
        ("backend", "result"),
        "Probes and trials of the backend, by how they ended.",
    ),
    Family("gateway_backend_inflight", "gauge", ("backend",), "Slots taken now, zombies included."),
    Family("gateway_backend_slots", "gauge", ("backend",), "Slots the backend has."),
    Family(
        "gateway_backend_zombies",
        "gauge",
        ("backend",),
        "Slots held now by generations that nobody waits for and that cannot be stopped.",
    ),
    Family("gateway_backend_requests_total", "counter", ("backend", "outcome"), "Tries on the backend."),
    Family(
        "gateway_backend_duration_seconds",
        "histogram",
        ("backend", "outcome"),
        "Length of one try on the backend.",
        LONG,
    ),
    Family(
        "gateway_retries_total",
        "counter",
        ("model", "reason"),
        "Tries made again, by the outcome of the try before.",
    ),
    Family(
        "gateway_fallbacks_total",
        "counter",
        ("from", "to"),
        "Requests that another model answered, or was the last to be asked; its tokens count under its name.",
    ),
    Family(
        "gateway_canary_requests_total",
        "counter",
        ("model", "canary", "result", "outcome"),
        "Requests that fell to the share of a model's canary, by whether it took them and how they ended.",
    ),
    Family(
        "gateway_shadow_copies_total",
        "counter",
        ("model", "shadow", "outcome"),
        "Copies of a model's requests that its shadow was asked; they count under no client, key or backend.",
    ),
    Family(
        "gateway_shadow_skipped_total",
        "counter",
        ("model", "shadow", "reason"),
        "Copies that were not made, or not to their end.",
    ),
    Family(
        "gateway_shadow_compared_total",
        "counter",
        ("model", "shadow", "what", "result"),
        "Answers of shadows held against the callers' own: outcome, finish reason, text.",
    ),
    Family(
        "gateway_shadow_first_token_seconds",
        "histogram",
        ("model", "shadow", "side"),
        "From the slot to the first content, of the caller's answer and of its copy, where both are whole.",
        LONG,
    ),
    Family(
        "gateway_shadow_duration_seconds",
        "histogram",
        ("model", "shadow", "side"),
        "From the slot to the end of the answer, of both sides, where both are whole.",
        LONG,
    ),
    Family(
        "gateway_shadow_answer_characters",
        "histogram",
        ("model", "shadow", "side"),
        "Length of the answer, of both sides, where both are whole.",
        CHARACTERS,
    ),
    Family("gateway_auth_failures_total", "counter", ("reason",), "Refused keys: missing, wrong or expired."),
    Family(
        "gateway_client_refusals_total",
        "counter",
        ("reason",),
        "Clients turned away or cut off below the doors: badly framed, too large, too slow, too many.",
    ),
    Family(
        "gateway_client_disconnects_total",
        "counter",
        ("phase",),
        "Clients that left: queued, before the first content, or while streaming.",
    ),
    Family(
        "gateway_ignored_params_total",
        "counter",
        ("param", "backend"),
        "Parameters that a backend could not honour; each was reported in x-gateway-ignored.",
    ),
    Family(
        "gateway_repairs_total", "counter", ("backend", "repair"), "Faults of backends repaired on the way."
    ),
    Family(
        "gateway_discovery_lookups_total",
        "counter",
        ("service", "result"),
        "Times that DNS was asked for the servers of a backend with discover, by how that ended.",
    ),
    Family(
        "gateway_discovery_members",
        "gauge",
        ("service",),
        "Backends that stand for servers which DNS names, the last known ones while it cannot be asked.",
    ),
    Family(
        "gateway_discovery_left_out",
        "gauge",
        ("service",),
        "Servers that DNS names beyond max_discovered.",
    ),
    Family(
        "gateway_discovery_last_success_timestamp_seconds",
        "gauge",
        ("service",),
        "When DNS was last asked with success, in Unix seconds; 0 if it never was.",
    ),
    Family(
        "gateway_event_loop_lag_seconds",
        "histogram",
        (),
        "How much later than asked the event loop woke up.",
        SHORT,
    ),
    Family(
        "gateway_log_lines_lost_total",
        "counter",
        ("reason",),
        "Lines of the log that were not written: their reader stopped (queue_full), or went (unwritable).",
    ),
    Family(
        "gateway_config_reloads_total",
        "counter",
        ("result",),
        "Times the configuration was read again: ok, unchanged, invalid, or fixed (needs a restart).",
    ),
    Family(
        "gateway_config_last_success_timestamp_seconds",
        "gauge",
        (),
        "Since when the configuration is in force, in Unix seconds.",
    ),
    Family(
        "gateway_config_info",
        "gauge",
        ("digest",),
        "Always 1; the label is a digest of the configuration in force, its secrets left out.",
    ),
    Family(
        "gateway_request_memory_bytes",
        "gauge",
        (),
        "Memory that requests hold now, copies for shadows included, as the budget counts it.",
    ),
    Family(
        "gateway_request_memory_limit_bytes",
        "gauge",
        (),
        "The budget of that memory: server.memory, or its default.",
    ),
    Family("gateway_request_memory_waiting", "gauge", (), "Requests that wait for memory, mostly unread."),
    Family("gateway_build_info", "gauge", ("version", "python"), "Always 1; the labels say what runs."),
)
"""Every family of `/metrics` but the process's own (`process_...`)."""

BY_NAME: MappingProxyType[str, Family] = MappingProxyType({family.name: family for family in FAMILIES})
"""The same by name."""


def markdown_table() -> str:
    """Give the table of docs/metrics.md."""
    head = "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    return head + "".join(_row(family) for family in FAMILIES)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "none"
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |\n"
