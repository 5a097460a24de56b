"""The path of a request over fake servers: planning, retries, emulations, and cards that work on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.background import Background
from gateway.dialects.shared.passing import PassingDecoder
from gateway.dispatch.dispatcher import Dispatcher
from gateway.errors import (
    BadRequest,
    ConnectFailed,
    ContextExceeded,
    GatewayError,
    NoBackend,
    QueueFull,
    StallTimeout,
    TotalTimeout,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamGarbled,
    UpstreamRejected,
    UpstreamReset,
    UpstreamTLS,
    UpstreamTruncated,
)
from gateway.formats import jsontext, openai
from gateway.formats.events import Delta, Event, Finish, Passed, Repair, Usage
from gateway.path.generation import Relay
from gateway.path.routing import Call, Plan
from gateway.scheduling.health import BackendHealth, HealthRules
from gateway.scheduling.scheduler import BackendTable
from gateway.telemetry.receipt import Hooks, Receipt
from gateway.tenancy.keys import Tenant
from gateway.upstream.backend import Backend
from gateway.upstream.health_monitor import HealthMonitor
from tests.support.opened import opened
from tests.support.servers import (
    DONE,
    Reply,
    Servers,
    chunk,
    failing,
    held,
    native,
    refusing,
    streaming,
    talk,
    whole,
)
from tests.support.stack import configured, wait_until

RULES = HealthRules(fall=100, rise=1, slow_start=0)
"""So patient that only a refused connection puts a backend out; a probe brings it back."""


class House:
    """A relay over fake servers. `dialect` is one for all, or one for each."""

    def __init__(
        self, servers: Servers, dialect: str | dict[str, str] = "openai", extra: str = "", **backend: Any
    ) -> None:
        self.servers = servers
        self.settings = configured(servers.urls(dialect), extra, **backend)
        self.background = Background()
        self.notes: list[tuple[str, str]] = []
        self.receipt = Receipt("r-1", "chat", time.monotonic())
        self.fleet = {
            one.name: Backend(one, clock=time.monotonic, transport=servers.transport)
            for one in self.settings.backends
        }
        self.health_monitor = HealthMonitor(
            {one.name: BackendHealth(one.slots, RULES) for one in self.settings.backends},
            clock=time.monotonic,
            chance=lambda: 0.0,
            hook=Hooks(),
        )
        self.dispatcher = Dispatcher(
            BackendTable(
                {one.name: one.slots for one in self.settings.backends},
                {model.name: model.backends for model in self.settings.resolved_models},
            ),
            length=self.settings.queue.length,
            timeout=self.settings.queue.timeout,
            clock=time.monotonic,
            hook=Hooks(),
            health_monitor=self.health_monitor,
        )
        self.relay = Relay(
            self.settings,
            self.fleet,
            self.dispatcher,
            self.background,
            time.monotonic,
            lambda *note: self.notes.append(note),
            lambda: 0.0,
        )

    def plan(self, call: Call | None = None, **body: Any) -> Plan:
        """Plan a request for the model `m`; `body` is what it has besides a short question."""
        return self.relay.routing.plan(call or ask(**body), self.settings.names["m"])

    def events(self, **body: Any) -> AsyncGenerator[Event, None]:
        """The answer to a request, as it comes."""
        return self.events_of(self.plan(**body))

    async def events_of(self, plan: Plan) -> AsyncGenerator[Event, None]:
        """The answer to what was planned, as it comes."""
        answer = self.relay.answer(plan, self.receipt, lambda _: None)
        try:
            while not answer.done:
                for event in await answer.read():
                    yield event
        finally:
            await answer.aclose()

    async def answer(self, **body: Any) -> list[Event]:
        """The whole answer."""
        async with aclosing(self.events(**body)) as events:
            return [event async for event in events]

    async def failure(self, kind: type[GatewayError], **body: Any) -> tuple[list[Event], GatewayError]:
        """What came before the failure, and the failure."""
        came: list[Event] = []
        with pytest.raises(kind) as caught:
            await self._drain(came, **body)
        return came, caught.value

    async def _drain(self, came: list[Event], **body: Any) -> None:
        async with aclosing(self.events(**body)) as events:
            async for event in events:
                came.append(event)  # noqa: PERF401 - what came before an error is wanted too

    @property
    def busy(self) -> dict[str, int]:
        """Slots taken, by backend."""
        return {name: self.dispatcher.in_flight(name) for name in self.fleet}

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """The tries on the receipt."""
        return [(attempt.backend, attempt.outcome) for attempt in self.receipt.attempts]

    async def aclose(self) -> None:
        await self.background.aclose()
        self.dispatcher.aclose()
        for backend in self.fleet.values():
            await backend.aclose()


@asynccontextmanager
async def open_house(
    servers: Servers, dialect: str | dict[str, str] = "openai", extra: str = "", **backend: Any
) -> AsyncIterator[House]:
    """A house that is tidied up, and that has no slot taken at the end."""
    house = House(servers, dialect, extra, **backend)
    try:
        yield house
    finally:
        await house.aclose()
    assert set(house.busy.values()) == {0}


def ask(**body: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return Call(openai.read_chat(jsontext.write(body)))


def text(events: list[Event], choice: int = 0) -> str:
    said = [event for event in opened(events) if isinstance(event, Delta)]
    return "".join(event.text for event in said if event.choice == choice)


def reasons(events: list[Event]) -> dict[int, str]:
    return {event.choice: event.reason for event in opened(events) if isinstance(event, Finish)}


def usage(events: list[Event]) -> Usage:
    (found,) = [event for event in events if isinstance(event, Usage)]
    return found


NO_CONNECTION = failing(httpx.ConnectError)
RESET = failing(httpx.ReadError)
BROKEN = refusing(500)
NOBODY_WAITS = "[queue]\nlength = 0\n"


# --- an ordinary answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "reply"), [("chatglm2", native("hello")), ("openai", None)], ids=["native", "openai"]
)
async def test_an_answer_ends_with_its_finish_and_its_usage(
    dialect: str, reply: Reply | None, stream: bool
) -> None:
    answer = reply or (streaming(*talk("hel", "lo")) if stream else whole("hello"))
    async with open_house(Servers(a=answer), dialect) as house:
        events = await house.answer(stream=stream)
    assert text(events) == "hello"
    assert isinstance(events[-1], Usage)
    assert isinstance(opened(events)[-2], Finish)
    assert reasons(events) == {0: "stop"}


async def test_the_receipt_tells_the_way_of_the_request() -> None:
    async with open_house(Servers(a=native()), "chatglm2") as house:
        events = await house.answer(seed=7)
    receipt = house.receipt
    assert house.outcomes == [("a", "ok")]
    assert (receipt.backend, receipt.dialect, receipt.finish) == ("a", "chatglm2", "stop")
    assert receipt.usage == usage(events)
    assert receipt.ignored == ("seed",)
    assert receipt.retries == ()
    assert receipt.granted is not None
    assert receipt.first_token == receipt.last_token is not None
    assert receipt.upstream_seconds > 0
    assert receipt.queue_seconds >= 0


async def test_usage_is_the_backends_where_it_counts_and_an_estimate_elsewhere() -> None:
    async with open_house(Servers(a=whole("hello", usage=(3, 2)))) as house:
        assert usage(await house.answer()) == Usage(3, 2, "backend")
    async with open_house(Servers(a=native("hello")), "chatglm2") as house:
        assert usage(await house.answer()).source == "estimate"


async def test_a_whole_answer_is_cut_into_pieces_for_a_stream() -> None:
    said = "今天天气很好，" * 20
    async with open_house(Servers(a=native(said)), "chatglm2") as house:
        pieces = [event for event in await house.answer(stream=True) if isinstance(event, Delta)]
        assert "".join(piece.text for piece in pieces) == said
        assert len(pieces) > 5
        assert len([event for event in await house.answer() if isinstance(event, Delta)]) == 1


# --- servers of several kinds ----------------------------------------------------------------------


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_of_mixed_servers_only_those_that_can_are_asked() -> None:
    servers = Servers(old=native(), new=whole())
    async with open_house(servers, {"old": "chatglm2", "new": "openai"}) as house:
        assert house.plan().backends == ("old", "new")
        assert house.plan(tools=TOOLS).backends == ("new",)
        for _ in range(4):
            await house.answer(tools=TOOLS)
    assert servers.order == ["new"] * 4


async def test_each_server_gets_its_own_language() -> None:
    servers = Servers(old=[refusing(500)], new=whole())
    async with open_house(servers, {"old": "chatglm2", "new": "openai"}) as house:
        assert text(await house.answer(seed=1)) == "hello"
    (old, new) = servers.asked
    assert (old.path, new.path) == ("/", "/v1/chat/completions")
    assert "history" in old.body
    assert new.body["messages"]
    assert house.receipt.ignored == ()  # what was lost on the one that failed is not lost on the other


# --- handing on -------------------------------------------------------------------------------------


def note_asking(house: House, order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each request to the backend `a` noted as "asked"."""
    client = house.fleet["a"].client
    exchange = client.exchange

    def asked(*args: Any, **routing: Any) -> Any:
        order.append("asked")
        return exchange(*args, **routing)

    monkeypatch.setattr(client, "exchange", asked)


