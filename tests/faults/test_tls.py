"""A backend's TLS is not in order: never plain text instead, and the log names the reason, not the key."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checks import PROMPT, check_good, check_refused, limits, playing, stay_silent, tries
from tests.support.certificates import Certificates, certificates
from tests.support.fleet import Server
from tests.support.peer import Script, peer
from tests.support.site import site
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask

OPENAI = Server("openai", "openai")
KEY = "canary-key-4711"


def old(made: Certificates) -> ssl.SSLContext:
    """A server that knows TLS 1.1 at most."""
    context = made.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def demanding(made: Certificates) -> ssl.SSLContext:
    """A server that wants a certificate of ours, and says so within the handshake."""
    context = made.server_context(demand_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


BAD: dict[str, Callable[[Certificates], ssl.SSLContext]] = {
    "expired": lambda made: made.server_context("expired"),
    "wrong-name": lambda made: made.server_context("elsewhere"),
    "client-certificate-demanded": demanding,
    "self-signed": lambda made: made.server_context(),
    "tls-1.1": old,
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", [*BAD, "plain"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the old versions that are tried are deprecated
async def test_it_is_a_502_and_nothing_was_said(fault: str, stream: bool) -> None:
    made = certificates()
    requests: list[bytes] = []
    context = BAD[fault](made) if fault in BAD else None
    trust: dict[str, Any] = {} if fault == "self-signed" else {"tls": {"ca_file": made.ca}}
    async with peer(playing(b"HTTP/1.1 200 OK\r\n\r\n", requests=requests), context) as here:
        url = here.url.replace("http://", "https://")
        async with site({"gpu-0": (url, "openai")}, limits(connect=1), api_key=KEY, **trust) as gateway:
            answer = await ask(gateway, stream=stream)
            assert tries(gateway, "connect") == 1
            assert KEY not in gateway.log.getvalue()
    check_refused(answer, 502, "upstream_tls")
    assert KEY.encode() not in answer.body
    assert not any(KEY.encode() in request for request in requests)


async def test_a_certificate_demanded_after_the_handshake_is_a_502_too() -> None:
    made = certificates()
    async with peer(playing(b""), made.server_context(demand_client=True)) as here:
        async with site({"gpu-0": (here.url, "openai")}, tls={"ca_file": made.ca}) as gateway:
            answer = await ask(gateway)
    assert answer.status == 502
    assert answer.error["code"] in ("upstream_tls", "upstream_error"), "TLS 1.3 refuses like a bare end"


async def test_a_handshake_that_hangs_is_cut_at_the_connect_time_out() -> None:
    script: Script = stay_silent
    async with peer(script) as here:
        url = here.url.replace("http://", "https://")
        async with site({"gpu-0": (url, "openai")}, limits(connect=0.15)) as gateway:
            answer = await ask(gateway)
    assert answer.status in (502, 503)
    assert answer.error["code"] in ("upstream_tls", "no_backend")
    assert answer.seconds < PROMPT


async def test_one_that_is_in_order_serves() -> None:
    made = certificates()
    good = await tape(OPENAI, stream=True)
    async with peer(playing(good.chunked), made.server_context()) as here:
        async with site({"gpu-0": (here.url, "openai")}, tls={"ca_file": made.ca}) as gateway:
            check_good(await ask(gateway, stream=True), REPLY)
