import pytest

from gateway.config import DIALECTS, BackendSettings
from gateway.config.backend import DIALECT_KEYS


def backend(dialect: str, **fields: object) -> BackendSettings:
    return BackendSettings.model_validate({"name": "gpu", "url": "http://h", "dialect": dialect, **fields})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_servers_that_generate_one_answer_at_a_time_have_one_slot(dialect: str) -> None:
    assert backend(dialect).slots == (8 if dialect in {"glm4", "openai"} else 1)


def test_slots_can_be_set() -> None:
    assert backend("chatglm2", slots=3).slots == 3


def test_keys_of_a_dialect_are_fields_and_name_known_dialects() -> None:
    assert DIALECT_KEYS.keys() <= BackendSettings.model_fields.keys()
    assert {dialect for takers in DIALECT_KEYS.values() for dialect in takers} <= set(DIALECTS)


def test_the_key_of_a_backend_does_not_show() -> None:
    assert "hunter2" not in repr(backend("openai", api_key="hunter2"))
