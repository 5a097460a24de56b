"""Both planes on real ports: they begin together, and end in order, with what is in flight finished first."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway import server
from gateway.config import Config
from gateway.server import RunningPlanes, running
from gateway.telemetry.logs.events import configure
from tests.support.asgi import chat, with_server
from tests.support.servers import Servers, held, native, streaming, talk, whole
from tests.support.stack import configured, wait_until
from tests.support.wires import wire


def settings(servers: Servers, dialect: str = "openai", **changes: object) -> Config:
    return with_server(configured(servers.urls(dialect)), **changes)


@asynccontextmanager
async def served(
    servers: Servers, dialect: str = "openai", **changes: object
) -> AsyncIterator[RunningPlanes]:
    logs = configure("json", "critical", io.StringIO())
    async with running(settings(servers, dialect, **changes), logs=logs, transport=servers.transport) as run:
        yield run


@asynccontextmanager
async def client(run: RunningPlanes) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=20, verify=False) as http:
        yield http


async def raw(run: RunningPlanes, request: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(run.url.rpartition(":")[2]))
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


# --- beginning -------------------------------------------------------------------------------------


async def test_both_planes_answer_on_their_own_ports() -> None:
    async with served(Servers(a=whole())) as run:
        assert run.url != run.admin_url
        async with client(run) as http:
            assert (await http.get("/livez")).status_code == 200
            assert (await http.get("/metrics")).status_code == 404
            assert (await http.get(f"{run.admin_url}/metrics")).status_code == 200
            assert (await http.get(f"{run.admin_url}/v1/models")).status_code == 404
            assert (await http.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_an_address_in_use_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="in use"):
            async with served(Servers(a=whole()), listen=listen):
                raise AssertionError("it began")


async def test_a_plane_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served(Servers(a=whole()), listen=f"unix:{path}") as run:
        assert run.url == f"http+unix://{path}"
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/livez")).status_code == 200
    assert not path.exists()


async def test_a_unix_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with served(Servers(a=whole()), listen=f"unix:{path}"):
        assert path.is_socket()


async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        async with served(Servers(a=whole()), listen=f"unix:{path}"):
            raise AssertionError("it began")
    assert path.read_text() == "mine"


# --- what reaches the application ------------------------------------------------------------------


ODD_TARGETS = (
    "//",
    "/v1/../metrics",
    "/%2e%2e/metrics",
    "/v1/%2e%2e/metrics",
    "/v1%2fchat%2fcompletions%2f",
    "/v1/chat/completions%00",
    "/v1/chat/completions%0a",
    "/livez;x=y",
)


async def test_odd_targets_are_a_404_in_the_envelope() -> None:
    async with served(Servers(a=whole())) as run:
        for target in ODD_TARGETS:
            answer = await raw(
                run, f"GET {target} HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n".encode()
            )
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404 "), target
            assert json.loads(body)["error"]["code"] == "not_found"
            assert b"server:" not in head.lower()


async def test_length_and_chunks_together_are_refused_and_nothing_is_smuggled() -> None:
    servers = Servers(a=whole())
    smuggled = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    async with served(servers) as run:
        answer = await raw(run, head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert servers.order == []


async def test_a_head_request_gets_a_head_alone() -> None:
    async with served(Servers(a=whole())) as run:
        answer = await raw(run, b"HEAD /v1/models HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_stream_arrives_while_it_is_made() -> None:
    release = asyncio.Event()
    servers = Servers(a=streaming(*talk("one", "two"), until=release, at=2))
    async with (
        served(servers) as run,
        client(run) as http,
        http.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as reply,
    ):
        lines = reply.aiter_lines()
        while '"one"' not in await anext(lines):
            pass
        release.set()
        rest = [line async for line in lines]
    assert rest[-2] == "data: [DONE]"


async def test_a_client_that_hangs_up_frees_the_card() -> None:
    never = asyncio.Event()
    servers = Servers(a=streaming(*talk("one", "two"), until=never, at=2))
    async with served(servers) as run, client(run) as http:
        async with http.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as reply:
            assert '"role"' in await anext(reply.aiter_lines())
            assert run.gateway.dispatcher.in_flight("a") == 1
        await wait_until(lambda: run.gateway.dispatcher.in_flight("a") == 0)


# --- ending ----------------------------------------------------------------------------------------


async def test_what_is_in_flight_is_finished_before_the_end() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native("hello")))
    async with asyncio.TaskGroup() as group, served(servers, "chatglm2") as run:
        reply = group.create_task(_ask(run))
        await wait_until(lambda: servers.order == ["a"])
        leaving = group.create_task(_release_when_draining(run, release))
        await wait_until(lambda: run.planes[1].admission.total_requests == 1)
    assert leaving.done()
    assert (await reply).json()["choices"][0]["message"]["content"] == "hello"
    with pytest.raises(ConnectionRefusedError):
        await raw(run, b"")


async def _ask(run: RunningPlanes) -> httpx.Response:
    async with client(run) as http:
        return await http.post("/v1/chat/completions", json=chat())


async def _release_when_draining(run: RunningPlanes, release: asyncio.Event) -> None:
    async with httpx.AsyncClient(base_url=run.admin_url, trust_env=False, verify=False) as http:
        assert (await http.get("/readyz")).status_code == 200
        await wait_until(lambda: run.gateway.lifecycle.draining)
        assert (await http.get("/readyz")).status_code == 503
    with pytest.raises(ConnectionRefusedError):  # the next gateway may have the address
        await asyncio.open_connection(*run.admin_url.removeprefix("http://").split(":"))
    release.set()


async def test_who_comes_or_waits_while_it_takes_its_leave_is_served() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native("hello")))
    async with asyncio.TaskGroup() as group, served(servers, "chatglm2", drain_delay=60) as run:
        first = group.create_task(_ask(run))
        await wait_until(lambda: servers.order == ["a"])
        late = group.create_task(_ask_when_leaving(run, release))
    replies = [await first, await late]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert [reply.headers["connection"] for reply in replies] == ["close", "close"]


async def _ask_when_leaving(run: RunningPlanes, release: asyncio.Event) -> httpx.Response:
    await wait_until(lambda: run.gateway.lifecycle.leaving)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_ask(run))
        await wait_until(lambda: run.gateway.dispatcher.queue_depth("m") == 1)
        assert not run.gateway.lifecycle.draining
        release.set()
    run.hurried.set()  # or it would go on for a minute
    return await call


async def _serve_until(url: str, stops: asyncio.Queue[str], log: io.StringIO) -> int:
    settings = configured({"a": (url, "openai")})
    return await server._serve_until(settings, Path("test.toml"), configure("json", "info", log), stops, {})


async def test_a_signal_ends_it_with_status_0() -> None:
    log, stops = io.StringIO(), asyncio.Queue[str]()
    stops.put_nowait("SIGTERM")
    async with asyncio.timeout(20):
        assert await _serve_until("http://127.0.0.1:1", stops, log) == 0
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    first, last = [line for line in lines if line["event"] != "backend_down"]  # as its probe may tell
    assert (first["event"], first["backends"]) == ("start", 1)
    assert first["data"].startswith("http://127.0.0.1:")
    assert (last["event"], last["reason"]) == ("stop", "SIGTERM")


async def test_a_second_signal_ends_it_at_once_with_status_1() -> None:
    log, stops = io.StringIO(), asyncio.Queue[str]()
    async with asyncio.timeout(20), wire(end="hang") as silent, asyncio.TaskGroup() as group:
        task = group.create_task(_serve_until(silent.url, stops, log))
        await wait_until(lambda: "start" in log.getvalue())
        url = json.loads(log.getvalue().splitlines()[0])["data"]
        call = group.create_task(_ask_in_vain(url))
        await wait_until(lambda: any(one.startswith(b"POST") for one in silent.received))
        stops.put_nowait("SIGTERM")
        await wait_until(lambda: "stop" in log.getvalue())
        assert not task.done()
        stops.put_nowait("SIGINT")
        assert await task == 1
        await call


async def _ask_in_vain(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20, verify=False) as http:
        with contextlib.suppress(httpx.TransportError):  # a refusal, if there is time for one
            assert (await http.post("/v1/chat/completions", json=chat())).status_code >= 500
