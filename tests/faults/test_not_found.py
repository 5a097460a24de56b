"""A backend answers 404 or 405: its url or dialect is wrong. It is told, and not taken for an outage."""

from __future__ import annotations

import httpx
import pytest

from tests.faults.checks import BOTH, EVERY, ONCE, SECRET, check_good, check_refused, over, playing, tries
from tests.support.fleet import Server
from tests.support.peer import peer
from tests.support.site import Site
from tests.support.tapes import REPLY, tape
from tests.support.visitor import ask


def answering(status: int, body: str = SECRET) -> bytes:
    head = [f"HTTP/1.1 {status} No", "content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "", body]).encode()


def notes(gateway: Site) -> list[str]:
    return [line["message"] for line in gateway.lines if "answered 40" in line.get("message", "")]


async def faults(gateway: Site) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        found: dict[str, str] = (await http.get("/readyz?verbose")).json().get("faults", {})
    return found


@EVERY
@BOTH
@pytest.mark.parametrize("status", [404, 405])
async def test_it_is_told_and_never_an_outage(server: Server, stream: bool, status: int) -> None:
    async with (
        peer(playing(*[answering(status)] * 6)) as here,
        over(server, here.url, extra=ONCE) as gateway,
    ):
        for _ in range(6):
            answer = await ask(gateway, stream=stream)
            check_refused(answer, 502, "upstream_not_found")
        assert tries(gateway, "upstream_5xx") == 6
        assert gateway.gateway.dispatcher.usable() == {"gpu-0": True}
        (note,) = notes(gateway)
        assert note.startswith(f"POST {here.url}/")
        assert note.endswith(f" answered {status}: is the dialect or the url right?")
        assert await faults(gateway) == {"gpu-0": note}


@pytest.mark.parametrize(
    "body",
    [
        '{"object": "error", "message": "The model `m` does not exist.", "code": 404}',
        '{"error": {"message": "model \\"m\\" not found, try pulling it first"}}',
        '{"detail": "Model m is unknown"}',
    ],
)
async def test_unknown_model_is_asked_about_by_name(body: str) -> None:
    server = Server("openai", "openai")
    async with peer(playing(answering(404, body))) as here, over(server, here.url, extra=ONCE) as gateway:
        check_refused(await ask(gateway, stream=False), 502, "upstream_not_found")
        (note,) = notes(gateway)
    assert note.endswith("/v1/chat/completions answered 404: is served_name or models right?")


@EVERY
async def test_fault_is_forgotten_with_the_next_good_answer(server: Server) -> None:
    good = await tape(server, stream=False)
    async with (
        peer(playing(answering(404), good.chunked, answering(404))) as here,
        over(server, here.url, extra=ONCE) as gateway,
    ):
        await ask(gateway, stream=False)
        assert list(await faults(gateway)) == ["gpu-0"]
        check_good(await ask(gateway, stream=False), REPLY)
        assert await faults(gateway) == {}
        await ask(gateway, stream=False)
        assert len(notes(gateway)) == 2


@EVERY
@BOTH
async def test_another_backend_answers(server: Server, stream: bool) -> None:
    good = await tape(server, stream=stream)
    async with (
        peer(playing(answering(404))) as here,
        peer(playing(good.chunked)) as other,
        over(server, here.url, other.url) as gateway,
    ):
        check_good(await ask(gateway, stream=stream), REPLY)
