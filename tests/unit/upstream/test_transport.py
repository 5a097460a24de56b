"""The transport: certificates always checked, nothing taken from the environment, no redirects or proxies."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from gateway.config.call_urls import CallUrls
from gateway.dialects.base import Outgoing
from gateway.errors import ConnectFailed, UpstreamTLS
from gateway.scheduling.deadlines import DeadlineLimits, Deadlines
from gateway.upstream.client import Client
from gateway.upstream.transport import KEEPALIVE, make_transport
from tests.support.wires import wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def context_of(ca_file: str | None = None) -> ssl.SSLContext:
    transport = make_transport(slots=1, ca_file=ca_file, cert_file=None, key_file=None)
    return transport._context()


async def fetch(url: str, ca_file: str | None = None, connect: float = 5) -> bytes:
    transport = make_transport(slots=1, ca_file=ca_file, cert_file=None, key_file=None)
    one = Client(CallUrls.bare(url), transport, api_key=None, clock=time.monotonic)
    deadlines = Deadlines(DeadlineLimits(connect, 10, 10, 10), time.monotonic(), streams=False)
    try:
        async with asyncio.timeout(20):
            return await one.whole(Outgoing("/", b"{}", False, 1), deadlines)
    finally:
        await one.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs the openssl program")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", *request.split(), *names, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_certificates_and_names_are_always_checked() -> None:
    context = context_of()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_connections_are_given_up_before_the_server_does() -> None:
    assert KEEPALIVE < 5


async def test_a_certificate_that_nobody_signed_is_refused(certificate: tuple[Path, Path]) -> None:
    async with wire(OK, tls=serving(certificate)) as server:
        with pytest.raises(UpstreamTLS):
            await fetch(f"https://127.0.0.1:{server.port}")
    assert server.received == []


async def test_a_certificate_of_the_configured_authority_is_taken(certificate: tuple[Path, Path]) -> None:
    async with wire(OK, tls=serving(certificate)) as server:
        assert await fetch(f"https://127.0.0.1:{server.port}", ca_file=str(certificate[0])) == b"hi"


async def test_a_certificate_for_another_name_is_refused(certificate: tuple[Path, Path]) -> None:
    async with wire(OK, tls=serving(certificate)) as server:
        with pytest.raises(UpstreamTLS):
            await fetch(f"https://localhost:{server.port}", ca_file=str(certificate[0]))
    assert server.received == []


async def test_an_old_tls_is_refused(certificate: tuple[Path, Path]) -> None:
    context = serving(certificate)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with wire(OK, tls=context) as server:
        with pytest.raises(UpstreamTLS):
            await fetch(f"https://127.0.0.1:{server.port}", ca_file=str(certificate[0]))


async def test_a_server_without_tls_is_no_https_server() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        with pytest.raises(UpstreamTLS):
            await fetch(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_handshake_that_hangs_is_given_up_at_the_connect_limit() -> None:
    async with wire() as server:  # waits for a request that a handshake is not
        with pytest.raises((UpstreamTLS, ConnectFailed)):
            await fetch(f"https://127.0.0.1:{server.port}", connect=0.1)


async def test_a_port_nobody_listens_on_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(ConnectFailed):
        await fetch(f"http://127.0.0.1:{port}")
    assert time.monotonic() - began < 2


async def test_a_name_that_does_not_exist_is_a_failed_connection() -> None:
    with pytest.raises(ConnectFailed):
        await fetch("http://no-such-host.invalid:80")


async def test_a_server_that_does_not_accept_is_given_up_at_the_connect_limit() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            with pytest.raises(ConnectFailed):
                await fetch(f"http://127.0.0.1:{listener.getsockname()[1]}", connect=0.1)
        finally:
            for filler in fillers:
                filler.close()


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(OK) as proxy, wire(OK) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.lower(), proxy.url)
        assert await fetch(server.url) == b"hi"
    assert proxy.connections == 0
    assert server.connections == 1


async def test_a_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login canary password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with wire(OK) as server:
        await fetch(server.url)
    assert b"authorization" not in server.received[0].lower()
