"""The lean client sends what httpx would send, and can be mocked like httpx."""

from __future__ import annotations

import httpx
import pytest
import respx

from gateway.upstream.probe_client import ProbeClient


def client(handler: object = None) -> ProbeClient:
    transport = httpx.MockTransport(handler) if callable(handler) else None
    return ProbeClient(
        base_url="http://gpu-0:8000",
        headers={"authorization": "Bearer k"},
        transport=transport,
        trust_env=False,
    )


async def test_a_mock_transport_sees_the_request() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    async with client(handler) as http:
        response = await http.post("/v1/chat/completions", content=b"{}")
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://gpu-0:8000/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer k"
    assert response.json() == {"ok": True}
    assert response.request is request


async def test_respx_sees_the_request_when_it_patches_httpx() -> None:
    async with client() as http:
        with respx.mock(using="httpx") as router:
            route = router.post("http://gpu-0:8000/x", json={"a": 1}).respond(201, text="made")
            response = await http.post("/x", json={"a": 1})
        assert (response.status_code, response.text) == (201, "made")
        assert route.call_count == 1


async def test_a_mount_decides_on_the_transport() -> None:
    mounted = httpx.MockTransport(lambda _: httpx.Response(200, text="mounted"))
    async with ProbeClient(base_url="http://h", mounts={"http://": mounted}, trust_env=False) as http:
        assert http.carrier(httpx.URL("http://h/")) is mounted
        assert (await http.get("/")).text == "mounted"


async def test_redirects_are_not_followed_and_cookies_not_kept() -> None:
    answer = httpx.Response(302, headers={"location": "/else", "set-cookie": "a=b"})
    async with client(lambda _: answer) as http:
        response = await http.get("/")
        assert response.status_code == 302
        assert dict(http.cookies) == {}


async def test_a_closed_client_sends_nothing() -> None:
    http = client(lambda _: httpx.Response(200))
    await http.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await http.get("/")
