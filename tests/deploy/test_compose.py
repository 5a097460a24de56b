"""compose.yaml, the config it mounts and Prometheus' own: at one with each other, closed to the network."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

Json = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE: Json = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: Json = COMPOSE["services"]
CONFIG: Json = tomllib.loads((FOLDER / "config.toml").read_text())
SIMULATORS = [name for name, service in SERVICES.items() if "simulate" in service.get("command", [])]


def option(name: str, flag: str) -> str:
    command: list[str] = SERVICES[name]["command"]
    return command[command.index(flag) + 1]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_write_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert "privileged" not in service


@pytest.mark.parametrize("name", ["gateway", *SIMULATORS])
def test_our_own_services_run_as_a_numeric_user(name: str) -> None:
    user, _, group = SERVICES[name]["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_alone(name: str) -> None:
    assert all(entry.startswith("127.0.0.1:") for entry in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_every_mounted_file_exists_and_is_read_only(name: str) -> None:
    mounts = [entry.split(":") for entry in SERVICES[name].get("volumes", []) if entry.startswith(".")]
    assert all((FOLDER / source).is_file() and mode == "ro" for source, _, mode in mounts)


def test_the_published_port_is_the_data_plane_and_the_admin_plane_is_not_published() -> None:
    inside = [entry.rpartition(":")[2] for entry in SERVICES["gateway"]["ports"]]
    assert inside == [CONFIG["server"]["listen"].rpartition(":")[2]]


def test_compose_waits_longer_than_the_gateway_drains() -> None:
    server = CONFIG["server"]
    longest = server["drain"] + server.get("drain_delay", 0)
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) > longest


def test_every_backend_of_the_config_is_a_simulator_of_that_dialect() -> None:
    backends = {(backend["url"], backend["dialect"]) for backend in CONFIG["backends"]}
    simulators = {
        (f"http://{name}:{option(name, '--port')}", option(name, "--dialect")) for name in SIMULATORS
    }
    assert backends == simulators


@pytest.mark.parametrize("name", SIMULATORS)
def test_simulators_are_the_gateways_image_without_its_health_check(name: str) -> None:
    assert SERVICES[name]["image"] == SERVICES["gateway"]["image"]
    assert SERVICES[name]["healthcheck"] == {"disable": True}
    assert option(name, "--host") == "0.0.0.0"


def test_only_monitoring_is_optional() -> None:
    optional = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert optional == {"prometheus": ["monitoring"]}


def test_prometheus_scrapes_the_admin_plane() -> None:
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    targets = [
        target
        for job in settings["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    assert targets == [f"gateway:{CONFIG['admin']['listen'].rpartition(':')[2]}"]
