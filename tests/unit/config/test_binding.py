import os
import shlex
import socket
from pathlib import Path

import pytest

from gateway.config import Address, Config
from gateway.config.binding import obstacle, obstacles


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_free_port_is_no_obstacle(host: str) -> None:
    assert obstacle(Address(host, 0)) is None


def test_a_port_in_use_is_named_with_the_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = obstacle(Address("127.0.0.1", port))
    assert found is not None
    assert f"127.0.0.1:{port} is in use" in found
    assert ("ChatGLM" in found) is (port == 8000)
    assert obstacle(Address("127.0.0.1", port)) is None


def test_the_port_of_chatglms_servers_is_known_as_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr("gateway.config.binding._CHATGLM", port)
        assert "a ChatGLM server takes port 8000" in (obstacle(Address("127.0.0.1", port)) or "")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param(Address("192.0.2.1", 0), "is no address of this machine", id="foreign-address"),
        pytest.param(Address("no-such-host.invalid", 0), "cannot be resolved", id="unknown-name"),
        pytest.param(Address(path="/no/such/folder/x.sock"), "folder is missing", id="socket-without-folder"),
    ],
)
def test_an_address_that_cannot_be_bound_says_why(address: Address, message: str) -> None:
    assert message in (obstacle(address) or "")


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may bind every port")
def test_a_low_port_needs_a_right() -> None:
    assert "above 1023" in (obstacle(Address("127.0.0.1", 1)) or "")


def test_a_living_socket_is_in_use_and_a_dead_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        assert "is in use" in (obstacle(Address(path=str(path))) or "")
    assert obstacle(Address(path=str(path))) is None
    path.unlink()
    assert obstacle(Address(path=str(path))) is None


def test_a_file_in_the_place_of_a_socket_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("precious")
    assert "is no socket" in (obstacle(Address(path=str(tmp_path / "x"))) or "")
    assert (tmp_path / "x").read_text() == "precious"


def over(listen: str, admin: str) -> Config:
    backend = {"name": "gpu-0", "url": "http://h:1", "dialect": "chatglm", "models": ["m"]}
    return Config.model_validate(
        {"server": {"listen": listen}, "admin": {"listen": admin}, "backends": [backend]}
    )


def proposed(reason: str) -> list[str]:
    return shlex.split(reason.partition("such as: ")[2])


def test_the_proposed_command_names_the_file_and_moves_every_plane_that_is_in_the_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        data, admin = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in (one, two))
        found = obstacles(over(data, admin), Path("my file.toml"), {"server": {"listen": data}})
    assert [reason.partition(":")[0] for reason in found] == ["server.listen", "admin.listen"]
    assert proposed(found[0]) == proposed(found[1])
    words = proposed(found[0])
    assert words[:5] == ["gateway", "serve", "--config", "my file.toml", "--listen"]
    assert words[6] == "--admin-listen"
    assert data not in words
    assert admin not in words


def test_the_proposed_command_repeats_what_options_said_without_a_file() -> None:
    backends = [
        {"name": f"gpu-{number}", "url": f"http://h:{number}", "dialect": "chatglm", "models": ["m"]}
        for number in range(2)
    ]
    with socket.create_server(("127.0.0.1", 0)) as other:
        admin = f"127.0.0.1:{other.getsockname()[1]}"
        given = {"backends": backends, "server": {"listen": "[::1]:0"}, "admin": {"listen": admin}}
        (reason,) = obstacles(over("127.0.0.1:0", admin), None, given)
    told = "gateway serve --backend http://h:0 --backend http://h:1 --dialect chatglm --model m"
    assert " ".join(proposed(reason)).startswith(f"{told} --listen [::1]:0 --admin-listen 127.0.0.1:")