async def test_whoever_gets_the_slot_asks_before_the_answer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = asyncio.Event()
    servers = Servers(a=[held(finished, native()), native()])
    order: list[str] = []

    async def one(house: House) -> None:
        await house.answer()
        order.append("answered")

    async with open_house(servers, "chatglm2") as house, asyncio.TaskGroup() as group:
        note_asking(house, order, monkeypatch)
        group.create_task(one(house))
        await wait_until(lambda: servers.order == ["a"])
        group.create_task(one(house))
        await wait_until(lambda: house.dispatcher.queue_depth("m") == 1)
        finished.set()
    assert order == ["asked", "asked", "answered", "answered"]


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n"], ids=["lf", "crlf"])
async def test_whoever_gets_the_slot_asks_before_the_end_of_a_stream_is_read(
    end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = asyncio.Event()
    last = chunk(finish="stop") + end
    servers = Servers(a=[streaming(chunk("a", role=True), last, until=finished, at=1), whole("b")])
    order: list[str] = []
    feed = PassingDecoder.feed

    def fed(decoder: PassingDecoder, data: bytes) -> list[Event]:
        order.append("end" if data.endswith(end) else "content")
        return feed(decoder, data)

    monkeypatch.setattr(PassingDecoder, "feed", fed)
    async with open_house(servers, slots=1) as house, asyncio.TaskGroup() as group:
        note_asking(house, order, monkeypatch)
        group.create_task(house.answer(stream=True))
        await wait_until(lambda: order == ["asked", "content"])
        group.create_task(house.answer())
        await wait_until(lambda: house.dispatcher.queue_depth("m") == 1)
        finished.set()
    assert order == ["asked", "content", "asked", "end"]


async def test_a_card_is_not_free_for_others_before_its_stream_is_known_to_have_an_answer() -> None:
    servers = Servers(a=[streaming(DONE), whole("b"), whole("c")])
    async with open_house(servers, "chatglm3") as house, asyncio.TaskGroup() as group:
        first = group.create_task(house.answer(stream=True))
        second = group.create_task(house.answer())
        await asyncio.wait({first, second})
        assert text(first.result()) == "b", "asked once more, by the same request"
        assert text(second.result()) == "c"


# --- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        pytest.param(NO_CONNECTION, "connect", id="refused-connection"),
        pytest.param(failing(httpx.ConnectTimeout), "connect", id="no-answer-to-connecting"),
        pytest.param(RESET, "connect", id="reset"),
        pytest.param(failing(httpx.RemoteProtocolError), "connect", id="closed-without-a-byte"),
        pytest.param(refusing(500), "upstream_5xx", id="500"),
        pytest.param(refusing(502), "upstream_5xx", id="502"),
        pytest.param(refusing(503), "upstream_5xx", id="503"),
        pytest.param(refusing(429), "upstream_5xx", id="429"),
        pytest.param(refusing(404), "upstream_5xx", id="404"),
        pytest.param(refusing(302, location="http://b/"), "upstream_5xx", id="redirect"),
        pytest.param(refusing(200, b"data: {oops\n\n"), "bad_payload", id="garbage"),
        pytest.param(refusing(200, b"{}", content_encoding="gzip"), "bad_payload", id="gzip"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_before_any_content_another_backend_is_tried(reply: Reply, outcome: str, stream: bool) -> None:
    good = streaming(*talk("good")) if stream else whole("good")
    servers = Servers(a=reply, b=good)
    async with open_house(servers) as house:
        events = await house.answer(stream=stream)
    assert text(events) == "good"
    assert servers.order == ["a", "b"]
    assert house.outcomes == [("a", outcome), ("b", "ok")]
    assert house.receipt.retries == (outcome,)
    assert house.receipt.backend == "b"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(streaming(error=httpx.ReadError("cut")), id="cut-before-any-content"),
        pytest.param(streaming(chunk("", role=True)), id="nothing-but-a-role"),
    ],
)
async def test_a_stream_cut_before_any_content_is_tried_elsewhere(reply: Reply) -> None:
    servers = Servers(a=reply, b=streaming(*talk("good")))
    async with open_house(servers) as house:
        assert text(await house.answer(stream=True)) == "good"
    assert house.outcomes == [("a", "truncated"), ("b", "ok")]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(refusing(400, b"{}"), UpstreamRejected, id="400"),
        pytest.param(refusing(422, b"{}"), UpstreamRejected, id="422"),
    ],
)
async def test_what_another_backend_would_not_do_better_is_not_repeated(
    reply: Reply, error: type[GatewayError]
) -> None:
    servers = Servers(a=reply, b=whole())
    async with open_house(servers) as house:
        _, failure = await house.failure(error)
    assert servers.order == ["a"]
    assert "secret" not in failure.message


