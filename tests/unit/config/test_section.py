import pytest
from pydantic import ValidationError

from gateway.config import (
    Address,
    AdminSettings,
    HealthOverrides,
    HealthSettings,
    QueueSettings,
    ServerSettings,
    TimeoutOverrides,
    TimeoutsSettings,
)


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        QueueSettings().length = 1


@pytest.mark.parametrize("data", [{"length": "1"}, {"length": 1.5}, {"length": True}, {"lenght": 1}])
def test_a_section_takes_neither_other_types_nor_unknown_keys(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        QueueSettings.model_validate(data)


def test_whole_numbers_are_durations_too() -> None:
    assert QueueSettings.model_validate({"timeout": 3}).timeout == 3.0


def test_planes_listen_on_loopback_by_default() -> None:
    assert ServerSettings().address == Address("127.0.0.1", 8000)
    assert AdminSettings().address == Address("127.0.0.1", 9000)


def test_later_overrides_of_timeouts_win() -> None:
    merged = TimeoutsSettings().merged(TimeoutOverrides(total=5, connect=2), None, TimeoutOverrides(total=7))
    assert merged == TimeoutsSettings(total=7, connect=2)


def test_a_backends_own_health_checks_win() -> None:
    merged = HealthSettings(interval=5).merged(
        HealthOverrides(path="/health", probes=False, fall=9, slow_start=0)
    )
    assert merged == HealthSettings(interval=5, probes=False, fall=9, slow_start=0)


@pytest.mark.parametrize("path", ["health", "", "/a b", "/\n", "http://h/", "/" + "x" * 1024])
def test_the_path_of_a_probe_is_a_path(path: str) -> None:
    with pytest.raises(ValidationError):
        HealthOverrides(path=path)


@pytest.mark.parametrize("fields", [{"fall": 0}, {"rise": 0}, {"interval": 0}, {"timeout": -1}])
def test_health_checks_have_sense(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        HealthSettings.model_validate(fields)
