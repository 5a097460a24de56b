"""Sockets to listen on: bound here or handed over, and Unix sockets that belong to one process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway import listeners
from gateway.config import Address, Config, ServerSettings
from gateway.listeners import accept_waiting, handed_over, listening, require_keys

HERE = Address.parse("127.0.0.1:0")


def server(**changes: Any) -> ServerSettings:
    return ServerSettings(listen="127.0.0.1:0", **changes)


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@contextmanager
def given(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[list[int]]:
    """So many listening sockets with numbers in a row, as systemd leaves them; gives their ports."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first = fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 200)
        places = [first, first + 1, first + 2][:count]
        for place, sock in zip(places[1:], (two, one), strict=False):
            os.dup2(sock.fileno(), place)
        monkeypatch.setattr(listeners, "_FIRST", first)
        yield [port_of(one), port_of(two)]
        for place in places:
            try:
                os.close(place)
            except OSError:
                continue


def environ(count: int, names: str | None = None, pid: int | None = None) -> dict[str, str]:
    told = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "PATH": "/bin"}
    return told if names is None else told | {"LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("names", "data", "admin"),
    [
        (None, 0, 1),
        ("chatglm-gateway.socket:chatglm-gateway.socket", 0, 1),
        ("data:admin", 0, 1),
        ("admin:data", 1, 0),
        ("admin:chatglm-gateway.socket", 1, 0),
    ],
)
def test_each_plane_gets_the_socket_of_its_name_or_place(
    names: str | None, data: int, admin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = environ(2, names)
    with given(monkeypatch, 2) as ports, listening(server(), HERE, told) as found:
        assert (port_of(found.data), port_of(found.admin)) == (ports[data], ports[admin])
        assert (found.outlive, found.handed_over) == (True, True)
        assert not found.data.get_inheritable()
    assert told == {"PATH": "/bin"}, "a process that this one starts must not take them for its own"


def test_one_socket_is_the_data_planes_and_the_other_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with given(monkeypatch, 1) as ports, listening(server(), HERE, environ(1)) as found:
        assert port_of(found.data) == ports[0]
        assert port_of(found.admin) not in ports


def test_more_sockets_than_planes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with given(monkeypatch, 3), pytest.raises(OSError, match="more sockets than one for each plane"):
        handed_over(environ(3))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        pytest.param(lambda: socket.socket(type=socket.SOCK_DGRAM).detach(), "another kind", id="datagrams"),
        pytest.param(
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
            "another kind",
            id="packets",
        ),
        pytest.param(lambda: os.open(os.devnull, os.O_RDONLY), "no socket", id="file"),
    ],
)
def test_what_takes_no_connections_is_refused(
    other: Callable[[], int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with given(monkeypatch, 1):
        descriptor = other()
        os.dup2(descriptor, listeners._FIRST)
        os.close(descriptor)
        with pytest.raises(OSError, match=words):
            handed_over(environ(1))


@pytest.mark.parametrize(
    ("host", "settings", "well"),
    [
        pytest.param("0.0.0.0", {}, False, id="everybody-without-keys"),
        pytest.param("0.0.0.0", {"server": {"auth": "none"}}, True, id="everybody-is-meant"),
        pytest.param("0.0.0.0", {"keys": [{"name": "a", "key": "sk-12345678"}]}, True, id="keys"),
        pytest.param("::", {}, False, id="everybody-of-ipv6"),
        pytest.param("::1", {}, True, id="this-machine-of-ipv6"),
        pytest.param("127.0.0.1", {}, True, id="this-machine"),
    ],
)
def test_a_socket_that_others_reach_is_taken_only_with_keys_or_on_purpose(
    host: str, settings: dict[str, Any], well: bool
) -> None:
    backends = [{"name": "b", "url": "http://127.0.0.1:1", "dialect": "openai", "models": ["m"]}]
    chosen = Config.model_validate({"backends": backends, **settings})
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as data:
        if well:
            require_keys(data, chosen)
            return
        with pytest.raises(OSError, match=r"can be reached from outside.*\[\[keys\]\]"):
            require_keys(data, chosen)


@pytest.mark.parametrize(
    "told", [{}, environ(1, pid=1), {"LISTEN_FDS": "1"}, environ(1) | {"LISTEN_FDS": "x"}]
)
def test_sockets_for_another_process_are_none_of_ours(told: dict[str, str]) -> None:
    assert handed_over(told) == {}
    assert not any(name.startswith("LISTEN") for name in told)


def test_a_socket_of_this_process_alone_does_not_outlive_it_and_has_bounded_buffers() -> None:
    with listening(server(send_buffer=8192), HERE, {}) as found:
        assert (found.outlive, found.handed_over) == (False, False)
        assert found.data.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in {8192, 2 * 8192}
        with pytest.raises(OSError, match="in use"):
            again(port_of(found.data), reuse_port=True)


def again(port: int, **changes: Any) -> None:
    with listening(ServerSettings(listen=f"127.0.0.1:{port}", **changes), HERE, {}):
        pass


def test_two_processes_can_share_a_port_where_both_want_to() -> None:
    with listening(server(reuse_port=True), HERE, {}) as found:
        assert found.outlive
        again(port_of(found.data), reuse_port=True)
        with pytest.raises(OSError, match="in use"):
            again(port_of(found.data))


# --- Unix sockets ----------------------------------------------------------------------------------


def on(path: Path) -> ServerSettings:
    return ServerSettings(listen=f"unix:{path}")


def test_a_unix_socket_that_is_served_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(on(path), HERE, {}):
        with pytest.raises(OSError, match="another process serves"), listening(on(path), HERE, {}):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_unix_socket_whose_backlog_is_full_is_served(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(OSError, match="another process serves"), listening(on(path), HERE, {}):
            pass
    assert path.exists()


def test_a_unix_socket_left_behind_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(on(path), HERE, {}):
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"), listening(on(path), HERE, {}):
        pass
    assert path.read_text() == "precious"


def test_only_its_owner_removes_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(on(path), HERE, {}):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


# --- accepting the rest ----------------------------------------------------------------------------


async def test_who_waits_to_be_accepted_is_served() -> None:
    made: list[asyncio.Protocol] = []

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(self)
            transport.write(b"hello")
            transport.close()

    with socket.create_server(("127.0.0.1", 0)) as waiting:
        waiting.setblocking(False)
        clients = [socket.create_connection(waiting.getsockname()) for _ in range(3)]
        assert await accept_waiting(waiting, Greeting) == 3
        assert await accept_waiting(waiting, Greeting) == 0
    for client in clients:
        with client:
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"hello"
    assert len(made) == 3