async def test_an_empty_answer_is_tried_elsewhere() -> None:
    servers = Servers(a=native(""), b=native("good"))
    async with open_house(servers, "chatglm2") as house:
        assert text(await house.answer()) == "good"
    assert house.outcomes == [("a", "bad_payload"), ("b", "ok")]
    assert house.receipt.retries == ("bad_payload",)


async def test_where_all_are_empty_that_is_told() -> None:
    servers = Servers(a=native(""), b=native(""), c=native("never asked"))
    async with open_house(servers, "chatglm2") as house:
        await house.failure(UpstreamEmpty)
    assert servers.order == ["a", "b"]


async def test_an_empty_answer_that_is_called_complete_is_an_answer() -> None:
    servers = Servers(a=whole(""), b=whole("never asked"))
    async with open_house(servers, "chatglm3") as house:
        events = await house.answer()
    assert text(events) == ""
    assert reasons(events) == {0: "stop"}
    assert servers.order == ["a"]


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(streaming(*talk("half")[:2]), id="end-without-finish"),
        pytest.param(streaming(*talk("half")[:2], error=httpx.ReadError("cut")), id="reset"),
        pytest.param(streaming(*talk("half")[:2], error=httpx.RemoteProtocolError("cut")), id="short"),
    ],
)
async def test_after_content_nothing_is_repeated(cut: Reply) -> None:
    servers = Servers(a=cut, b=streaming(*talk("other")))
    async with open_house(servers) as house:
        came, _ = await house.failure(UpstreamTruncated, stream=True)
    assert text(came) == "half"
    assert reasons(came) == {}
    assert servers.order == ["a"]
    assert house.outcomes == [("a", "truncated")]


async def test_a_cut_after_the_finish_is_a_good_end() -> None:
    cut = streaming(*talk("all")[:3], error=httpx.ReadError("cut"))
    async with open_house(Servers(a=cut)) as house:
        events = await house.answer(stream=True)
    assert text(events) == "all"
    assert reasons(events) == {0: "stop"}
    assert house.receipt.repairs == ("missing_done",)


async def test_a_retry_sends_equal_bytes() -> None:
    servers = Servers(a=refusing(500), b=whole())
    async with open_house(servers) as house:
        await house.answer(temperature=0.5)
    assert servers.asked[0].body == servers.asked[1].body


async def test_the_last_failure_is_told_when_all_tries_are_spent() -> None:
    servers = Servers(a=NO_CONNECTION, b=refusing(500), c=whole())
    async with open_house(servers) as house:
        await house.failure(UpstreamError)
    assert servers.order == ["a", "b"]
    assert house.receipt.retries == ("connect",)


async def test_as_many_tries_as_configured_are_made() -> None:
    servers = Servers(a=NO_CONNECTION, b=refusing(500), c=whole())
    async with open_house(servers, extra="[retries]\nattempts = 3") as house:
        assert text(await house.answer()) == "hello"
    assert servers.order == ["a", "b", "c"]


async def test_one_try_means_no_retry() -> None:
    servers = Servers(a=NO_CONNECTION, b=whole())
    async with open_house(servers, extra="[retries]\nattempts = 1") as house:
        await house.failure(ConnectFailed)
    assert servers.order == ["a"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("falls", [False, True], ids=["alone", "fallback"])
async def test_the_only_backend_is_asked_once_more_after_a_500(falls: bool, stream: bool) -> None:
    good = streaming(*talk("hello")) if stream else whole("hello")
    servers = Servers(a=[refusing(500), good], b=whole("other"))
    options = {"extra": OTHER} if falls else {}
    async with open_house(servers, serves={"b": "big"}, **options) as house:
        assert text(await house.answer(stream=stream)) == "hello"
        assert house.outcomes == [("a", "upstream_5xx"), ("a", "ok")]
        assert house.receipt.retries == ("upstream_5xx",)
        assert house.receipt.answered == ""
    assert servers.order == ["a", "a"]


async def test_the_backend_that_failed_is_asked_once_more_where_all_others_are_out() -> None:
    servers = Servers(a=[refusing(500), whole()], b=whole())
    async with open_house(servers) as house:
        house.dispatcher.tried("b", ConnectFailed("down", refused=True))
        assert text(await house.answer()) == "hello"
    assert servers.order == ["a", "a"]


@pytest.mark.parametrize(
    ("reply", "dialect", "extra"),
    [
        pytest.param(refusing(500), "openai", "", id="twice-is-enough"),
        pytest.param(refusing(500), "openai", "[retries]\nattempts = 3\n", id="whatever-attempts-says"),
    ],
)
async def test_the_only_backend_is_asked_no_third_time(reply: Reply, dialect: str, extra: str) -> None:
    servers = Servers(a=reply)
    async with open_house(servers, dialect, extra) as house:
        await house.failure(UpstreamError)
    assert servers.order == ["a", "a"]


@pytest.mark.parametrize(
    ("reply", "extra"),
    [
        pytest.param(refusing(500), "[retries]\nattempts = 1\n", id="one-attempt"),
        pytest.param(refusing(500), "[retries]\nbudget = 0.0\nleast = 0.0\n", id="no-budget"),
        pytest.param(refusing(500), "[timeouts]\ntotal = 0.2\n", id="no-time"),
        pytest.param(RESET, "", id="reset"),
        pytest.param(NO_CONNECTION, "", id="refused"),
        pytest.param(refusing(400, b"{}"), "", id="400"),
        pytest.param(refusing(200, b""), "", id="empty"),
        pytest.param(refusing(200, b"<html>"), "", id="garbage"),
    ],
)
async def test_the_only_backend_is_not_asked_again(reply: Reply, extra: str) -> None:
    servers = Servers(a=reply)
    async with open_house(servers, extra=extra) as house:
        await house.failure(GatewayError)
    assert servers.order == ["a"]


async def test_others_have_the_slot_until_the_backend_is_asked_once_more() -> None:
    servers = Servers(a=[refusing(500), native("second"), native("first")])
    async with open_house(servers, "chatglm2") as house, asyncio.TaskGroup() as group:
        first = group.create_task(house.answer())
        await wait_until(lambda: house.busy == {"a": 0} and servers.order == ["a"])
        assert text(await house.answer()) == "second"
        assert text(await first) == "first"


async def test_who_leaves_before_the_backend_is_asked_once_more_asks_nobody() -> None:
    servers = Servers(a=refusing(500))
    async with open_house(servers, "chatglm2") as house:
        await leave_when(house, lambda: house.busy == {"a": 0} and servers.order == ["a"])
    assert servers.order == ["a"]


async def test_when_everything_fails_the_budget_bounds_the_retries() -> None:
    servers = Servers(a=refusing(500), b=refusing(500))
    async with open_house(servers, extra="[retries]\nbudget = 0.0\nleast = 0.1") as house:
        for _ in range(3):
            await house.failure(UpstreamError)
    assert len(servers.order) == 3 + 1


async def test_where_nobody_else_is_free_the_first_failure_is_told() -> None:
    release = asyncio.Event()
    servers = Servers(a=[NO_CONNECTION], b=held(release, whole()))
    async with open_house(servers, extra=NOBODY_WAITS, slots=1) as house, asyncio.TaskGroup() as group:
        house.dispatcher.tried("a", ConnectFailed("down", refused=True))
        holder = group.create_task(house.answer())
        await wait_until(lambda: servers.order == ["b"])
        house.health_monitor.probed("a", "ok")
        came, failure = await house.failure(ConnectFailed)
        assert came == []
        assert failure.retry_after == 1
        release.set()
        assert text(await holder) == "hello"


async def test_a_full_queue_is_told_as_such_when_nothing_was_tried() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, whole()))
    async with (
        open_house(servers, extra="[queue]\nlength = 0", slots=1) as house,
        asyncio.TaskGroup() as group,
    ):
        holder = group.create_task(house.answer())
        await wait_until(lambda: servers.order == ["a"])
        await house.failure(QueueFull)
        release.set()
        await holder


