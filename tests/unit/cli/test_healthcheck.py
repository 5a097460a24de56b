import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.cli.healthcheck import MOST_TEXT, fetch, got, probe, url_of, without_secrets


@contextmanager
def answering(server: socket.socket, reply: bytes) -> Iterator[list[bytes]]:
    """Answer one connection with `reply`; yields the requests seen."""
    seen: list[bytes] = []

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            seen.append(connection.recv(65536))
            connection.sendall(reply)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield seen
    finally:
        thread.join()


def reply(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("status", "well"), [("200 OK", True), ("503 Service Unavailable", False), ("404 Not Found", False)]
)
def test_only_a_200_is_well(status: str, *, well: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = url_of(f"127.0.0.1:{server.getsockname()[1]}")
        with answering(server, reply(status)) as seen:
            assert probe(url, "/readyz", 5) == (well, f"{url}/readyz: {status[:3]}")
    assert seen[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server, answering(server, reply("200 OK")):
        assert probe(f"http://127.0.0.1:{server.getsockname()[1]}/", "/livez", 5)[0]


def test_a_unix_socket_is_asked_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        url = url_of(f"unix:{tmp_path}/s")
        with answering(server, reply("200 OK")):
            assert probe(url, "/livez", 5) == (True, f"unix:{tmp_path}/s /livez: 200")


def test_a_silent_gateway_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert probe(url, "/livez", 0.05) == (False, f"{url}/livez: no answer: timed out")


def test_what_speaks_no_http_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, answering(server, b"hello\r\n\r\n"):
        well, line = probe(f"http://127.0.0.1:{server.getsockname()[1]}", "/livez", 5)
    assert not well
    assert "no answer: hello" in line


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://h", "http://", "http://h:port", "http://[::1"])
def test_a_wrong_url_is_told(url: str) -> None:
    well, line = probe(url, "/livez", 5)
    assert not well
    assert line.startswith(f"{url}: ")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://u:swordfish@127.0.0.1:1", "http://***@127.0.0.1:1"),
        ("u:sword@fish@h", "***@h"),
        ("//u:swordfish@h", "//***@h"),
        ("http://127.0.0.1:1/x?key=swordfish", "http://127.0.0.1:1/x?***"),
        ("unix:/run/a@b", "unix:/run/a@b"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
    ],
)
def test_a_url_is_told_without_its_secrets(url: str, told: str) -> None:
    assert without_secrets(url) == told
    assert probe(url, "/livez", 5)[1].startswith(told)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("[::]:9000", "http://[::1]:9000"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_a_plane_is_reached_from_the_same_machine(listen: str, url: str) -> None:
    assert url_of(listen) == url


def test_what_cannot_be_fetched_is_none() -> None:
    assert fetch("http://127.0.0.1:1", "/metrics", 0.5) is None
    assert fetch("no url", "/metrics", 0.5) is None


def test_a_text_without_end_is_not_read_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = url_of(f"127.0.0.1:{server.getsockname()[1]}")
        long = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MOST_TEXT + 1)
        with answering(server, long):
            assert got(url, "/", 20) == (0, "")


def test_a_text_that_comes_too_slowly_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = url_of(f"127.0.0.1:{server.getsockname()[1]}")
        gone = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with contextlib.suppress(OSError):
                    while not gone.wait(0.01):
                        connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        assert got(url, "/", 0.5) == (0, "")
        gone.set()
        thread.join()
