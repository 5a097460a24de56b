"""A backend that is one of the gateway's own listeners is refused, however it is spelled."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.config import Address, BackendSettings, ConfigError, loops, parse

NAME = socket.gethostname()


def backend(url: str, dialect: str = "openai", extra: str = "") -> str:
    return f'[[backends]]\nname = "a"\nurl = "{url}"\ndialect = "{dialect}"\nmodels = ["m"]\n{extra}\n'


def faults(text: str) -> list[str]:
    settings = parse(text, file="c", folder=Path(), environ={})
    return [f"backends[{found.path[1]}].url: {found.message}" for found in loops.loops_in(settings)]


def listening(data: str, admin: str = "127.0.0.1:9000") -> str:
    return f'[server]\nlisten = "{data}"\nauth = "none"\n[admin]\nlisten = "{admin}"\n'


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "api.localhost", "0.0.0.0", "127.1", "2130706433",
     "[::ffff:127.0.0.1]", NAME],
)  # fmt: skip
@pytest.mark.parametrize("listen", ["127.0.0.1:8000", "localhost:8000", "0.0.0.0:8000", "[::]:8000"])
@pytest.mark.parametrize("tail", ["", "/v1"])
def test_gateways_own_address_is_no_backend(listen: str, host: str, tail: str) -> None:
    (found,) = faults(listening(listen) + backend(f"http://{host}:8000{tail}"))
    assert found.startswith("backends[0].url: is the gateway's own address (server.listen is ")


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("[::1]:8000", "http://[::1]:8000"),
        ("[::1]:8000", "http://[::]:8000"),
        ("[::1]:8000", "http://localhost:8000"),
        ("0.0.0.0:80", "http://127.0.0.1"),
        ("0.0.0.0:443", "https://localhost"),
        ("0.0.0.0:8000", "http://127.9.9.9:8000"),
    ],
)
def test_other_spellings_of_it_are_none_either(listen: str, url: str) -> None:
    assert faults(listening(listen) + backend(url))


def test_admin_plane_is_no_backend() -> None:
    (found,) = faults(listening("127.0.0.1:8000", "127.0.0.1:9000") + backend("http://localhost:9000"))
    assert "admin.listen is 127.0.0.1:9000" in found


def test_addresses_count_instead_of_the_name() -> None:
    text = listening("127.0.0.1:8000")
    assert faults(text + backend("http://model.example:8000", extra='addresses = ["127.0.0.1"]'))
    assert not faults(text + backend("http://localhost:8000", extra='addresses = ["192.0.2.1"]'))


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8001"),
        ("127.0.0.1:8000", "http://192.0.2.7:8000"),
        ("0.0.0.0:8000", "http://192.0.2.7:8000"),
        ("127.0.0.1:8000", "http://127.0.0.2:8000"),
        ("127.0.0.1:8000", "http://chatglm.models.svc.cluster.local:8000"),
        ("[::1]:8000", "http://127.0.0.1:8000"),
        ("unix:/run/gateway.sock", "http://127.0.0.1:8000"),
    ],
)
def test_other_servers_are_backends(listen: str, url: str) -> None:
    assert faults(listening(listen) + backend(url)) == []


def test_name_from_the_file_of_hosts_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost Card # one\nnonsense\n\n::1 ip6-localhost\n", encoding="utf-8")
    monkeypatch.setattr(loops, "_HOSTS", hosts)
    one = BackendSettings.model_validate({"name": "a", "url": "http://card:8000", "dialect": "openai"})
    assert loops.leads_to(one, Address("127.0.0.1", 8000))
    assert not loops.leads_to(one, Address("127.0.0.1", 8001))


def test_fault_names_the_line_of_the_url(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(listening("127.0.0.1:8000") + backend("http://localhost:8000"), encoding="utf-8")
    settings = parse(file.read_text(encoding="utf-8"), file="c", folder=tmp_path, environ={})
    with pytest.raises(ConfigError, match=r"config.toml:8: backends\[0\].url: is the gateway's own address"):
        loops.refuse_loops(settings, file)
    with pytest.raises(ConfigError, match=r"^options: backends\[0\].url: is the gateway's own address"):
        loops.refuse_loops(settings)
