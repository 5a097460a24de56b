"""Servers that DNS names come and go under a gateway on real ports: streams end whole, newcomers are used.

The servers of a name listen on 127.0.0.2, 127.0.0.3 and so on, all on one port, as the pods of a headless
service do; the name server is a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.config import Config
from gateway.server import RunningPlanes, running
from gateway.simulator import Options, Simulator
from gateway.telemetry.logs.events import configure
from tests.faults.checks import playing
from tests.support.certificates import certificates
from tests.support.fleet import Server
from tests.support.nameserver import Mood, NameServer, nameserver
from tests.support.peer import peer
from tests.support.stack import UNPROBED, configured, wait_until
from tests.support.tapes import tape

NAME = "cards.models.svc"
ANSWER = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"
BODY = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


@dataclass
class House:
    """Servers by host, the name server that names them, and a gateway."""

    dns: NameServer
    servers: dict[str, Simulator]
    run: RunningPlanes
    http: httpx.AsyncClient
    log: io.StringIO = field(repr=False)

    @property
    def backends(self) -> dict[str, tuple[str, ...]]:
        """The backends of the gateway now, and where each of them is."""
        return {name: one.settings.addresses for name, one in self.run.gateway.fleet.items()}

    def lines(self, event: str = "discovery") -> list[dict[str, Any]]:
        lines = map(json.loads, self.log.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    def names(self, *hosts: str) -> None:
        """Make the name server name these."""
        self.dns.zone = {(NAME, "A"): list(hosts)} if hosts else {}

    async def wait_backends(self, *hosts: str) -> None:
        """Wait until the gateway goes by these."""
        await wait_until(lambda: sorted(self.backends.values()) == sorted((host,) for host in hosts))

    async def wait_asked(self, times: int = 3) -> None:
        """Wait until the name server has been asked a few times more."""
        due = self.dns.count(NAME, "A") + times
        await wait_until(lambda: self.dns.count(NAME, "A") >= due)

    def metric(self, name: str, **labels: str) -> float:
        text = self.run.gateway.metrics.render()[0].decode()
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        found = re.search(rf"^{name}\{{{wanted}\}} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else -1

    async def ready(self) -> tuple[int, Any]:
        answer = await self.http.get("/readyz?verbose")
        return answer.status_code, answer.json()


def service(port: int, dns: NameServer, extra: str = "", *, name: str = NAME, **more: Any) -> Config:
    """The configuration of one service, `cards`."""
    url = f"http://{name}:{port}" if port else f"http://{name}"
    table = {"discover": "dns4", "slots": 4, **more}
    return configured({"cards": (url, "openai")}, UNPROBED + dns.toml() + extra, **table)


@contextlib.asynccontextmanager
async def house(
    *hosts: str, named: tuple[str, ...] | None = None, speed: float = 0, **table: Any
) -> AsyncIterator[House]:
    """Servers on these hosts, of which the name server names some (all, unless told)."""
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(nameserver())
        servers: dict[str, Simulator] = {}
        port = 0
        for host in hosts:
            options = Options(dialect="openai", host=host, port=port, reply=ANSWER, speed=speed)
            servers[host] = await stack.enter_async_context(Simulator(options))
            port = servers[host].port
        log = io.StringIO()
        named = hosts if named is None else named
        dns.zone = {(NAME, "A"): list(named)} if named else {}
        settings = service(port, dns, **table)
        run = await stack.enter_async_context(running(settings, logs=configure("json", "debug", log)))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=run.url, trust_env=False, timeout=30)
        )
        one = House(dns, servers, run, http, log)
        await one.wait_backends(*named)
        yield one
        assert one.lines("crash") == []


async def ask(one: House, *, stream: bool = False) -> str:
    """Ask once; the name of the backend that has given the whole answer."""
    answer = await one.http.post("/v1/chat/completions", json=BODY | {"stream": stream})
    assert answer.status_code == 200, answer.text
    if stream:
        events = re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)
        assert events[-1] == "[DONE]", answer.text
        choices = [json.loads(event)["choices"] for event in events[:-1]]
        said = "".join(choice[0]["delta"].get("content") or "" for choice in choices if choice)
    else:
        said = answer.json()["choices"][0]["message"]["content"]
    assert said == ANSWER
    return answer.headers["x-gateway-backend"]


async def test_servers_come_and_go_while_streams_run_and_none_is_cut() -> None:
    async with house("127.0.0.2", "127.0.0.3", "127.0.0.4", named=("127.0.0.2",), speed=100) as one:
        ends = False
        served: Counter[str] = Counter()

        async def client(number: int) -> None:
            while not ends:
                served[await ask(one, stream=number % 3 > 0)] += 1

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(client(number))
            first, second, third = one.servers.values()
            for hosts, newcomer in (
                (["127.0.0.2", "127.0.0.3"], second),
                (["127.0.0.3", "127.0.0.4"], third),
                (["127.0.0.2", "127.0.0.3", "127.0.0.4"], first),
            ):
                newcomer.reset()
                one.names(*hosts)
                await wait_until(lambda newcomer=newcomer: newcomer.completed >= 3)
                if len(hosts) == 2 and newcomer is third:  # who has gone ends what it has, and gets no more
                    await wait_until(lambda: first.in_flight == 0)
                    before = first.started
                    await wait_until(lambda: third.completed >= 8)
                    assert first.started == before
                    assert first.completed == before
            ends = True
        assert set(served) <= {"cards-0", "cards-1", "cards-2"}
        assert one.metric("gateway_discovery_members", service="cards") == 3
        assert len(one.lines()) == 4


async def test_no_request_is_lost_while_members_change_all_the_time_and_most_requests_wait() -> None:
    hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    async with house(*hosts, speed=400, slots=1) as one:
        ends = False

        async def client(number: int) -> None:
            while not ends:
                await ask(one, stream=number % 2 > 0)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(client(number))
            for step in range(24):
                named = [host for place, host in enumerate(hosts) if (step % 7 + 1) >> place & 1]
                one.names(*named)
                await one.wait_backends(*named)
            ends = True
        assert all(server.completed == server.started for server in one.servers.values())
        assert all(server.max_in_flight == 1 for server in one.servers.values())


async def test_who_waits_is_served_by_a_newcomer() -> None:
    async with house("127.0.0.2", "127.0.0.3", named=("127.0.0.2",), speed=20, slots=1) as one:
        busy = asyncio.ensure_future(ask(one, stream=True))
        await wait_until(lambda: one.servers["127.0.0.2"].in_flight == 1)
        waiting = asyncio.ensure_future(ask(one))
        await wait_until(lambda: one.run.gateway.dispatcher.queue_depth("m") == 1)
        one.names("127.0.0.2", "127.0.0.3")
        await wait_until(lambda: one.servers["127.0.0.3"].started == 1)
        assert not busy.done()
        assert [await busy, await waiting] == ["cards-0", "cards-1"]


async def test_a_newcomer_does_not_wait_for_the_streams_of_who_was_there_before() -> None:
    async with house("127.0.0.2", "127.0.0.3", named=("127.0.0.2",), speed=20, slots=1) as one:
        busy = asyncio.ensure_future(ask(one, stream=True))
        await wait_until(lambda: one.servers["127.0.0.2"].in_flight == 1)
        one.names("127.0.0.3")
        await one.wait_backends("127.0.0.3")
        assert one.backends == {"cards-1": ("127.0.0.3",)}
        new = asyncio.ensure_future(ask(one))
        await wait_until(lambda: one.servers["127.0.0.3"].started == 1)
        assert not busy.done()
        assert [await busy, await new] == ["cards-0", "cards-1"]


async def test_a_name_that_does_not_resolve_at_the_start_joins_later() -> None:
    async with house("127.0.0.2", named=()) as one:
        await one.wait_asked()
        models = (await one.http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == ["m"]
        answer = await one.http.post("/v1/chat/completions", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_backend")
        assert int(answer.headers["retry-after"]) >= 1
        status, checks = await one.ready()
        assert (status, checks["backends"]) == (503, {})
        assert checks["discovery"] == {"cards": {"members": 0, "left_out": 0, "result": "nxdomain"}}
        assert one.metric("gateway_queue_rejected_total", model="m", reason="no_backend") == 1
        one.names("127.0.0.2")
        await one.wait_backends("127.0.0.2")
        assert await ask(one) == "cards-0"
        status, checks = await one.ready()
        assert (status, checks["backends"]) == (200, {"cards-0": True})


@pytest.mark.parametrize(
    ("mood", "result"),
    [("silent", "timeout"), ("servfail", "servfail"), ("well", "nxdomain")],
)
async def test_without_an_answer_the_last_one_stays_and_that_is_told_once(mood: Mood, result: str) -> None:
    async with house("127.0.0.2") as one:
        one.dns.mood = mood
        one.names()
        await one.wait_asked(3)
        await wait_until(
            lambda: one.metric("gateway_discovery_lookups_total", service="cards", result=result) >= 2
        )
        assert await ask(one) == "cards-0"
        one.dns.mood = "well"
        one.names("127.0.0.2")
        await wait_until(lambda: len(one.lines()) == 3)
        began, failed, back = one.lines()
        assert (began["result"], began["added"]) == ("ok", {"cards-0": "127.0.0.2"})
        assert (failed["level"], failed["result"], failed["members"]) == ("warning", result, 1)
        assert (back["level"], back["result"], back["added"], back["removed"]) == ("info", "ok", {}, {})
        assert one.metric("gateway_discovery_last_success_timestamp_seconds", service="cards") > 1e9


async def test_a_reload_keeps_what_dns_has_named() -> None:
    async with house("127.0.0.2", "127.0.0.3") as one:
        before = one.run.gateway.fleet["cards-0"]
        one.dns.mood = "silent"
        more = '[[models]]\nname = "m"\naliases = ["n"]\n'
        port = one.servers["127.0.0.2"].port
        one.run.reconfigure(service(port, one.dns, more, weight=7))
        assert sorted(one.backends) == ["cards-0", "cards-1"]
        assert one.run.gateway.fleet["cards-0"] is before
        assert before.settings.weight == 7
        answer = await one.http.post("/v1/chat/completions", json=BODY | {"model": "n"})
        assert answer.status_code == 200
        one.run.reconfigure(service(port, one.dns, more, max_discovered=1))
        assert one.backends == {"cards-0": ("127.0.0.2",)}
        one.dns.mood = "well"
        await wait_until(lambda: one.lines()[-1]["left_out"] == 1)
        assert one.metric("gateway_discovery_left_out", service="cards") == 1


async def test_a_reload_that_asks_for_another_name_begins_anew_and_one_without_ends_the_asking() -> None:
    async with house("127.0.0.2") as one:
        port = one.servers["127.0.0.2"].port
        one.run.reconfigure(service(port, one.dns, name="other.svc"))
        assert one.backends == {}
        one.dns.zone["other.svc", "A"] = ["127.0.0.2"]
        await one.wait_backends("127.0.0.2")
        one.run.reconfigure(configured({"fixed": (f"http://127.0.0.2:{port}", "openai")}, UNPROBED))
        assert await ask(one) == "fixed"
        await wait_until(lambda: "discovery" not in repr(one.run.gateway.background))
        assert (await one.ready())[1].keys() == {"status", "draining", "backends"}


async def test_srv_records_give_ports_and_only_the_first_class_is_used() -> None:
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(nameserver())
        servers = [
            await stack.enter_async_context(Simulator(Options(dialect="openai", reply=ANSWER)))
            for _ in range(3)
        ]
        name, targets = "_http._tcp.cards.svc", ["a.svc", "b.svc", "spare.svc"]
        records = [
            f"{priority} {weight} {server.port} {target}."
            for server, target, priority, weight in zip(
                servers, targets, (10, 10, 20), (30, 10, 0), strict=True
            )
        ]
        dns.zone = {(name, "SRV"): records} | {(target, "A"): ["127.0.0.1"] for target in targets}
        settings = service(
            0, dns, '[[models]]\nname = "m"\nbalance = "weighted"\n', name=name, discover="srv"
        )
        run = await stack.enter_async_context(running(settings))
        await wait_until(lambda: len(run.gateway.fleet) == 2)
        urls = {one.settings.url for one in run.gateway.fleet.values()}
        assert urls == {f"http://cards.svc:{server.port}" for server in servers[:2]}
        async with httpx.AsyncClient(base_url=run.url, trust_env=False) as http:

            async def ask_all(times: int) -> None:
                for _ in range(times):
                    answer = await http.post("/v1/chat/completions", json=BODY)
                    assert answer.status_code == 200

            await ask_all(8)
            assert [server.started for server in servers] == [6, 2, 0]
            (first,) = {record.headers["host"] for record in servers[0].requests}
            assert first == f"cards.svc:{servers[0].port}"
            del dns.zone[name, "SRV"][:2]
            await wait_until(lambda: len(run.gateway.fleet) == 1)
            await ask_all(2)
            assert servers[2].started == 2


@pytest.mark.parametrize(("certificate", "status"), [("server", 200), ("elsewhere", 502)])
async def test_certificates_are_checked_for_the_name_that_was_written(certificate: str, status: int) -> None:
    made = certificates()
    good = await tape(Server("openai", "openai"), stream=False)
    async with (
        nameserver({("localhost", "A"): ["127.0.0.1"]}) as dns,
        peer(playing(good.sized), made.server_context(certificate)) as here,
    ):
        url = f"https://localhost:{urlsplit(here.url).port}"
        settings = configured(
            {"cards": (url, "openai")}, UNPROBED + dns.toml(), discover="dns", tls={"ca_file": made.ca}
        )
        async with running(settings) as run, httpx.AsyncClient(base_url=run.url, trust_env=False) as http:
            await wait_until(lambda: len(run.gateway.fleet) == 1)
            answer = await http.post("/v1/chat/completions", json=BODY)
            assert answer.status_code == status
            if status == 502:
                assert answer.json()["error"]["code"] == "upstream_tls"


async def shell(*words: str) -> str:
    """What a command prints; it must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_process_of_its_own_follows_dns_over_signals_and_tells_of_it(tmp_path: Path) -> None:
    file, request = tmp_path / "config.toml", tmp_path / "request.json"
    request.write_text(json.dumps(BODY))
    async with (
        nameserver({(NAME, "A"): ["127.0.0.1"]}) as dns,
        Simulator(Options(dialect="openai", reply=ANSWER)) as server,
    ):
        table = f'[[backends]]\nname = "cards"\nurl = "http://{NAME}:{server.port}"\ndialect = "openai"\n'
        planes = '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
        text = planes + dns.toml() + table + 'models = ["m"]\ndiscover = "dns"\n'
        file.write_text(text)
        assert 'discover = "dns"' in await shell("check", "--show", "--config", str(file))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(file), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                lines: list[dict[str, Any]] = []

                async def wait_line(event: str) -> dict[str, Any]:
                    assert process.stdout is not None
                    while not lines or lines[-1]["event"] != event:
                        lines.append(json.loads(await process.stdout.readline()))
                    return lines[-1]

                start = await wait_line("start")
                assert (await wait_line("discovery"))["added"] == {"cards-0": "127.0.0.1"}
                explain = ("explain", str(request), "--config", str(file), "--url", start["admin"])
                assert "- cards-0 (openai): up, 0 of 8 slots taken" in await shell(*explain)
                dns.mood = "silent"
                file.write_text(text + '[[models]]\nname = "m"\naliases = ["n"]\n')
                process.send_signal(signal.SIGHUP)
                assert (await wait_line("reload"))["result"] == "ok"
                async with httpx.AsyncClient(base_url=start["data"], trust_env=False, timeout=30) as http:
                    answer = await http.post("/v1/chat/completions", json=BODY | {"model": "n"})
                assert (answer.status_code, answer.headers["x-gateway-backend"]) == (200, "cards-0")
                assert (await wait_line("discovery"))["result"] == "timeout"
                process.send_signal(signal.SIGHUP)
                assert (await wait_line("reload"))["result"] == "unchanged"
                process.terminate()
                assert await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
