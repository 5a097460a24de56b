"""Probes and trials against real ports: simulated servers, and servers of literal bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.background import Background
from gateway.dialects import DIALECTS
from gateway.dialects.base import Outgoing, Profile
from gateway.errors import OutOfDescriptors, UpstreamError, UpstreamReset
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.simulator import Options, Simulator
from gateway.telemetry.receipt import Hooks
from gateway.upstream.backend import Backend, limits
from gateway.upstream.client import Probed
from gateway.upstream.health_monitor import HealthMonitor
from gateway.upstream.prober import Prober, ProbeTarget, trial_for
from tests.support.fleet import SERVERS, Server
from tests.support.peer import Talk, answering, free_port, peer
from tests.support.stack import configured, wait_until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
BROKEN = UpstreamError("")
ANSWER = b'{"response": "2", "history": [], "status": 200, "t": 1}'


class House:
    """A prober of one backend, `a`, over a ward; it hands out the slots itself."""

    def __init__(self, url: str, dialect: str, rules: HealthRules, **check: Any) -> None:
        settings = configured({"a": (url, dialect)}, **check.pop("backend", {}))
        self.backend = Backend(settings.backends[0], clock=time.monotonic, transport=None)
        self.health = BackendHealth(1, rules, time.monotonic())
        self.health_monitor = HealthMonitor(
            {"a": self.health}, clock=time.monotonic, chance=lambda: 0.0, hook=Hooks()
        )
        self.ends: list[str] = []
        self.busy = 0
        self.crashes: list[BaseException] = []
        profile = self.backend.profile(settings.names["m"])
        self.check = ProbeTarget(
            path=check.get("path", self.backend.dialect.probe),
            timeout=check.get("timeout", 5.0),
            trial=check.get("trial", trial_for(self.backend.dialect, profile)),
            limits=limits(settings.timeouts),
            probed=check.get("probed", True),
        )
        self.prober = Prober(
            {"a": self.backend},
            {"a": self.check},
            self.health_monitor,
            time.monotonic,
            lambda _, end: self.ends.append(end),
            lambda _, error: self.crashes.append(error),
        )

    def in_flight(self, backend: str) -> int:
        assert backend == "a"
        return self.busy

    def hold(self, backend: str) -> bool:
        if self.in_flight(backend):
            return False
        self.busy += 1
        return True

    def let_go(self, backend: str) -> None:
        assert backend == "a"
        self.busy -= 1

    @property
    def state(self) -> str:
        """How the backend is."""
        return self.health_monitor.state("a")

    async def wait_state(self, state: str) -> None:
        """Wait until the backend is so."""
        await wait_until(lambda: self.state == state)

    async def wait_ends(self, count: int) -> list[str]:
        """Wait until so many probes or trials have ended; give their words."""
        await wait_until(lambda: len(self.ends) >= count)
        return self.ends[:count]


@asynccontextmanager
async def probing(
    url: str,
    dialect: str = "chatglm2",
    *,
    started: bool = True,
    rules: HealthRules | None = None,
    **check: Any,
) -> AsyncIterator[House]:
    """A prober at work, on a backend that is looked at every 10 ms."""
    house = House(url, dialect, rules or HealthRules(interval=0.01, slow_start=0), **check)
    background = Background()
    if started:
        house.prober.start(house, background)
    try:
        yield house
    finally:
        await background.aclose()
        await house.backend.aclose()


async def silent(talk: Talk) -> None:
    """Take requests and answer none."""
    await talk.wait_left()


# --- probes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
async def test_every_server_answers_the_probe_of_its_dialect(server: Server) -> None:
    async with (
        Simulator(server.options()) as simulator,
        probing(simulator.url, server.dialect, backend=server.backend) as house,
    ):
        assert await house.wait_ends(3) == ["ok", "ok", "ok"]
    assert simulator.started == 0
    assert {(record.method, record.path) for record in simulator.requests} == {("GET", house.check.path)}


@pytest.mark.parametrize(
    ("status", "end"),
    [(200, "ok"), (401, "ok"), (404, "ok"), (405, "ok"), (500, "bad_status"), (503, "bad_status")],
)
async def test_any_answer_but_a_failure_is_a_sign_of_life(status: int, end: str) -> None:
    answer = b"HTTP/1.1 %d Some\r\ncontent-length: 0\r\n\r\n" % status
    async with peer(answering(*[answer] * 100)) as server, probing(server.url) as house:
        assert await house.wait_ends(1) == [end]


async def test_a_path_of_the_operators_is_asked_instead_of_the_dialects() -> None:
    requests: list[bytes] = []
    async with (
        peer(answering(*[OK] * 100, requests=requests)) as server,
        probing(server.url, path="/alive?deep=1") as house,
    ):
        await house.wait_ends(2)
    assert requests[0].startswith(b"GET /alive?deep=1 HTTP/1.1\r\n")


async def test_probes_share_one_connection() -> None:
    async with peer(answering(*[OK] * 1000)) as server, probing(server.url) as house:
        await house.wait_ends(10)
        assert server.seen == 1


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"

    async def endless(talk: Talk) -> None:
        await talk.wait_request()
        await talk.send(head)
        while True:
            await talk.send(b" " * 65536)

    async with peer(endless) as server, probing(server.url) as house:
        assert await house.wait_ends(2) == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        pytest.param(b"", "failed", id="no-byte"),
        pytest.param(b"\x00\xffnonsense\r\n\r\n", "failed", id="no-http"),
        pytest.param(UNAVAILABLE, "bad_status", id="503"),
    ],
)
async def test_a_backend_that_fails_its_probes_goes_down(answer: bytes, end: str) -> None:
    async with peer(answering(answer, end="close")) as server, probing(server.url) as house:
        await house.wait_state("down")
    assert house.ends[:3] == [end] * 3
    assert house.health.reason == f"probe_{end}"


async def test_a_backend_that_is_silent_while_idle_goes_down() -> None:
    async with peer(silent) as server, probing(server.url, timeout=0.02) as house:
        await house.wait_state("down")
    assert house.ends[:3] == ["timeout"] * 3


async def test_a_refused_port_is_dead_at_once_and_back_when_somebody_listens() -> None:
    port = free_port()
    async with probing(f"http://127.0.0.1:{port}") as house:
        await house.wait_state("down")
        assert house.ends == ["refused"]
        async with Simulator(Options(port=port)):
            await house.wait_state("up")
    assert house.ends[-2:] == ["ok", "ok"]


async def test_a_backend_at_work_for_us_is_left_alone() -> None:
    async with peer(answering(*[OK] * 1000)) as server, probing(server.url, started=False) as house:
        house.busy = 1
        background = Background()
        house.prober.start(house, background)
        looks = [house.health.errand_at]
        await wait_until(lambda: house.health.errand_at > looks[0] + 0.03)
        assert (server.seen, house.ends) == (0, [])
        house.busy = 0
        await house.wait_ends(1)
        await background.aclose()


@pytest.mark.parametrize("what", ["began", "came-and-went"])
async def test_a_probe_that_times_out_while_work_came_says_nothing(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    rules, background = HealthRules(fall=1, interval=0.01), Background()
    async with peer(silent) as server, probing(server.url, timeout=0.02, rules=rules, started=False) as house:
        probe = house.backend.client.probe

        async def beside_work(path: str) -> Probed:
            if what == "began":  # after the look at the slots, before the limit: however slow the machine is
                house.busy = 1
            else:
                house.health_monitor.tried("a", None)
            return await probe(path)

        monkeypatch.setattr(house.backend.client, "probe", beside_work)
        house.prober.start(house, background)
        assert await house.wait_ends(1) == ["busy"]
        assert house.state == "up"
        await background.aclose()


async def test_a_connection_that_broke_is_looked_into_though_the_backend_works() -> None:
    async with probing(
        f"http://127.0.0.1:{free_port()}", started=False, rules=HealthRules(interval=60)
    ) as house:
        house.health_monitor.skipped("a")
        house.busy = 1
        background = Background()
        house.prober.start(house, background)
        house.health_monitor.tried("a", UpstreamReset(""))
        await house.wait_state("down")
        await background.aclose()
    assert house.ends == ["refused"]


# --- trials ----------------------------------------------------------------------------------------


def make_sick(house: House) -> None:
    """Let three different requests fail, and a trial."""
    for _ in range(3):
        house.health_monitor.tried("a", BROKEN)
    house.health_monitor.trialled("a", BROKEN)
    assert house.state == "sick"


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
async def test_one_small_answer_brings_a_sick_backend_back(server: Server) -> None:
    async with (
        Simulator(server.options()) as simulator,
        probing(simulator.url, server.dialect, backend=server.backend) as house,
    ):
        make_sick(house)
        await house.wait_state("up")
        assert simulator.started == 1
        assert "trial_ok" in house.ends
    assert house.busy == 0


async def test_a_backend_stays_sick_as_long_as_its_trials_fail() -> None:
    faults = ("status:500*2", "garbage", "empty")
    async with Simulator(Options(faults=faults)) as simulator, probing(simulator.url) as house:
        make_sick(house)
        await house.wait_state("up")
        assert simulator.started == 5
    assert [end for end in house.ends if end.startswith("trial")] == ["trial_failed"] * 4 + ["trial_ok"]


async def test_a_trial_needs_a_slot_as_a_request_does() -> None:
    async with Simulator(Options()) as simulator, probing(simulator.url) as house:
        house.busy = 1  # an answer that nobody waits for still runs
        make_sick(house)
        first = house.health.errand_at
        await wait_until(lambda: house.health.errand_at > first + 0.03)
        assert (simulator.started, house.state) == (0, "sick")
        house.busy = 0
        await house.wait_state("up")


async def test_the_slot_is_held_as_long_as_the_trial_lasts() -> None:
    let_go = asyncio.Event()

    async def hold(_: float) -> None:
        await let_go.wait()

    async with Simulator(Options(latency=1.0, sleep=hold)) as simulator, probing(simulator.url) as house:
        make_sick(house)
        await wait_until(lambda: simulator.started == 1)
        assert house.busy == 1
        let_go.set()
        await house.wait_state("up")
    assert house.busy == 0


async def test_where_no_trial_can_be_made_a_user_is_let_through() -> None:
    async with Simulator(Options()) as simulator, probing(simulator.url, trial=None) as house:
        make_sick(house)
        await house.wait_state("half_open")
        house.health_monitor.tried("a", None)
        house.health_monitor.tried("a", None)
        assert house.state == "up"
        assert simulator.started == 0


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_a_trial_is_short_and_whole_in_every_dialect(dialect: str) -> None:
    trial = trial_for(DIALECTS[dialect], Profile(model="m"))
    assert isinstance(trial, Outgoing)
    assert not trial.streams
    assert trial.budget is None or trial.budget <= 16


def test_a_model_that_cannot_take_even_a_trial_has_none() -> None:
    assert trial_for(DIALECTS["chatglm"], Profile(model="m", context=4)) is None


async def test_backends_without_probes_are_left_alone() -> None:
    async with peer(answering(OK)) as server, probing(server.url, started=False) as house:
        background = Background()
        Prober(
            {"a": house.backend}, {}, house.health_monitor, time.monotonic, lambda *_: None, lambda *_: None
        ).start(house, background)
        assert len(background) == 0
        make_sick(house)
        assert server.seen == 0


async def test_a_backend_without_probes_is_tried_out_when_requests_fail() -> None:
    rules = HealthRules(interval=None, slow_start=0)
    async with peer(answering(OK, OK)) as server, probing(server.url, rules=rules, probed=False) as house:
        await house.prober.wait_first_looks(20)  # there are none to wait for
        assert (server.seen, house.ends) == (0, [])
        for request in range(3):
            house.health_monitor.tried("a", BROKEN, request, "one")
        assert await house.wait_ends(1) == ["trial_failed"]  # an empty answer is none
        assert (house.state, house.health.reason) == ("sick", "bad_payload")


async def test_after_a_reload_those_are_probed_that_are_there() -> None:
    async with (
        peer(answering(*[OK] * 1000)) as old,
        peer(answering(*[OK] * 1000)) as new,
        probing(old.url) as house,
    ):
        await house.wait_ends(1)
        background = Background()
        fresh = House(new.url, "chatglm2", HealthRules())
        house.health_monitor.reconfigure({"b": (1, HealthRules(interval=0.01))})
        house.prober.reconfigure({"b": fresh.backend}, {"b": house.check}, Idle(), background)
        await wait_until(lambda: new.seen == 1)
        await background.aclose()
        assert repr(house.prober) == "<Prober of b>"
        await fresh.backend.aclose()


async def test_a_trial_goes_on_while_others_change() -> None:
    until = asyncio.Event()

    async def script(talk: Talk) -> None:
        while (request := await talk.wait_request()).startswith(b"GET"):
            await talk.send(OK)
        if request:
            await until.wait()
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 55\r\n\r\n" + ANSWER)

    async with peer(script) as here, probing(here.url) as house:
        for _ in range(3):
            house.health_monitor.tried("a", BROKEN)
        await wait_until(lambda: house.busy == 1)
        watch = house.prober._watches["a"]
        background = Background()
        house.prober.reconfigure({"a": house.backend}, {"a": house.check}, house, background)
        assert house.prober._watches == {"a": watch}
        until.set()
        await wait_until(lambda: "trial_ok" in house.ends)
        other = replace(house.check, timeout=4.0)
        house.prober.reconfigure({"a": house.backend}, {"a": other}, house, background)
        assert house.prober._watches["a"] is not watch
        house.prober.reconfigure({}, {}, house, background)
        await wait_until(lambda: len(background) == 0)


class Idle:
    """Hands out no slots."""

    def in_flight(self, backend: str) -> int:
        return 0

    def hold(self, backend: str) -> bool:
        raise AssertionError(backend)

    def let_go(self, backend: str) -> None:
        raise AssertionError(backend)


async def test_it_names_whom_it_looks_after() -> None:
    async with probing("http://127.0.0.1:9", started=False) as house:
        assert repr(house.prober) == "<Prober of a>"
        assert (
            repr(Prober({}, {}, house.health_monitor, time.monotonic, lambda *_: None, lambda *_: None))
            == "<Prober of nobody>"
        )


# --- doubts ----------------------------------------------------------------------------------------


async def test_a_doubted_backend_that_answers_its_trial_stays_in() -> None:
    async with Simulator(Options()) as simulator, probing(simulator.url) as house:
        for _ in range(3):
            house.health_monitor.tried("a", BROKEN, tenant="one")
        assert (house.state, house.health.doubted) == ("up", True)
        await wait_until(lambda: not house.health.doubted)
        assert (simulator.started, house.state) == (1, "up")
        assert "trial_ok" in house.ends


async def test_a_doubted_backend_that_fails_its_trial_is_out() -> None:
    async with (
        Simulator(Options(faults=("status:500*always",))) as simulator,
        probing(simulator.url) as house,
    ):
        for _ in range(3):
            house.health_monitor.tried("a", BROKEN, tenant="one")
        await house.wait_state("sick")
    assert "trial_failed" in house.ends


async def test_a_trial_that_finds_no_slot_has_the_next_reserved() -> None:
    async with Simulator(Options()) as simulator, probing(simulator.url) as house:
        house.busy = 1
        for _ in range(3):
            house.health_monitor.tried("a", BROKEN)
        await wait_until(lambda: house.health.slots_now(time.monotonic()) == 0)
        assert house.health_monitor.up("a")
        house.busy = 0
        await wait_until(lambda: not house.health.doubted)
        assert (simulator.started, house.health.slots_now(time.monotonic())) == (1, 1)


# --- what nobody expects ---------------------------------------------------------------------------


async def test_the_prober_goes_on_after_an_exception_and_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(Options()) as simulator, probing(simulator.url, started=False) as house:
        client, probe = house.backend.client, house.backend.client.probe
        calls = 0

        async def fails(path: str) -> object:
            nonlocal calls
            calls += 1
            if calls <= 2:
                raise ZeroDivisionError
            return await probe(path)

        monkeypatch.setattr(client, "probe", fails)
        background = Background()
        house.prober.start(house, background)
        assert await house.wait_ends(1) == ["ok"]
        assert [type(error) for error in house.crashes] == [ZeroDivisionError] * 2
        await background.aclose()


async def test_a_dialect_that_fails_on_a_trials_answer_gives_the_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> object:
        raise KeyError

    async with Simulator(Options()) as simulator, probing(simulator.url) as house:
        monkeypatch.setattr(type(house.backend.dialect), "answer", fails)
        make_sick(house)
        await wait_until(lambda: len(house.crashes) > 1)
        assert (house.state, house.busy) == ("sick", 0)


async def test_retry_after_of_a_probe_is_honoured() -> None:
    answer = b"HTTP/1.1 503 Some\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n"
    async with peer(answering(*[answer] * 9)) as server, probing(server.url) as house:
        assert await house.wait_ends(1) == ["bad_status"]
        assert house.health.errand_at > time.monotonic() + 20
    assert house.ends == ["bad_status"]


@pytest.mark.parametrize("sick", [False, True], ids=["probe", "trial"])
async def test_what_our_own_system_lacks_says_nothing_of_a_backend(
    sick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with probing(
        "http://127.0.0.1:1", rules=HealthRules(fall=1, interval=0.01), started=False
    ) as house:

        async def lacks(*_: object, **__: object) -> bytes:
            raise OutOfDescriptors("none left")

        monkeypatch.setattr(house.backend.client, "probe", lacks)
        monkeypatch.setattr(house.backend.client, "whole", lacks)
        if sick:
            house.health_monitor.tried("a", UpstreamError(""))
        state, rests = house.state, house.health_monitor.healths["a"]._rests
        background = Background()
        house.prober.start(house, background)
        if sick:
            await wait_until(
                lambda: house.health_monitor.healths["a"].errand_at > house.health_monitor._clock()
            )
        else:
            assert await house.wait_ends(3) == ["busy"] * 3
        assert (house.state, house.health_monitor.healths["a"]._rests, house.busy) == (state, rests, 0)
        await background.aclose()
