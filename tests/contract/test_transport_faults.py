"""The transport's seam: what fails below it is one of httpx's errors above it."""

from __future__ import annotations

import ssl

import httpx
import pytest

from gateway.upstream.connection import Cut, Garbled, Overdue, Stale, Unanswered
from gateway.upstream.dialer import HandshakeTimeout
from gateway.upstream.pool import PoolFull
from gateway.upstream.transport import (
    BrokenOff,
    Certificates,
    Disconnected,
    GatewayTransport,
    Malformed,
    as_httpx,
    make_transport,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(Stale(), Disconnected, id="stale"),
        pytest.param(Unanswered(), Disconnected, id="unanswered"),
        pytest.param(Cut(), BrokenOff, id="cut"),
        pytest.param(Garbled("bad chunk size"), Malformed, id="garbled"),
        pytest.param(Overdue(), httpx.ReadTimeout, id="silent"),
        pytest.param(PoolFull(), httpx.PoolTimeout, id="no-place"),
        pytest.param(TimeoutError(), httpx.ConnectTimeout, id="connecting-took-too-long"),
        pytest.param(HandshakeTimeout(), httpx.ConnectTimeout, id="handshake-took-too-long"),
        pytest.param(ConnectionRefusedError(111, "refused"), httpx.ConnectError, id="refused"),
        pytest.param(ssl.SSLError(1, "bad"), httpx.ConnectError, id="tls"),
    ],
)
def test_each_failure_has_its_httpx_error(error: Exception, kind: type[Exception]) -> None:
    assert type(as_httpx(error)) is kind  # type: ignore[arg-type]  # the table holds both kinds it takes


def test_whether_an_answer_had_begun_can_be_told_from_the_error() -> None:
    assert issubclass(Disconnected, httpx.RemoteProtocolError)
    assert issubclass(BrokenOff, httpx.ReadError)
    assert issubclass(Malformed, httpx.RemoteProtocolError)
    assert not issubclass(Malformed, Disconnected)


def test_the_tls_context_verifies_and_is_made_once() -> None:
    certificates = Certificates(None, None, None)
    context = certificates()
    assert context is certificates()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_slots_bound_the_connections_and_a_probe_may_come_beside() -> None:
    transport = make_transport(slots=3, ca_file=None, cert_file=None, key_file=None)
    assert isinstance(transport, GatewayTransport)
    assert transport._most == 5
