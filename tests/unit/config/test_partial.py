from typing import Any

from gateway.config.fault import ValueProblem
from gateway.config.partial import PartialConfig, drafted

BACKEND = {"name": "a", "url": "http://h", "dialect": "chatglm3", "models": ["m"]}


def draft(data: dict[str, Any]) -> tuple[PartialConfig, list[ValueProblem]]:
    complaints: list[ValueProblem] = []
    return drafted(data, complaints), complaints


def test_good_data_is_read_without_a_word() -> None:
    made, complaints = draft({"backends": [BACKEND]})
    assert made.config.backends[0].slots == 1
    assert (made.broken, complaints) == (frozenset(), [])


def test_a_misspelled_key_counts_under_the_name_it_was_meant_to_have() -> None:
    data = {**BACKEND, "dialct": "glm4"}
    del data["dialect"]
    made, complaints = draft({"backends": [data]})
    assert made.config.backends[0].dialect == "glm4"
    assert [complaint.path for complaint in complaints] == [("backends", 0, "dialct")]
    assert made.is_broken_at("backends", 0, "dialect")


def test_a_wrong_value_gives_way_to_the_default_and_the_rest_stays() -> None:
    made, complaints = draft({"queue": {"length": "x", "timeout": 5}, "backends": [BACKEND]})
    assert (made.config.queue.length, made.config.queue.timeout) == (256, 5.0)
    assert [complaint.path for complaint in complaints] == [("queue", "length")]


def test_what_is_missing_gets_a_placeholder_so_that_positions_stay() -> None:
    made, complaints = draft({"backends": [{}, BACKEND]})
    assert made.config.backends[1].name == "a"
    assert {complaint.path[-1] for complaint in complaints} == {"name", "url", "dialect"}


def test_broken_keys_are_found_by_name_and_by_place() -> None:
    made, _ = draft({"backends": [{**BACKEND, "models": [3]}]})
    assert made.is_broken("models")
    assert made.is_broken("url", "backends")
    assert not made.is_broken("url")
    assert made.is_broken_at("backends", 0)
    assert not made.is_broken_at("backends", 1)


def test_the_data_given_is_not_changed() -> None:
    data = {"backends": [{"nam": "a"}]}
    draft(data)
    assert data == {"backends": [{"nam": "a"}]}