# --- backends that say when to come again ------------------------------------------------------------


def pressing(seconds: float) -> Reply:
    """A server that is busy for so long."""
    return refusing(429, retry_after=str(seconds))


@pytest.mark.parametrize("stream", [False, True])
async def test_the_only_backend_is_asked_again_when_it_said_so_and_not_before(stream: bool) -> None:
    good = streaming(*talk("good")) if stream else whole("good")
    servers = Servers(a=[pressing(0.3), good])
    async with open_house(servers) as house:
        began = time.monotonic()
        assert text(await house.answer(stream=stream)) == "good"
        assert time.monotonic() - began >= 0.3
    assert servers.order == ["a", "a"]
    assert house.receipt.retries == ("upstream_5xx",)
    assert house.receipt.queue_seconds > 0.2


async def test_another_backend_is_asked_at_once_while_one_is_busy() -> None:
    servers = Servers(a=pressing(30), b=whole())
    async with open_house(servers) as house:
        for _ in range(3):
            await house.answer()
    assert servers.order == ["a", "b", "b", "b"]


async def test_a_pause_beyond_the_queues_time_out_is_not_waited_for() -> None:
    servers = Servers(a=pressing(30))
    async with open_house(servers, extra="[queue]\ntimeout = 5") as house:
        _, first = await house.failure(UpstreamBusy)
        _, second = await house.failure(NoBackend)
    assert first.retry_after == 30
    assert second.retry_after is not None
    assert 29 < second.retry_after <= 30
    assert servers.order == ["a"]


async def test_waiting_for_all_tries_together_is_bounded_by_the_queues_time_out() -> None:
    servers = Servers(a=pressing(0.3))
    limits = "[queue]\ntimeout = 0.5\n[retries]\nattempts = 3\n"
    async with open_house(servers, extra=limits) as house:
        await house.failure(UpstreamBusy)
    assert servers.order == ["a", "a"]
    assert house.receipt.retries == ("upstream_5xx",)


# --- other models ----------------------------------------------------------------------------------


OTHER = '[[models]]\nname = "m"\nfallbacks = ["big"]\n'
LONGER = '[[models]]\nname = "m"\ncontext = 64\ndefault_output = 8\ncontext_fallbacks = ["big"]\n'
BIG = {"b": "big"}
LONG = [{"role": "user", "content": "word " * 500}]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(NO_CONNECTION, id="refused-connection"),
        pytest.param(RESET, id="reset"),
        pytest.param(BROKEN, id="500"),
        pytest.param(pressing(90), id="429-for-long"),
        pytest.param(refusing(200, b"<html>"), id="html"),
        pytest.param(refusing(200, b""), id="empty"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_another_model_answers_where_every_try_failed(reply: Reply, stream: bool) -> None:
    good = streaming(*talk("good")) if stream else whole("good")
    servers = Servers(a=reply, b=good)
    async with open_house(servers, extra=OTHER + "[queue]\ntimeout = 5", serves=BIG) as house:
        assert text(await house.answer(stream=stream)) == "good"
    again = ["a"] if reply is BROKEN else []  # a 500 alone is asked once more where it came from
    assert servers.order == ["a", *again, "b"]
    assert servers.asked[-1].body["model"] == "big"
    assert house.receipt.answered == "big"
    assert house.receipt.backend == "b"
    assert house.receipt.retries == ("upstream_5xx",) * len(again)


async def test_a_stream_that_ends_behind_its_role_moves_to_another_model() -> None:
    role = chunk("", role=True, id="c-1", created=1, model="m")  # as it passes unread
    servers = Servers(a=streaming(role), b=streaming(*talk("good")))
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        events = await house.answer(stream=True)
    assert text(events) == "good"
    assert not any(b"c-1" in event.data for event in events if isinstance(event, Passed))
    assert house.outcomes == [("a", "truncated"), ("b", "ok")]


async def test_a_role_goes_on_at_once_where_nobody_else_could_answer() -> None:
    role = chunk("", role=True, id="c-1", created=1, model="m")
    async with open_house(Servers(a=streaming(role))) as house:
        came, _ = await house.failure(UpstreamTruncated, stream=True)
    (passed,) = came
    assert isinstance(passed, Passed)
    assert not passed.content
    assert b'"id":"c-1"' in passed.data
    assert house.receipt.first_token is None


async def test_a_slot_comes_back_where_a_try_cannot_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_house(Servers(a=whole())) as house:
        plan = house.plan()
        monkeypatch.setattr(plan, "outgoing", {"a": None})
        with pytest.raises(AttributeError):
            await anext(house.events_of(plan))
        assert house.busy == {"a": 0}


@pytest.mark.parametrize("name", ["tried", "served"])
@pytest.mark.parametrize("reply", [native(), refusing(500)], ids=["answer", "failure"])
async def test_a_slot_comes_back_where_the_end_of_a_try_cannot_be_noted(
    name: str, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(Servers(a=reply), "chatglm2") as house:

        def fails(*_: object) -> None:
            raise StopIteration

        monkeypatch.setattr(house.dispatcher, name, fails)
        with contextlib.suppress(RuntimeError, GatewayError):
            await house.answer()
        assert house.busy == {"a": 0}


async def test_a_model_that_answers_is_not_left() -> None:
    servers = Servers(a=whole(), b=whole())
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        await house.answer()
    assert servers.order == ["a"]
    assert house.receipt.answered == ""


async def test_all_tries_on_the_model_itself_come_first() -> None:
    servers = Servers(a=refusing(500), c=refusing(500), b=whole())
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        await house.answer()
    assert servers.order == ["a", "c", "b"]


async def test_a_model_without_a_backend_that_is_up_is_left_at_once() -> None:
    servers = Servers(a=NO_CONNECTION, b=whole())
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        for _ in range(3):
            await house.answer()
    assert servers.order == ["a", "b", "b", "b"]


@pytest.mark.parametrize("queue", ["length = 0", "timeout = 0.05"], ids=["full", "slow"])
async def test_a_queue_that_is_full_or_too_slow_is_left(queue: str) -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, whole()), b=whole())
    async with (
        open_house(servers, extra=f"{OTHER}[queue]\n{queue}", serves=BIG, slots=1) as house,
        asyncio.TaskGroup() as group,
    ):
        holder = group.create_task(house.answer())
        await wait_until(lambda: servers.order == ["a"])
        await house.answer()
        assert servers.order == ["a", "b"]
        release.set()
        await holder


