"""The tables of a run, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.figures import shown, spread
from tests.bench.ratios import INVALID, Book, Goal, goals


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [every[0], rule, *every[1:]]
    return "".join(f"| {' | '.join(_aligned(line, widths))} |\n" for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = zip(cells, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]


def requests(book: Book) -> str:
    """CPU of a request, added latency, memory and faults of every target."""
    plain = [one.name for one in book.workloads.values() if not one.stream and not one.rate]
    rated = [one.name for one in book.workloads.values() if one.rate]
    head = ["us a request", *plain, *(f"{name} +p50 us" for name in rated), "PSS idle MiB", "after", "bad"]
    rows = []
    for target in book.targets:
        cpu = [_cost(book, target, name) for name in plain]
        late = [_spread(book.added(target, name, "latency_p50")) for name in rated]
        idle = _median([one.pss_idle for one in book.records(target) if one.pss_idle])
        after = _median([one.pss_after for one in book.records(target) if one.pss_after])
        rows.append([target, *cpu, *late, idle, after, str(book.bad(target))])
    return table(head, rows)


def streams(book: Book) -> str:
    """CPU of an event, events that a client reads at once, and when the first comes."""
    names = [one.name for one in book.workloads.values() if one.stream]
    if not names:
        return ""
    head = ["us an event", *(cell for name in names for cell in (name, "events/read", "first ms"))]
    rows = []
    for target in book.targets:
        row = [target]
        for name in names:
            samples = book.samples(target, name)
            reads = _median([one.events_a_read for one in samples])
            first = _median([one.first_p50 / 1000 for one in samples])
            row += [_cost(book, target, name), reads, first]
        rows.append(row)
    return table(head, rows)


def ratios(book: Book, anchor: str) -> str:
    """Everybody's CPU over the anchor's in the same round: median and range."""
    names = [one.name for one in book.workloads.values() if not one.rate]
    others = [name for name in book.targets if name not in {anchor, "direct"}]
    rows = []
    for target in others:
        cells = [
            INVALID if book.is_invalid(target, name) else _spread(book.ratios(target, anchor, name))
            for name in names
        ]
        rows.append([target, *cells])
    return table([f"CPU / {anchor}", *names], rows)


def verdicts(found: Sequence[Goal]) -> str:
    """The promises with what was measured."""
    rows = [
        [goal.what, shown(goal.must), shown(goal.aim), _spread(goal.values), goal.state] for goal in found
    ]
    return table(["what", "must", "aim", "measured", ""], rows)


def notes(book: Book) -> list[str]:
    """What was not measured or does not count, a line each."""
    found = []
    for number, targets in book.rounds.items():
        for name, record in targets.items():
            if record.failed:
                found.append(f"NOT MEASURED: {name}, round {number}: {record.failed}")
            found += [
                f"does not count: {name} {workload}, round {number}: {sample.invalid}"
                for workload, sample in record.samples.items()
                if sample.invalid
            ]
    return found


def report(book: Book) -> str:
    """Everything that a run has to tell."""
    anchors = [name for name in ("nginx", "vllm-router", "smg") if name in book.targets]
    parts = [
        f"Medians of {len(book.rounds)} round(s); ratios within a round: median [least..most].\n",
        requests(book),
        streams(book),
        *(ratios(book, anchor) for anchor in anchors if len(book.targets) > 2),
        verdicts(goals(book)),
        "".join(f"{note}\n" for note in notes(book)),
    ]
    return "\n".join(part for part in parts if part)


def _cost(book: Book, target: str, workload: str) -> str:
    if target == "direct":
        return "-"
    return INVALID if book.is_invalid(target, workload) else _median(book.figures(target, workload))


def _median(values: Sequence[float]) -> str:
    found = spread(values)
    return shown(found.median) if found else "-"


def _spread(values: Sequence[float]) -> str:
    return str(spread(values) or "-")
