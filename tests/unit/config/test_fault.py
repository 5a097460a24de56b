import pytest

from gateway.config.fault import ConfigError, ConfigFault, KeyPath, ValueProblem, faults_in, line_of, spelled


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("server", "listen"), "server.listen"),
        (("backends", 1, "tls", "ca_file"), "backends[1].tls.ca_file"),
        (("backends", 0, "models", 2), "backends[0].models[2]"),
        (("a key", "b"), '"a key".b'),
    ],
)
def test_a_key_path_is_spelled_as_people_write_it(path: KeyPath, text: str) -> None:
    assert spelled(path) == text


def test_a_missing_key_has_the_line_of_its_table() -> None:
    lines: dict[KeyPath, int] = {("backends",): 1, ("backends", 0): 3}
    assert line_of(("backends", 0, "url"), lines) == 3
    assert line_of(("keys", 0), lines) == 1


def test_faults_come_in_file_order_and_once_a_key() -> None:
    lines: dict[KeyPath, int] = {("b",): 2, ("a",): 9}
    faults = faults_in(
        "c.toml",
        lines,
        [ValueProblem(("a",), "x"), ValueProblem(("b",), "first"), ValueProblem(("b",), "second")],
    )
    assert [str(fault) for fault in faults] == ["c.toml:2: b: first", "c.toml:9: a: x"]


def test_an_error_lists_every_fault_on_a_line_of_its_own() -> None:
    error = ConfigError(
        [ConfigFault("c.toml", 1, "a", "wrong"), ConfigFault("c.toml", 0, "", "cannot be read")]
    )
    assert str(error).splitlines() == ["c.toml:1: a: wrong", "c.toml: cannot be read"]
    assert len(error.faults) == 2