async def test_the_nearest_free_model_is_taken_else_whichever_is_free_first() -> None:
    release, never = asyncio.Event(), asyncio.Event()
    models = '[[models]]\nname = "m"\nfallbacks = ["x", "y"]\n'
    servers = Servers(a=NO_CONNECTION, x=held(never, whole()), y=held(release, whole("y")))
    async with (
        open_house(servers, extra=models, serves={"x": "x", "y": "y"}, slots=1) as house,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(house.answer())]
        await wait_until(lambda: servers.order == ["a", "x"])
        tasks.append(group.create_task(house.answer()))
        await wait_until(lambda: servers.order == ["a", "x", "y"])
        tasks.append(group.create_task(house.answer()))
        await wait_until(lambda: house.dispatcher.queue_depth("x") == 1)
        release.set()
        await wait_until(lambda: servers.order == ["a", "x", "y", "y"])
        never.set()
        assert [text(await task) for task in tasks] == ["hello", "y", "y"]


async def test_when_no_model_can_the_first_failure_is_told() -> None:
    servers = Servers(a=refusing(500), b=refusing(400, b"{}"), c=NO_CONNECTION)
    models = OTHER + '[[models]]\nname = "big"\nfallbacks = ["last"]\n'
    async with open_house(servers, extra=models, serves={**BIG, "c": "last"}) as house:
        _, failure = await house.failure(UpstreamError)
    assert servers.order == ["a", "a", "b", "c"]
    assert "HTTP 500" in failure.message


async def test_after_content_no_other_model_is_asked() -> None:
    servers = Servers(a=streaming(*talk("half")[:2]), b=streaming(*talk("other")))
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        came, _ = await house.failure(UpstreamTruncated, stream=True)
    assert text(came) == "half"
    assert servers.order == ["a"]


@pytest.mark.parametrize("code", ["content_filter", "invalid_value"])
async def test_what_a_model_refuses_no_other_is_asked(code: str) -> None:
    refusal = jsontext.write({"error": {"message": "no", "code": code}})
    servers = Servers(a=refusing(400, refusal), b=whole())
    async with open_house(servers, extra=OTHER + 'context_fallbacks = ["big"]\n', serves=BIG) as house:
        await house.failure(UpstreamRejected)
    assert servers.order == ["a"]


async def test_a_key_goes_only_where_it_may() -> None:
    servers = Servers(a=refusing(500), b=whole())
    tenant = Tenant("t", frozenset({"m"}))
    async with open_house(servers, extra=OTHER, serves=BIG) as house:
        plan = house.plan(Call(ask().request, tenant))
        with pytest.raises(UpstreamError):
            async with aclosing(house.events_of(plan)) as events:
                await anext(events)
    assert servers.order == ["a", "a"]


async def test_a_chat_too_long_for_one_model_goes_to_a_longer_one_unasked() -> None:
    servers = Servers(a=whole(), b=whole("long"))
    async with open_house(servers, extra=LONGER, serves=BIG) as house:
        assert text(await house.answer(messages=LONG)) == "long"
        assert house.receipt.answered == "big"
        assert text(await house.answer()) == "hello"
    assert servers.order == ["b", "a"]


async def test_a_backend_that_finds_it_too_long_is_asked_once() -> None:
    too_long = jsontext.write({"error": {"message": "x", "code": "context_length_exceeded"}})
    servers = Servers(a=refusing(400, too_long), c=whole(), b=whole("long"))
    async with open_house(servers, extra=LONGER, serves=BIG) as house:
        assert text(await house.answer()) == "long"
    assert servers.order == ["a", "b"]


async def test_too_long_is_no_outage_and_an_outage_not_too_long() -> None:
    servers = Servers(a=refusing(500), b=whole())
    async with open_house(servers, extra=LONGER, serves=BIG) as house:
        await house.failure(UpstreamError)
    async with open_house(servers, extra=OTHER + "context = 64\ndefault_output = 8\n", serves=BIG) as house:
        with pytest.raises(ContextExceeded):
            house.plan(messages=LONG)
    assert servers.order == ["a", "a"]


async def test_several_choices_stay_with_one_model() -> None:
    servers = Servers(a=refusing(500), b=native())
    async with open_house(servers, "chatglm2", OTHER, serves=BIG) as house:
        await house.failure(UpstreamError, n=2)
    assert "b" not in servers.order


# --- what is learned of a backend ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "error", "up"),
    [
        pytest.param(NO_CONNECTION, ConnectFailed, False, id="refused-connection"),
        pytest.param(RESET, UpstreamReset, True, id="reset-once"),
        pytest.param(refusing(500), UpstreamError, True, id="500"),
        pytest.param(refusing(503, retry_after="7"), UpstreamBusy, True, id="503"),
        pytest.param(refusing(200, b"?"), UpstreamGarbled, True, id="garbage"),
    ],
)
async def test_a_backend_is_down_at_once_only_if_nobody_listens(
    reply: Reply, error: type[GatewayError], up: bool
) -> None:
    async with open_house(Servers(a=reply), extra="[retries]\nattempts = 1") as house:
        await house.failure(error)
        assert house.dispatcher.up("a") is up
        assert house.dispatcher.usable() == {"a": up}


