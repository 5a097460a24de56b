"""Copies to a shadow over fake servers: when they are made, when they are not, and that nobody feels them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway import config
from gateway.errors import GatewayError, QueueFull, UpstreamError
from gateway.formats.events import Event
from gateway.path.relay import Relay
from gateway.path.routing import Plan
from gateway.path.shadow import LARGE, ShadowTraffic
from gateway.scheduling.slot_request import SlotRequest
from gateway.telemetry.comparison import Comparison, Skip
from gateway.telemetry.receipt import Receipt
from tests.support.path import PathScene
from tests.support.servers import (
    Reply,
    Servers,
    failing,
    held,
    native,
    refusing,
    streaming,
    talk,
    whole,
)
from tests.support.stack import configured, wait_until


def extra(share: float = 1.0, more: str = "", **settings: float) -> str:
    """The model `m` with a shadow `new`."""
    shadow = "".join(f", {name} = {value}" for name, value in settings.items())
    return f'[[models]]\nname = "m"\nshadow = {{ model = "new", share = {share}{shadow} }}\n{more}'


class Studio(PathScene):
    """A relay with a shadow. `a` serves the model `m`, `b` its shadow `new`. Is told of every copy."""

    def __init__(self, servers: Servers, text: str, dialect: Any = "openai", **backend: Any) -> None:
        backend.setdefault("serves", {"b": "new"})
        super().__init__(servers, dialect, text, **backend)
        self.comparisons: list[Comparison] = []
        self.skips: list[tuple[str, str, str]] = []
        self.crashes: list[tuple[str, BaseException]] = []
        self.chances: list[float] = []
        self.beside = self.borrowed = 0
        self.room = 1_000_000
        self.shadow = ShadowTraffic(
            self.settings,
            self.fleet,
            self.dispatcher,
            self.background,
            time.monotonic,
            lambda *note: self.notes.append(note),
            lambda: self.chances.pop(0) if self.chances else 0.0,
            observers=[self],
            crash=lambda request_id, error: self.crashes.append((request_id, error)),
            beside=self.run_beside,
            room=self,
        )
        self.relay = Relay(self.path_context(), self.shadow.watch)

    def shadowed(self, comparison: Comparison) -> None:
        self.comparisons.append(comparison)

    def shadow_skipped(self, model: str, shadow: str, reason: Skip) -> None:
        self.skips.append((model, shadow, reason))

    def borrow(self, size: int) -> bool:
        if size > self.room - self.borrowed:
            return False
        self.borrowed += size
        return True

    def give(self, size: int) -> None:
        self.borrowed -= size

    async def run_beside(self, work: Callable[[], Plan]) -> Plan:
        self.beside += 1
        return await asyncio.to_thread(work)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.skips]

    async def settle(self) -> None:
        """Wait until no copy runs."""
        await wait_until(lambda: not len(self.shadow))

    async def read(self, **body: Any) -> list[Event]:
        """One whole answer, read as doors do, with a receipt of its own."""
        self.receipt = Receipt("r-1", "chat", time.monotonic(), model="m")
        return await self.answer(**body)

    async def compared(self, **body: Any) -> Comparison:
        """The comparison of one request and its copy."""
        await self.read(**body)
        await self.settle()
        assert self.skips == []
        return self.comparisons.pop()


@asynccontextmanager
async def studio(
    text: str = extra(), dialect: Any = "openai", *, options: Any = None, **replies: Any
) -> AsyncIterator[Studio]:
    one = Studio(Servers(**replies), text, dialect, **(options or {}))
    try:
        yield one
        await one.settle()
        assert one.crashes == []
        assert one.borrowed == 0  # whatever became of the copies
        assert sum(map(one.dispatcher.in_flight, replies)) == sum(map(one.dispatcher.zombies, replies))
    finally:
        await one.shadow.aclose()
        await one.background.aclose()
        for backend in one.fleet.values():
            await backend.aclose()


# --- what is compared ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_asked_as_its_request_was_and_compared(stream: bool) -> None:
    reply = streaming(*talk("hel", "lo")) if stream else whole("hello")
    async with studio(a=reply, b=reply) as one:
        found = await one.compared(stream=stream)
    assert (found.request_id, found.model, found.shadow, found.same_text) == ("r-1", "m", "new", True)
    for side, backend in ((found.caller, "a"), (found.copy, "b")):
        assert (side.backend, side.outcome, side.finish, side.characters) == (backend, "ok", "stop", 5)
        assert side.first_token is not None
        assert 0 <= side.first_token <= side.seconds
    mine, copied = (asked.body for asked in one.servers.asked)
    assert (copied["model"], mine["model"]) == ("new", "m")
    assert copied["messages"] == mine["messages"]
    assert copied.get("stream", False) is stream


@pytest.mark.parametrize(
    ("reply", "same"),
    [
        pytest.param(whole(" hel\nlo"), True, id="other-blanks"),
        pytest.param(whole("goodbye"), False, id="other-text"),
        pytest.param(streaming(*talk("hello")), True, id="the-other-kind"),
        pytest.param(refusing(200, b"<html>"), None, id="no-answer"),
    ],
)
async def test_texts_are_the_same_or_not_but_for_blanks(reply: Reply, same: bool | None) -> None:
    async with studio(a=whole("hello"), b=reply) as one:
        assert (await one.compared()).same_text is same


async def test_two_dialects_are_compared_by_what_their_clients_would_read() -> None:
    async with studio(dialect={"a": "chatglm2", "b": "openai"}, a=native("hello"), b=whole("hello")) as one:
        assert (await one.compared()).same_text is True


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        pytest.param(refusing(500), "upstream_5xx", id="500"),
        pytest.param(refusing(400, b"{}"), "upstream_4xx", id="400"),
        pytest.param(refusing(200, b"<html>"), "bad_payload", id="garbage"),
        pytest.param(failing(httpx.ReadError), "connect", id="reset"),
    ],
)
async def test_a_copy_that_fails_changes_nothing(reply: Reply, outcome: str) -> None:
    async with studio(a=whole("hello"), b=reply) as one:
        for _ in range(20):
            found = await one.compared()
            assert (found.caller.outcome, found.copy.outcome, found.same_text) == ("ok", outcome, None)
        health = one.health_monitor.healths["b"]
        assert (health.tries, health.steady) == (0, True)
        assert one.dispatcher.state("b").pace == 0
    assert one.outcomes == [("a", "ok")], "a copy is not on the caller's receipt"
    assert one.servers.order == ["a", "b"] * 20, "a copy is tried once"


async def test_a_copy_goes_to_no_second_backend_and_no_other_model() -> None:
    text = extra(more='[[models]]\nname = "new"\nbackends = ["c"]\nfallbacks = ["m"]\n')
    async with studio(
        text, a=whole(), b=refusing(500), c=refusing(500), options={"serves": {"b": "new", "c": "x"}}
    ) as one:
        assert (await one.compared()).copy.outcome == "upstream_5xx"
    assert len(one.servers.order) == 2


async def test_a_failure_of_the_callers_answer_is_compared_too() -> None:
    async with studio(a=refusing(500), b=whole("hello")) as one:
        one.receipt.model = "m"
        await one.failure(UpstreamError)
        await one.settle()
        (found,) = one.comparisons
    assert (found.caller.outcome, found.copy.outcome, found.same_text) == ("upstream_5xx", "ok", None)
    assert found.copy.characters == 5


async def test_a_stream_that_breaks_off_is_copied_when_it_has() -> None:
    async with studio(a=streaming(*talk("half")[:2]), b=streaming(*talk("whole"))) as one:
        with pytest.raises(GatewayError):
            await one.read(stream=True)
        await one.settle()
        (found,) = one.comparisons
    assert (found.caller.outcome, found.caller.characters) == ("truncated", 4)
    assert (found.copy.outcome, found.copy.characters) == ("ok", 5)


async def test_a_bug_of_ours_is_told_and_ends_the_copy_alone() -> None:
    async with studio(a=whole("hello"), b=whole("hello")) as one:
        one.shadow._beside = None  # type: ignore[assignment]  # what cannot be called
        assert await one.read(messages=[{"role": "user", "content": "x" * LARGE}])
        await one.settle()
        ((request_id, error),) = one.crashes
        assert (request_id, type(error)) == ("r-1", TypeError)
        one.crashes.clear()
        assert (await one.compared()).same_text is True


# --- nobody waits for a copy -----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_a_copy_happens_before_the_callers_answer_has_ended(stream: bool) -> None:
    release = asyncio.Event()
    pieces = talk("hel", "lo")
    reply = streaming(*pieces, until=release, at=2) if stream else held(release, whole("hello"))
    async with studio(a=reply, b=streaming(*pieces) if stream else whole("hello")) as one:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(one.compared(stream=stream))
            await wait_until(lambda: one.servers.order == ["a"])
            assert len(one.shadow) == 0
            release.set()
        assert (await reading).same_text is True
    assert one.servers.order == ["a", "b"]


async def test_a_copy_that_hangs_holds_up_nobody() -> None:
    release = asyncio.Event()
    async with studio(
        extra(at_once=2), a=whole("hello"), b=held(release, whole("hello")), options={"slots": 8}
    ) as one:
        for _ in range(5):
            assert await one.read()
        assert len(one.shadow) == 2
        assert one.reasons == ["full"] * 3
        release.set()
        await one.settle()
    assert len(one.comparisons) == 2
    assert one.servers.order.count("b") == 2


async def test_a_copy_for_which_there_is_no_memory_is_not_made() -> None:
    async with studio(extra(), a=whole("hello"), b=whole("hello")) as one:
        one.room = 10
        assert await one.read()
    assert (one.reasons, one.comparisons) == (["full"], [])


async def test_a_copy_is_given_up_after_its_time() -> None:
    never = asyncio.Event()
    async with studio(
        extra(timeout=0.05), a=whole("hello"), b=held(never, whole()), options={"slots": 8}
    ) as one:
        found = await one.compared()
        assert one.dispatcher.in_flight("b") == 0
    assert (found.copy.outcome, found.same_text, found.copy.first_token) == ("total_timeout", None, None)
    assert found.copy.seconds >= 0.05


async def test_a_copy_takes_a_free_slot_or_none() -> None:
    release = asyncio.Event()
    async with studio(a=whole("hello"), b=held(release, whole()), options={"slots": 1}) as one:
        lease = await one.dispatcher.lease(SlotRequest("new", ("b",)), lambda _: None)
        await one.read()
        await one.settle()
        assert one.skips == [("m", "new", "busy")]
        assert one.dispatcher.queue_depth("new") == 0
        lease.end()
    assert one.servers.order == ["a"]


async def test_a_copy_is_not_what_a_backend_that_comes_back_is_tried_with() -> None:
    options = {"serves": {"b": "new", "c": "new"}}
    async with studio(a=whole("hello"), b=whole("hello"), c=whole("hello"), options=options) as one:
        one.dispatcher.state("b").share = 0.5
        for _ in range(3):
            assert (await one.compared()).copy.backend == "c"
        one.dispatcher.state("c").share = 0.5
        await one.read()
        await one.settle()
        assert one.reasons == ["busy"]


async def test_a_copy_gives_its_slot_to_who_has_to_wait_for_it() -> None:
    never = asyncio.Event()
    options = {"slots": 1, "abandon": "close"}
    async with studio(a=whole("hello"), b=[held(never, whole()), whole("real")], options=options) as one:
        await one.read()
        await wait_until(lambda: one.servers.order == ["a", "b"])
        lease = await one.dispatcher.lease(SlotRequest("new", ("b",)), lambda _: None)
        await one.settle()
        assert one.reasons == ["gave_way"]
        assert one.dispatcher.in_flight("b") == 1
        lease.end()
    assert one.comparisons == []


async def test_one_who_waits_costs_one_copy_and_no_slot_elsewhere() -> None:
    never = asyncio.Event()
    options = {"slots": 2, "abandon": "close"}
    async with studio(a=whole("hello"), b=held(never, whole()), options=options) as one:
        for number in (2, 3):
            await one.read()
            await wait_until(lambda number=number: len(one.servers.order) == 2 * number - 2)
        first = one.dispatcher.seize(SlotRequest("m", ("a",)))
        second = one.dispatcher.seize(SlotRequest("m", ("a",)))
        assert first is not None
        assert second is not None
        waiting = asyncio.ensure_future(one.dispatcher.lease(SlotRequest("m", ("a",)), lambda _: None))
        await asyncio.sleep(0)
        assert (len(one.shadow), one.reasons) == (2, [])
        first.end()
        (await waiting).end()
        second.end()
        (await one.dispatcher.lease(SlotRequest("new", ("b",)), lambda _: None)).end()
        await wait_until(lambda: one.reasons == ["gave_way"])
        assert len(one.shadow) == 1
        one.shadow.close()


async def test_a_copy_on_a_card_that_cannot_be_stopped_is_left_to_its_end() -> None:
    release = asyncio.Event()
    options = {"slots": 1, "abandon": "drain"}
    async with studio(a=whole("hello"), b=[held(release, whole("hello")), whole()], options=options) as one:
        await one.read()
        await wait_until(lambda: one.servers.order == ["a", "b"])
        waiting = asyncio.ensure_future(one.dispatcher.lease(SlotRequest("new", ("b",)), lambda _: None))
        await wait_until(lambda: one.dispatcher.queue_depth("new") == 1)
        assert (len(one.shadow), one.reasons) == (1, [])
        release.set()
        (await waiting).end()
    assert len(one.comparisons) == 1


# --- what is not copied ----------------------------------------------------------------------------


async def test_only_the_share_is_copied() -> None:
    async with studio(extra(0.25), a=whole("hello"), b=whole("hello")) as one:
        one.chances = [0.0, 0.25, 0.2499, 0.99]
        for _ in range(4):
            await one.read()
        await one.settle()
    assert len(one.comparisons) == 2
    assert one.skips == []


async def test_a_request_whose_client_leaves_is_not_copied() -> None:
    never = asyncio.Event()
    async with studio(a=held(never, whole()), b=whole(), options={"slots": 8}) as one:
        reading = asyncio.ensure_future(one.read())
        await wait_until(lambda: one.servers.order == ["a"])
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert one.reasons == ["unanswered"]
    assert one.servers.order == ["a"]


async def test_a_request_that_never_got_to_a_backend_is_not_copied() -> None:
    async with studio(extra(more="[queue]\nlength = 0\n"), a=whole(), b=whole(), options={"slots": 1}) as one:
        lease = one.dispatcher.seize(SlotRequest("m", ("a",)))
        assert lease is not None
        with pytest.raises(QueueFull):
            await one.read()
        lease.end()
        assert one.reasons == ["unanswered"]
    assert one.servers.order == []


async def test_what_another_model_answered_is_not_compared_with_the_shadow() -> None:
    text = extra(more='fallbacks = ["spare"]\n')
    options = {"serves": {"b": "new", "c": "spare"}}
    async with studio(text, a=refusing(500), b=whole(), c=whole(), options=options) as one:
        await one.read()
        assert one.receipt.answered == "spare"
        assert one.reasons == ["unanswered"]
    assert one.servers.order == ["a", "a", "c"]


async def test_what_a_canary_takes_is_not_copied_and_a_canarys_shadow_is_its_own() -> None:
    text = extra(
        more='canary = { model = "new", share = 1 }\n'
        '[[models]]\nname = "new"\nshadow = { model = "m", share = 1 }\n'
    )
    async with studio(text, a=whole(), b=whole()) as one:
        await one.read()
    assert one.servers.order == ["b"]
    assert (one.comparisons, one.skips) == ([], [])


async def test_what_the_shadow_cannot_take_is_not_sent_to_it() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with studio(dialect={"a": "openai", "b": "chatglm2"}, a=whole(), b=native()) as one:
        await one.read(tools=tools)
        await one.settle()
        await one.read(n=2)
        await one.settle()
    assert one.reasons == ["unfit", "unfit"]
    assert one.servers.order == ["a", "a"]


async def test_several_choices_are_copied_where_one_generation_makes_them() -> None:
    async with studio(a=whole("hello", count=2), b=whole("hello", count=2)) as one:
        found = await one.compared(n=2)
    assert (found.same_text, found.copy.characters) == (True, 10)


async def test_a_large_request_is_translated_beside_the_loop() -> None:
    async with studio(a=whole("hello"), b=whole("hello")) as one:
        await one.compared()
        assert one.beside == 0
        await one.compared(messages=[{"role": "user", "content": "x" * LARGE}])
        assert one.beside == 1


async def test_a_model_without_a_shadow_is_not_even_looked_at() -> None:
    async with studio('[[models]]\nname = "m"\n', a=whole(), b=whole()) as one:
        answer = one.relay.answer(one.plan(), one.receipt, lambda _: None)
        assert one.shadow.watch(answer, one.plan(), one.receipt) is answer
        await answer.aclose()
        await one.read()
    assert one.servers.order == ["a"]


# --- ends and changes ------------------------------------------------------------------------------


async def test_at_the_end_copies_are_ended_and_no_more_are_made() -> None:
    never, release = asyncio.Event(), asyncio.Event()
    async with studio(
        a=[whole(), held(release, whole())], b=held(never, whole()), options={"slots": 8}
    ) as one:
        await one.read()
        await wait_until(lambda: one.servers.order == ["a", "b"])
        late = asyncio.ensure_future(one.read())
        await wait_until(lambda: one.servers.order == ["a", "b", "a"])
        await one.shadow.aclose()
        assert len(one.shadow) == 0
        assert one.dispatcher.in_flight("b") == 0
        release.set()
        await late
        assert one.reasons == ["shutdown", "shutdown"]
        await one.read()
        assert "closed" in repr(one.shadow)
    assert one.servers.order == ["a", "b", "a", "a"]
    assert one.reasons == ["shutdown", "shutdown"]


async def test_a_copy_that_ends_before_it_has_begun_is_counted() -> None:
    async with studio(a=whole(), b=whole()) as one:
        await one.read()
        one.shadow.close()
        await one.settle()
    assert one.reasons == ["shutdown"]


def changed(one: Studio, text: str, **options: Any) -> config.Config:
    return configured(one.servers.urls("openai"), text, **({"serves": {"b": "new"}} | options))


async def test_another_configuration_changes_the_share_and_the_target() -> None:
    async with studio(extra(0), a=whole("hello"), b=whole("hello")) as one:
        await one.read()
        for text, copies in ((extra(1), 1), (extra(0), 0), ('[[models]]\nname = "m"\n', 0), (extra(1), 1)):
            settings = changed(one, text)
            one.relay.reconfigure(settings, one.fleet)
            one.shadow.reconfigure(settings, one.fleet)
            one.settings = settings
            await one.read()
            await one.settle()
            assert len(one.comparisons) == copies
            one.comparisons.clear()


async def test_a_shadow_that_is_gone_when_the_answer_ends_is_not_asked() -> None:
    release = asyncio.Event()
    async with studio(a=held(release, whole()), b=whole()) as one:
        reading = asyncio.ensure_future(one.read())
        await wait_until(lambda: one.servers.order == ["a"])
        settings = changed(one, "", serves={"b": "other"})
        one.shadow.reconfigure(settings, one.fleet)
        release.set()
        await reading
        await one.settle()
    assert one.skips == [("m", "new", "unfit")]
