"""What only a restart can change, and how configurations are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, digest, fixed_changes, named_files, parse

BACKEND = '[[backends]]\nname = "a"\nurl = "http://127.0.0.1:2"\ndialect = "openai"\nmodels = ["m"]\n'


def made(head: str = "", tail: str = "", folder: Path = Path()) -> Config:
    return parse(head + BACKEND + tail, file="config.toml", folder=folder, environ={})


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param('[server]\nlisten = "127.0.0.1:1"\n', ("server.listen",), id="data"),
        pytest.param('[admin]\nlisten = "127.0.0.1:1"\n', ("admin.listen",), id="admin"),
        pytest.param('[log]\nformat = "console"\naccess = false\n', ("log.format", "log.access"), id="log"),
        pytest.param("[server]\ndrain = 1\nmax_body = 5000\n[queue]\nlength = 1\n", (), id="the-rest"),
    ],
)
def test_addresses_and_the_log_are_settled_at_the_start(text: str, keys: tuple[str, ...]) -> None:
    assert fixed_changes(made(), made(text)) == keys


def test_a_digest_tells_configurations_apart_but_not_secrets() -> None:
    assert digest(made()) == digest(made("# remark\n"))
    assert digest(made()) != digest(made("[queue]\nlength = 1\n"))
    assert digest(made(tail='api_key = "one"\n')) == digest(made(tail='api_key = "two"\n'))
    assert len(digest(made())) == 12


def test_the_files_that_a_configuration_names_are_listed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sk-12345678")
    keys = '[[keys]]\nname = "k"\nkey_file = "secret"\n'
    settings = made(tail='api_key_file = "secret"\n' + keys, folder=tmp_path)
    assert list(named_files(settings)) == [tmp_path / "secret"] * 2