async def test_a_failed_tls_handshake_is_not_taken_for_an_answer() -> None:
    async def untrusted(request: httpx.Request) -> httpx.Response:
        import ssl

        raise httpx.ConnectError("certificate verify failed", request=request) from ssl.SSLError(1, "bad")

    async with open_house(Servers(a=untrusted)) as house:
        await house.failure(UpstreamTLS)
        assert "misses=1" in repr(house.health_monitor.healths["a"])


async def test_a_silent_backend_is_busy_and_not_down() -> None:
    servers = Servers(a=held(asyncio.Event(), whole()))
    async with open_house(servers, extra="[timeouts]\ntotal = 0.05\n") as house:
        await house.failure(TotalTimeout)
        assert house.dispatcher.up("a")


async def test_those_who_wait_are_not_sent_to_a_backend_that_has_just_failed() -> None:
    broken, release = asyncio.Event(), asyncio.Event()
    servers = Servers(a=held(broken, NO_CONNECTION), b=held(release, whole()))
    async with open_house(servers, slots=1) as house, asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.answer()) for _ in range(5)]
        await wait_until(lambda: sorted(servers.order) == ["a", "b"])
        broken.set()
        await wait_until(lambda: not house.dispatcher.up("a"))
        release.set()
        answers = [await task for task in tasks]
    assert [text(answer) for answer in answers] == ["hello"] * 5
    assert servers.order.count("a") == 1


async def test_an_answered_probe_after_a_failure_brings_a_backend_up() -> None:
    servers = Servers(a=[NO_CONNECTION, whole()])
    async with open_house(servers) as house:
        await house.failure(ConnectFailed)
        await house.failure(NoBackend)  # it is out
        house.health_monitor.probed("a", "ok")
        await house.answer()
        assert house.dispatcher.up("a")


async def test_the_same_request_sent_again_is_known_as_the_same() -> None:
    async with open_house(Servers(a=refusing(500))) as house:
        for content in ("one", "one", "two"):
            await house.failure(UpstreamError, messages=[{"role": "user", "content": content}])
        assert "strikes=2" in repr(house.health_monitor.healths["a"])


# --- streams that must be asked for again whole ----------------------------------------------------


V3 = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "\n ok"}, "finish_reason": "stop"}]
}


async def test_a_stream_without_an_event_is_asked_for_again_whole() -> None:
    servers = Servers(a=[streaming(DONE), refusing(200, jsontext.write(V3))])
    async with open_house(servers, "chatglm3") as house:
        events = await house.answer(stream=True)
    assert text(events) == "ok"
    assert [asked.body["stream"] for asked in servers.asked] == [True, False]
    assert events[0] == Repair("short_stream")
    assert house.receipt.repairs == ("short_stream",)
    assert house.outcomes == [("a", "ok")]


async def test_a_server_whose_streams_never_work_is_remembered() -> None:
    answer = refusing(200, jsontext.write(V3))
    servers = Servers(a=[streaming(), answer])
    async with open_house(servers, "chatglm2-openai") as house:
        for _ in range(3):
            assert text(await house.answer(stream=True)).strip() == "ok"
        assert house.fleet["a"].no_streams
        assert "without streams" in repr(house.fleet["a"])
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, False, False]


OLD_CHUNK = jsontext.write(
    {"model": "m", "id": "", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]}
).decode()
A_TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    "pieces", [(chunk(OLD_CHUNK) + DONE,), (chunk(OLD_CHUNK), DONE)], ids=["in-one-piece", "in-two"]
)
async def test_glm4_server_whose_streams_hold_chunks_as_text_is_remembered(pieces: tuple[bytes, ...]) -> None:
    servers = Servers(a=[streaming(*pieces), whole("hello")])
    async with open_house(servers, "glm4") as house:
        for _ in range(2):
            assert text(await house.answer(stream=True)) == "hello"
        assert house.fleet["a"].no_streams
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, False]


@pytest.mark.parametrize("pieces", [(), (DONE,)], ids=["nothing", "only-its-end"])
async def test_empty_stream_of_glm4_with_tools_is_asked_whole_once(pieces: tuple[bytes, ...]) -> None:
    servers = Servers(a=[streaming(*pieces), whole("hello"), streaming(*talk("again"))])
    async with open_house(servers, "glm4") as house:
        assert text(await house.answer(stream=True, tools=[A_TOOL])) == "hello"
        assert text(await house.answer(stream=True, tools=[A_TOOL])) == "again"
        assert house.outcomes == [("a", "ok")] * 2
    assert [asked.body.get("stream", False) for asked in servers.asked] == [True, False, True]


async def test_a_request_planned_before_that_was_known_is_asked_for_whole_too() -> None:
    servers = Servers(a=refusing(200, jsontext.write(V3)))
    async with open_house(servers, "chatglm2-openai") as house:
        plan = house.plan(stream=True)
        house.fleet["a"].no_streams = True
        events = [event async for event in house.events_of(plan)]
    assert text(events).strip() == "ok"
    assert [asked.body.get("stream", False) for asked in servers.asked] == [False]


# --- stop texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_cut_at_a_stop_text_the_server_does_not_know(stream: bool) -> None:
    async with open_house(Servers(a=native("one two END three")), "chatglm2") as house:
        events = await house.answer(stop=["END"], stream=stream)
    assert text(events) == "one two "
    assert reasons(events) == {0: "stop"}
    assert usage(events).completion < 6  # of what was returned


async def test_a_stream_is_given_up_at_its_stop_text() -> None:
    never = asyncio.Event()
    lead = chunk("\n one two")
    servers = Servers(a=streaming(lead, chunk(" END three"), chunk(" four"), until=never, at=2))
    async with open_house(servers, "chatglm3") as house, asyncio.timeout(10):
        events = await house.answer(stop="END", stream=True)
    assert text(events) == "one two "
    assert reasons(events) == {0: "stop"}
    assert house.outcomes == [("a", "ok")]


async def test_a_server_that_knows_stop_texts_is_left_to_it() -> None:
    servers = Servers(a=whole("one END two"))
    async with open_house(servers) as house:
        assert text(await house.answer(stop=["END"])) == "one END two"
    assert servers.asked[0].body["stop"] == ["END"]


# --- several choices -------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_are_made_side_by_side_where_the_server_makes_only_one(stream: bool) -> None:
    servers = Servers(a=[native("first"), native("second"), native("third")])
    async with open_house(servers, "chatglm2") as house:
        events = await house.answer(n=3, stream=stream)
    assert sorted(text(events, choice) for choice in range(3)) == ["first", "second", "third"]
    assert reasons(events) == {0: "stop", 1: "stop", 2: "stop"}
    assert isinstance(events[-1], Usage)
    await wait_until(lambda: len(house.background) == 0)


