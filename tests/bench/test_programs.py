"""The bench's own mock and clients, against one another; and the C programs, where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.bench import Bench, Served, bench
from tests.bench.kit import OWN, Kit, kit
from tests.bench.target import Ports, Target, command_of, filled, targets
from tests.bench.workload import WORKLOADS, Workload

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

DIRECT = Target("direct", "", relays=True)
PORTS = Ports(1001, 1002, 1003)


def kits(folder: Path) -> list[Kit]:
    return list({one.name: one for one in (OWN, kit(folder))}.values())


def ask(one: Bench, workload: Workload) -> dict[str, float]:
    one.steer(workload)
    return one.load(DIRECT, one.mock_port, workload)


@pytest.mark.parametrize("name", ["c32", "native_c32", "p32k"])
def test_requests_are_all_answered_well(name: str, tmp_path: Path) -> None:
    for programs in kits(tmp_path):
        with bench(programs, tmp_path) as one:
            report = ask(one, replace(WORKLOADS[name], seconds=0.2))
        assert report["done"] > 50
        assert report["errs"] + report["badstatus"] + report["short"] == 0
        assert 0 < report["lat_p50"] <= report["lat_p99"]


def test_streams_are_whole_and_paced_and_each_event_is_read_by_itself(tmp_path: Path) -> None:
    for programs in kits(tmp_path):
        with bench(programs, tmp_path) as one:
            report = ask(one, replace(WORKLOADS["s10"], clients=2, seconds=0.1, gap_us=5000))
        assert report["done"] == 2
        assert report["errs"] + report["short"] == 0
        assert report["events"] == 2 * 102
        assert report["events"] / report["reads"] < 1.5
        assert report["lat_p50"] > 100 * 5000


def test_a_rate_is_kept(tmp_path: Path) -> None:
    with bench(OWN, tmp_path) as one:
        report = ask(one, replace(WORKLOADS["r100"], seconds=0.5))
    assert 45 <= report["done"] <= 51


def test_answers_without_events_are_short(tmp_path: Path) -> None:
    with bench(OWN, tmp_path) as one:
        report = ask(one, replace(WORKLOADS["native_c32"], clients=1, seconds=0.1, stream=True))
    assert report["short"] == report["done"] > 0


def test_names_in_configurations_are_filled_in_and_others_stay() -> None:
    assert filled("@PORT@ @PORT2@ @MOCK@ @RUN@ @NAMES@", PORTS, Path("run")) == "1001 1002 1003 run @NAMES@"


def test_a_command_names_the_configuration_that_was_written(tmp_path: Path) -> None:
    command = command_of(targets()["gateway"], PORTS, tmp_path)
    assert command[-1] == str(tmp_path / "gateway.toml")
    assert 'listen = "127.0.0.1:1001"' in (tmp_path / "gateway.toml").read_text()


def test_routers_get_no_native_work_and_relays_get_all() -> None:
    assert [Target("smg", "").takes(native) for native in (False, True)] == [True, False]
    assert DIRECT.takes(native=True)
    assert targets()["gateway"].takes(native=True)


def test_what_is_no_process_has_neither_cpu_nor_memory() -> None:
    assert Served(1).cpu_seconds() == {}
    assert Served(1).pss_mib() == 0.0
