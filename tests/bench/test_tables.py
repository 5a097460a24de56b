"""What a run prints."""

from tests.bench.ratios import Book
from tests.bench.record import Record, Sample
from tests.bench.tables import notes, report, table
from tests.bench.workload import WORKLOADS

CHOSEN = {name: WORKLOADS[name] for name in ("c32", "s100")}


def sample(us: float, invalid: str = "") -> Sample:
    return Sample(done=1000, events=1000, reads=1000, cpu=us / 1000, first_p50=21_000, invalid=invalid)


def run(invalid: str = "") -> Book:
    records = [
        Record("direct", 1, samples={"c32": sample(0), "s100": sample(0)}),
        Record("nginx", 1, samples={"c32": sample(20), "s100": sample(20)}),
        Record("gateway", 1, pss_idle=42.0, samples={"c32": sample(80), "s100": sample(50, invalid)}),
    ]
    return Book(records, CHOSEN)


def row(text: str, first: str, of: str) -> list[str]:
    """The cells of the line that begins so, in the table whose head begins with `of`."""
    part = text[text.index(f"| {of}") :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_is_markdown_with_straight_columns() -> None:
    assert table(["what", "us"], [["a", "1.00"], ["longer", "10"]]) == (
        "| what   |   us |\n| ------ | ---: |\n| a      | 1.00 |\n| longer |   10 |\n"
    )


def test_requests_and_events_have_their_cost() -> None:
    text = report(run())
    assert row(text, "gateway", "us a request")[:2] == ["gateway", "80.0"]
    assert row(text, "gateway", "us an event") == ["gateway", "50.0", "1.00", "21.0"]


def test_ratios_are_given_with_their_range() -> None:
    assert row(report(run()), "gateway", "CPU / nginx") == [
        "gateway", "4.00 [4.00..4.00]", "2.50 [2.50..2.50]",
    ]  # fmt: skip


def test_no_proxy_has_no_cost() -> None:
    assert row(report(run()), "direct", "us a request")[1] == "-"


def test_what_does_not_count_is_struck_out_everywhere_and_named() -> None:
    text = report(run("events held back"))
    assert row(text, "gateway", "us an event")[1] == "INVALID"
    assert row(text, "gateway", "CPU / nginx")[2] == "INVALID"
    assert row(text, "event, 100 streams / nginx", "what")[-1] == "INVALID"
    assert "does not count: gateway s100, round 1: events held back" in text


def test_a_target_that_failed_is_named() -> None:
    book = Book([Record("smg", 2, failed="it gives no answer")], CHOSEN)
    assert notes(book) == ["NOT MEASURED: smg, round 2: it gives no answer"]