async def test_the_usage_of_several_choices_counts_the_prompt_once() -> None:
    servers = Servers(a=native("hello"))
    async with open_house(servers, "chatglm2") as house:
        one = usage(await house.answer())
        three = usage(await house.answer(n=3))
    assert three == Usage(one.prompt, 3 * one.completion, "estimate")
    assert house.receipt.usage == three


async def test_choices_use_every_free_card_and_not_more() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()), b=held(release, native()))
    async with open_house(servers, "chatglm2") as house, asyncio.TaskGroup() as group:
        task = group.create_task(house.answer(n=3))
        await wait_until(lambda: len(servers.order) == 2)
        assert house.busy == {"a": 1, "b": 1}
        assert house.dispatcher.queue_depth("m") == 1
        release.set()
        await task
    assert len(servers.order) == 3


async def test_a_server_that_makes_several_is_asked_once() -> None:
    servers = Servers(a=whole(count=3))
    async with open_house(servers) as house:
        events = await house.answer(n=3)
    assert [asked.body["n"] for asked in servers.asked] == [3]
    assert reasons(events) == {0: "stop", 1: "stop", 2: "stop"}


async def test_more_choices_than_the_model_allows_are_refused() -> None:
    async with open_house(Servers(a=native()), "chatglm2") as house:
        with pytest.raises(BadRequest) as refused:
            house.plan(n=5)
    assert refused.value.param == "n"


async def test_one_failing_choice_fails_all_and_ends_the_others() -> None:
    never = asyncio.Event()
    servers = Servers(a=[refusing(200, b"?"), held(never, whole())])
    async with open_house(servers, {"a": "openai"}, slots=2) as house:
        plan = house.plan(n=2)
        split = replace(plan, outgoing=house.plan().outgoing, alone=False)
        with pytest.raises(UpstreamGarbled):
            async with aclosing(house.events_of(split)) as events:
                [event async for event in events]
        assert len(house.background) == 0
        assert house.busy == {"a": 0}


async def test_a_client_that_leaves_ends_all_choices() -> None:
    never = asyncio.Event()
    servers = Servers(a=[native("first"), held(never, native())], b=held(never, native()))
    async with open_house(servers, "chatglm2") as house:
        events = house.events(n=4)
        assert isinstance(await anext(events), Delta)
        await events.aclose()
        assert house.dispatcher.queue_depth("m") == 0
        assert {name: house.dispatcher.zombies(name) for name in house.fleet} == house.busy
        assert house.busy["b"] == 1
        never.set()
        await wait_until(lambda: set(house.busy.values()) == {0})


async def test_a_retry_in_one_choice_leaves_the_others_alone() -> None:
    servers = Servers(a=NO_CONNECTION, b=native("good"), c=native("good"))
    async with open_house(servers, "chatglm2") as house:
        events = await house.answer(n=3)
    assert [text(events, choice) for choice in range(3)] == ["good"] * 3
    assert house.receipt.retries == ("connect",)


# --- leaving ---------------------------------------------------------------------------------------


async def leave_when(house: House, condition: Callable[[], bool], **body: Any) -> None:
    """Ask, and leave as soon as the condition holds."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(house.answer(**body))
        await wait_until(condition)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_card_that_cannot_be_stopped_stays_taken_until_its_answer_has_come() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, native()))
    async with open_house(servers, "chatglm2") as house:
        await leave_when(house, lambda: servers.order == ["a"])
        assert house.busy == {"a": 1}
        assert house.dispatcher.zombies("a") == 1
        assert house.outcomes == [("a", "client_gone")]
        async with asyncio.TaskGroup() as group:
            following = group.create_task(house.answer())
            await wait_until(lambda: house.dispatcher.queue_depth("m") == 1)
            assert servers.order == ["a"]
            finished.set()
            assert text(await following) == "hello"
        assert house.dispatcher.zombies("a") == 0


async def test_an_abandoned_answer_that_fails_frees_the_card_and_troubles_nobody() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, RESET))
    async with open_house(servers, "chatglm2") as house:
        await leave_when(house, lambda: servers.order == ["a"])
        finished.set()
        await wait_until(lambda: house.busy == {"a": 0})
        assert len(house.background) == 0
        assert house.dispatcher.up("a")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_stops_by_itself_is_free_at_once(stream: bool) -> None:
    never = asyncio.Event()
    reply = streaming(*talk("hello"), until=never, at=2) if stream else held(never, whole())
    servers = Servers(a=reply)
    async with open_house(servers) as house:
        await leave_when(house, lambda: servers.order == ["a"], stream=stream)
        assert house.busy == {"a": 0}
        assert house.dispatcher.zombies("a") == 0


async def test_a_blocked_server_is_free_when_it_answers_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_house(servers, "chatglm2-openai") as house:
        events = house.events(stream=True)
        assert await anext(events) == Delta("hello")
        await events.aclose()
        await wait_until(lambda: servers.asked[-1].method == "GET")
        assert house.busy == {"a": 1}
        assert house.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: house.busy == {"a": 0})
        assert house.dispatcher.zombies("a") == 0


async def test_a_probe_that_fails_frees_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.servers.probed", NO_CONNECTION)
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_house(servers, "chatglm2-openai") as house:
        events = house.events(stream=True)
        await anext(events)
        await events.aclose()
        await wait_until(lambda: house.busy == {"a": 0})


@pytest.mark.parametrize("dialect", ["chatglm-stream", "chatglm2-openai"])
async def test_a_card_whose_answer_was_cut_at_its_limit_stays_taken(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    said = "word " * 50
    if dialect == "chatglm-stream":
        pieces = [b"data: " + jsontext.write({"success": True, "response": said}) + b"\n\n"]
    else:
        pieces = [chunk("", role=True), chunk(said)]
    servers = Servers(a=streaming(*pieces, until=asyncio.Event(), at=len(pieces)))
    async with open_house(servers, dialect) as house:
        events = await house.answer(stream=True, max_tokens=5)
        assert reasons(events) == {0: "length"}
        assert house.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: house.busy == {"a": 0})


async def test_a_stream_that_was_read_to_its_end_needs_no_probe() -> None:
    servers = Servers(a=streaming(*talk("hello")))
    async with open_house(servers, "chatglm2-openai") as house:
        await house.answer(stream=True)
        assert house.busy == {"a": 0}
    assert [asked.method for asked in servers.asked] == ["POST"]


@pytest.mark.parametrize("reply", [NO_CONNECTION, refusing(500)], ids=["no-connection", "refusal"])
async def test_a_server_that_did_not_take_a_stream_needs_no_probe(reply: Reply) -> None:
    servers = Servers(a=reply)
    async with open_house(servers, "chatglm2-openai") as house:
        await house.failure(GatewayError, stream=True)
        assert house.busy == {"a": 0}
    assert {asked.method for asked in servers.asked} == {"POST"}


async def test_one_who_leaves_the_queue_was_never_sent_anywhere() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, native()))
    async with open_house(servers, "chatglm2") as house, asyncio.TaskGroup() as group:
        holder = group.create_task(house.answer())
        await wait_until(lambda: servers.order == ["a"])
        await leave_when(house, lambda: house.dispatcher.queue_depth("m") == 1)
        assert house.dispatcher.queue_depth("m") == 0
        release.set()
        await holder
    assert servers.order == ["a"]


async def test_a_server_of_one_slot_is_taken_to_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    unblocked, finished = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    stream = streaming(*talk("hello"), until=asyncio.Event(), at=2)
    servers = Servers(a=[stream, held(finished, whole())])
    async with open_house(servers, slots=1) as house:
        for free, more in ((unblocked, {"stream": True}), (finished, {})):
            await leave_when(
                house, lambda: house.busy == {"a": 1} and servers.asked[-1].method == "POST", **more
            )
            assert house.dispatcher.zombies("a") == 1
            free.set()
            await wait_until(lambda: house.busy == {"a": 0})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_of_one_slot_that_stops_can_be_said_to(stream: bool) -> None:
    never = asyncio.Event()
    reply = streaming(*talk("hello"), until=never, at=2) if stream else held(never, whole())
    servers = Servers(a=reply)
    async with open_house(servers, slots=1, abandon="close") as house:
        await leave_when(house, lambda: servers.order == ["a"], stream=stream)
        assert house.dispatcher.zombies("a") == 0


async def test_a_drained_stream_is_read_to_its_end() -> None:
    finished = asyncio.Event()
    servers = Servers(a=streaming(*talk("hello"), until=finished, at=2))
    async with open_house(servers, abandon="drain") as house:
        events = house.events(stream=True)
        await anext(events)
        await events.aclose()
        assert house.dispatcher.zombies("a") == 1
        finished.set()
        await wait_until(lambda: house.busy == {"a": 0})
    assert [asked.method for asked in servers.asked] == ["POST"]


@pytest.mark.parametrize(("stream", "abandon"), [(True, "drain"), (True, "probe"), (False, "probe")])
async def test_what_has_not_begun_is_probed(
    stream: bool, abandon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unblocked = asyncio.Event()
    monkeypatch.setattr("tests.support.servers.probed", held(unblocked, refusing(404)))
    servers = Servers(a=held(asyncio.Event(), whole()))
    async with open_house(servers, abandon=abandon) as house:
        await leave_when(house, lambda: servers.order == ["a"], stream=stream)
        assert house.dispatcher.zombies("a") == 1
        unblocked.set()
        await wait_until(lambda: house.busy == {"a": 0})


# --- time-outs -------------------------------------------------------------------------------------


async def test_at_the_total_limit_a_card_that_works_on_stays_taken() -> None:
    finished = asyncio.Event()
    servers = Servers(a=held(finished, native()))
    async with open_house(servers, "chatglm2", "[timeouts]\ntotal = 0.2\n") as house:
        await house.failure(TotalTimeout)
        assert house.busy == {"a": 1}
        assert house.dispatcher.zombies("a") == 1
        assert house.outcomes == [("a", "total_timeout")]
        finished.set()
        await wait_until(lambda: house.busy == {"a": 0})


async def test_an_answer_that_never_comes_frees_the_card_at_twice_the_limit() -> None:
    servers = Servers(a=held(asyncio.Event(), native()))
    async with open_house(servers, "chatglm2", "[timeouts]\ntotal = 0.05\n") as house:
        await house.failure(TotalTimeout)
        await wait_until(lambda: house.busy == {"a": 0})


async def test_a_stalled_stream_fails_and_is_closed() -> None:
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=2))
    async with open_house(servers, extra="[timeouts]\nbetween_tokens = 0.05\n") as house:
        came, _ = await house.failure(StallTimeout, stream=True)
        assert text(came) == "hello"
        assert house.busy == {"a": 0}


async def test_a_stall_after_the_finish_is_a_good_end() -> None:
    servers = Servers(a=streaming(*talk("hello"), until=asyncio.Event(), at=3))
    async with open_house(servers, extra="[timeouts]\nbetween_tokens = 0.05\n") as house:
        events = await house.answer(stream=True)
    assert text(events) == "hello"
    assert reasons(events) == {0: "stop"}


async def test_a_time_out_is_not_repeated_elsewhere() -> None:
    servers = Servers(a=held(asyncio.Event(), native()), b=native())
    async with open_house(servers, "chatglm2", "[timeouts]\ntotal = 0.05\n") as house:
        await house.failure(TotalTimeout)
        assert servers.order == ["a"]
        await wait_until(lambda: house.busy["a"] == 0)


# --- notes -----------------------------------------------------------------------------------------


async def test_a_note_is_told_once_a_backend() -> None:
    servers = Servers(a=whole(), b=whole())
    long = [{"role": "user", "content": "word " * 1000}]
    async with open_house(servers, "chatglm-cpp") as house:
        assert house.notes == []
        for _ in range(4):
            await house.answer(messages=long)
    assert sorted(house.notes) == [("a", "prompt_window"), ("b", "prompt_window")]


async def test_service_times_are_learned_from_good_answers_only() -> None:
    servers = Servers(a=[refusing(500), native()])
    async with open_house(servers, "chatglm2", "[retries]\nattempts = 1\n") as house:
        service = house.dispatcher._scheduler.service("m")
        await house.failure(UpstreamError)
        assert service.mean == 10.0
        await house.answer()
        assert service.mean < 1.0


TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "r"},
]


async def fails_at_pairs(request: httpx.Request) -> httpx.Response:
    """ChatGLM3 behind the first `api.py`: a history of pairs is a 500."""
    answers = refusing(500) if jsontext.read_lenient(request.content)["history"] else native()
    return await answers(request)


@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2"])
async def test_server_that_fails_at_every_history_is_asked_about_once(dialect: str) -> None:
    async with open_house(Servers(a=fails_at_pairs), dialect) as house:
        await house.failure(UpstreamError, messages=TURNS)
        assert house.notes == []  # it may be out of order: nothing has been answered yet
        for _ in range(2):
            await house.answer()
            await house.failure(UpstreamError, messages=TURNS)
    assert house.notes == [("a", "role_history")]


async def test_server_that_has_answered_a_history_is_never_asked_about() -> None:
    async with open_house(Servers(a=[native(), native(), refusing(500)]), "chatglm") as house:
        await house.answer()
        await house.answer(messages=TURNS)
        await house.failure(UpstreamError, messages=TURNS)
    assert house.notes == []
