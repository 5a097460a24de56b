"""One answer: its attempts, retries on other backends, and other models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing

import httpx
import pytest

from gateway.abilities import registry
from gateway.abilities.base import ACCEPT, Ability, AskAgain, Judgement
from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.errors import (
    BadRequest,
    ConnectFailed,
    ContextExceeded,
    GatewayError,
    NoBackend,
    QueueFull,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamError,
    UpstreamRejected,
    UpstreamTruncated,
)
from gateway.formats import jsontext
from gateway.formats.events import Delta, Event, Finish, Passed, Usage
from gateway.formats.openai import ChatRequest
from gateway.path.call import Call
from gateway.tenancy.keys import Tenant
from tests.support.opened import opened
from tests.support.path import (
    BROKEN,
    NO_CONNECTION,
    NOBODY_WAITS,
    RESET,
    ask,
    leave_when,
    open_path,
    reasons,
    text,
    usage,
)
from tests.support.servers import (
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
from tests.support.stack import wait_until

# --- an ordinary answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "reply"), [("chatglm2", native("hello")), ("openai", None)], ids=["native", "openai"]
)
async def test_an_answer_ends_with_its_finish_and_its_usage(
    dialect: str, reply: Reply | None, stream: bool
) -> None:
    answer = reply or (streaming(*talk("hel", "lo")) if stream else whole("hello"))
    async with open_path(Servers(a=answer), dialect) as scene:
        events = await scene.answer(stream=stream)
    assert text(events) == "hello"
    assert isinstance(events[-1], Usage)
    assert isinstance(opened(events)[-2], Finish)
    assert reasons(events) == {0: "stop"}


async def test_the_receipt_tells_the_way_of_the_request() -> None:
    async with open_path(Servers(a=native()), "chatglm2") as scene:
        events = await scene.answer(seed=7)
    receipt = scene.receipt
    assert scene.outcomes == [("a", "ok")]
    assert (receipt.backend, receipt.dialect, receipt.finish) == ("a", "chatglm2", "stop")
    assert receipt.usage == usage(events)
    assert receipt.ignored == ("seed",)
    assert receipt.retries == ()
    assert receipt.granted is not None
    assert receipt.first_token == receipt.last_token is not None
    assert receipt.upstream_seconds > 0
    assert receipt.queue_seconds >= 0


async def test_usage_is_the_backends_where_it_counts_and_an_estimate_elsewhere() -> None:
    async with open_path(Servers(a=whole("hello", usage=(3, 2)))) as scene:
        assert usage(await scene.answer()) == Usage(3, 2, "backend")
    async with open_path(Servers(a=native("hello")), "chatglm2") as scene:
        assert usage(await scene.answer()).source == "estimate"


async def test_a_whole_answer_is_cut_into_pieces_for_a_stream() -> None:
    said = "今天天气很好，" * 20
    async with open_path(Servers(a=native(said)), "chatglm2") as scene:
        pieces = [event for event in await scene.answer(stream=True) if isinstance(event, Delta)]
        assert "".join(piece.text for piece in pieces) == said
        assert len(pieces) > 5
        assert len([event for event in await scene.answer() if isinstance(event, Delta)]) == 1


# --- servers of several kinds ----------------------------------------------------------------------


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_of_mixed_servers_only_those_that_can_are_asked() -> None:
    servers = Servers(old=native(), new=whole())
    async with open_path(servers, {"old": "chatglm2", "new": "openai"}) as scene:
        assert scene.plan().backends == ("old", "new")
        assert scene.plan(tools=TOOLS).backends == ("new",)
        for _ in range(4):
            await scene.answer(tools=TOOLS)
    assert servers.order == ["new"] * 4


async def test_each_server_gets_its_own_language() -> None:
    servers = Servers(old=[refusing(500)], new=whole())
    async with open_path(servers, {"old": "chatglm2", "new": "openai"}) as scene:
        assert text(await scene.answer(seed=1)) == "hello"
    (old, new) = servers.asked
    assert (old.path, new.path) == ("/", "/v1/chat/completions")
    assert "history" in old.body
    assert new.body["messages"]
    assert scene.receipt.ignored == ()  # what was lost on the one that failed is not lost on the other


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
    async with open_path(servers) as scene:
        events = await scene.answer(stream=stream)
    assert text(events) == "good"
    assert servers.order == ["a", "b"]
    assert scene.outcomes == [("a", outcome), ("b", "ok")]
    assert scene.receipt.retries == (outcome,)
    assert scene.receipt.backend == "b"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(streaming(error=httpx.ReadError("cut")), id="cut-before-any-content"),
        pytest.param(streaming(chunk("", role=True)), id="nothing-but-a-role"),
    ],
)
async def test_a_stream_cut_before_any_content_is_tried_elsewhere(reply: Reply) -> None:
    servers = Servers(a=reply, b=streaming(*talk("good")))
    async with open_path(servers) as scene:
        assert text(await scene.answer(stream=True)) == "good"
    assert scene.outcomes == [("a", "truncated"), ("b", "ok")]


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
    async with open_path(servers) as scene:
        _, failure = await scene.failure(error)
    assert servers.order == ["a"]
    assert "secret" not in failure.message


async def test_an_empty_answer_is_tried_elsewhere() -> None:
    servers = Servers(a=native(""), b=native("good"))
    async with open_path(servers, "chatglm2") as scene:
        assert text(await scene.answer()) == "good"
    assert scene.outcomes == [("a", "bad_payload"), ("b", "ok")]
    assert scene.receipt.retries == ("bad_payload",)


async def test_where_all_are_empty_that_is_told() -> None:
    servers = Servers(a=native(""), b=native(""), c=native("never asked"))
    async with open_path(servers, "chatglm2") as scene:
        await scene.failure(UpstreamEmpty)
    assert servers.order == ["a", "b"]


async def test_an_empty_answer_that_is_called_complete_is_an_answer() -> None:
    servers = Servers(a=whole(""), b=whole("never asked"))
    async with open_path(servers, "chatglm3") as scene:
        events = await scene.answer()
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
    async with open_path(servers) as scene:
        came, _ = await scene.failure(UpstreamTruncated, stream=True)
    assert text(came) == "half"
    assert reasons(came) == {}
    assert servers.order == ["a"]
    assert scene.outcomes == [("a", "truncated")]


async def test_a_cut_after_the_finish_is_a_good_end() -> None:
    cut = streaming(*talk("all")[:3], error=httpx.ReadError("cut"))
    async with open_path(Servers(a=cut)) as scene:
        events = await scene.answer(stream=True)
    assert text(events) == "all"
    assert reasons(events) == {0: "stop"}
    assert scene.receipt.repairs == ("missing_done",)


async def test_a_retry_sends_equal_bytes() -> None:
    servers = Servers(a=refusing(500), b=whole())
    async with open_path(servers) as scene:
        await scene.answer(temperature=0.5)
    assert servers.asked[0].body == servers.asked[1].body


async def test_the_last_failure_is_told_when_all_tries_are_spent() -> None:
    servers = Servers(a=NO_CONNECTION, b=refusing(500), c=whole())
    async with open_path(servers) as scene:
        await scene.failure(UpstreamError)
    assert servers.order == ["a", "b"]
    assert scene.receipt.retries == ("connect",)


async def test_as_many_tries_as_configured_are_made() -> None:
    servers = Servers(a=NO_CONNECTION, b=refusing(500), c=whole())
    async with open_path(servers, extra="[retries]\nattempts = 3") as scene:
        assert text(await scene.answer()) == "hello"
    assert servers.order == ["a", "b", "c"]


async def test_one_try_means_no_retry() -> None:
    servers = Servers(a=NO_CONNECTION, b=whole())
    async with open_path(servers, extra="[retries]\nattempts = 1") as scene:
        await scene.failure(ConnectFailed)
    assert servers.order == ["a"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("falls", [False, True], ids=["alone", "fallback"])
async def test_the_only_backend_is_asked_once_more_after_a_500(falls: bool, stream: bool) -> None:
    good = streaming(*talk("hello")) if stream else whole("hello")
    servers = Servers(a=[refusing(500), good], b=whole("other"))
    options = {"extra": OTHER} if falls else {}
    async with open_path(servers, serves={"b": "big"}, **options) as scene:
        assert text(await scene.answer(stream=stream)) == "hello"
        assert scene.outcomes == [("a", "upstream_5xx"), ("a", "ok")]
        assert scene.receipt.retries == ("upstream_5xx",)
        assert scene.receipt.answered == ""
    assert servers.order == ["a", "a"]


async def test_the_backend_that_failed_is_asked_once_more_where_all_others_are_out() -> None:
    servers = Servers(a=[refusing(500), whole()], b=whole())
    async with open_path(servers) as scene:
        scene.dispatcher.tried("b", ConnectFailed("down", refused=True))
        assert text(await scene.answer()) == "hello"
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
    async with open_path(servers, dialect, extra) as scene:
        await scene.failure(UpstreamError)
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
    async with open_path(servers, extra=extra) as scene:
        await scene.failure(GatewayError)
    assert servers.order == ["a"]


async def test_others_have_the_slot_until_the_backend_is_asked_once_more() -> None:
    servers = Servers(a=[refusing(500), native("second"), native("first")])
    async with open_path(servers, "chatglm2") as scene, asyncio.TaskGroup() as group:
        first = group.create_task(scene.answer())
        await wait_until(lambda: scene.busy == {"a": 0} and servers.order == ["a"])
        assert text(await scene.answer()) == "second"
        assert text(await first) == "first"


async def test_who_leaves_before_the_backend_is_asked_once_more_asks_nobody() -> None:
    servers = Servers(a=refusing(500))
    async with open_path(servers, "chatglm2") as scene:
        await leave_when(scene, lambda: scene.busy == {"a": 0} and servers.order == ["a"])
    assert servers.order == ["a"]


async def test_when_everything_fails_the_budget_bounds_the_retries() -> None:
    servers = Servers(a=refusing(500), b=refusing(500))
    async with open_path(servers, extra="[retries]\nbudget = 0.0\nleast = 0.1") as scene:
        for _ in range(3):
            await scene.failure(UpstreamError)
    assert len(servers.order) == 3 + 1


async def test_where_nobody_else_is_free_the_first_failure_is_told() -> None:
    release = asyncio.Event()
    servers = Servers(a=[NO_CONNECTION], b=held(release, whole()))
    async with open_path(servers, extra=NOBODY_WAITS, slots=1) as scene, asyncio.TaskGroup() as group:
        scene.dispatcher.tried("a", ConnectFailed("down", refused=True))
        holder = group.create_task(scene.answer())
        await wait_until(lambda: servers.order == ["b"])
        scene.health_monitor.probed("a", "ok")
        came, failure = await scene.failure(ConnectFailed)
        assert came == []
        assert failure.retry_after == 1
        release.set()
        assert text(await holder) == "hello"


async def test_a_full_queue_is_told_as_such_when_nothing_was_tried() -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, whole()))
    async with (
        open_path(servers, extra="[queue]\nlength = 0", slots=1) as scene,
        asyncio.TaskGroup() as group,
    ):
        holder = group.create_task(scene.answer())
        await wait_until(lambda: servers.order == ["a"])
        await scene.failure(QueueFull)
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
    async with open_path(servers) as scene:
        began = time.monotonic()
        assert text(await scene.answer(stream=stream)) == "good"
        assert time.monotonic() - began >= 0.3
    assert servers.order == ["a", "a"]
    assert scene.receipt.retries == ("upstream_5xx",)
    assert scene.receipt.queue_seconds > 0.2


async def test_another_backend_is_asked_at_once_while_one_is_busy() -> None:
    servers = Servers(a=pressing(30), b=whole())
    async with open_path(servers) as scene:
        for _ in range(3):
            await scene.answer()
    assert servers.order == ["a", "b", "b", "b"]


async def test_a_pause_beyond_the_queues_time_out_is_not_waited_for() -> None:
    servers = Servers(a=pressing(30))
    async with open_path(servers, extra="[queue]\ntimeout = 5") as scene:
        _, first = await scene.failure(UpstreamBusy)
        _, second = await scene.failure(NoBackend)
    assert first.retry_after == 30
    assert second.retry_after is not None
    assert 29 < second.retry_after <= 30
    assert servers.order == ["a"]


async def test_waiting_for_all_tries_together_is_bounded_by_the_queues_time_out() -> None:
    servers = Servers(a=pressing(0.3))
    limits = "[queue]\ntimeout = 0.5\n[retries]\nattempts = 3\n"
    async with open_path(servers, extra=limits) as scene:
        await scene.failure(UpstreamBusy)
    assert servers.order == ["a", "a"]
    assert scene.receipt.retries == ("upstream_5xx",)


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
    async with open_path(servers, extra=OTHER + "[queue]\ntimeout = 5", serves=BIG) as scene:
        assert text(await scene.answer(stream=stream)) == "good"
    again = ["a"] if reply is BROKEN else []  # a 500 alone is asked once more where it came from
    assert servers.order == ["a", *again, "b"]
    assert servers.asked[-1].body["model"] == "big"
    assert scene.receipt.answered == "big"
    assert scene.receipt.backend == "b"
    assert scene.receipt.retries == ("upstream_5xx",) * len(again)


async def test_a_stream_that_ends_behind_its_role_moves_to_another_model() -> None:
    role = chunk("", role=True, id="c-1", created=1, model="m")  # as it passes unread
    servers = Servers(a=streaming(role), b=streaming(*talk("good")))
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        events = await scene.answer(stream=True)
    assert text(events) == "good"
    assert not any(b"c-1" in event.data for event in events if isinstance(event, Passed))
    assert scene.outcomes == [("a", "truncated"), ("b", "ok")]


async def test_a_role_goes_on_at_once_where_nobody_else_could_answer() -> None:
    role = chunk("", role=True, id="c-1", created=1, model="m")
    async with open_path(Servers(a=streaming(role))) as scene:
        came, _ = await scene.failure(UpstreamTruncated, stream=True)
    (passed,) = came
    assert isinstance(passed, Passed)
    assert not passed.content
    assert b'"id":"c-1"' in passed.data
    assert scene.receipt.first_token is None


async def test_a_slot_comes_back_where_a_try_cannot_even_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_path(Servers(a=whole())) as scene:
        plan = scene.plan()
        monkeypatch.setattr(plan, "outgoing", {"a": None})
        with pytest.raises(AttributeError):
            await anext(scene.events_of(plan))
        assert scene.busy == {"a": 0}


@pytest.mark.parametrize("name", ["tried", "served"])
@pytest.mark.parametrize("reply", [native(), refusing(500)], ids=["answer", "failure"])
async def test_a_slot_comes_back_where_the_end_of_a_try_cannot_be_noted(
    name: str, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_path(Servers(a=reply), "chatglm2") as scene:

        def fails(*_: object) -> None:
            raise StopIteration

        monkeypatch.setattr(scene.dispatcher, name, fails)
        with contextlib.suppress(RuntimeError, GatewayError):
            await scene.answer()
        assert scene.busy == {"a": 0}


async def test_a_model_that_answers_is_not_left() -> None:
    servers = Servers(a=whole(), b=whole())
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        await scene.answer()
    assert servers.order == ["a"]
    assert scene.receipt.answered == ""


async def test_all_tries_on_the_model_itself_come_first() -> None:
    servers = Servers(a=refusing(500), c=refusing(500), b=whole())
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        await scene.answer()
    assert servers.order == ["a", "c", "b"]


async def test_a_model_without_a_backend_that_is_up_is_left_at_once() -> None:
    servers = Servers(a=NO_CONNECTION, b=whole())
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        for _ in range(3):
            await scene.answer()
    assert servers.order == ["a", "b", "b", "b"]


@pytest.mark.parametrize("queue", ["length = 0", "timeout = 0.05"], ids=["full", "slow"])
async def test_a_queue_that_is_full_or_too_slow_is_left(queue: str) -> None:
    release = asyncio.Event()
    servers = Servers(a=held(release, whole()), b=whole())
    async with (
        open_path(servers, extra=f"{OTHER}[queue]\n{queue}", serves=BIG, slots=1) as scene,
        asyncio.TaskGroup() as group,
    ):
        holder = group.create_task(scene.answer())
        await wait_until(lambda: servers.order == ["a"])
        await scene.answer()
        assert servers.order == ["a", "b"]
        release.set()
        await holder


async def test_the_nearest_free_model_is_taken_else_whichever_is_free_first() -> None:
    release, never = asyncio.Event(), asyncio.Event()
    models = '[[models]]\nname = "m"\nfallbacks = ["x", "y"]\n'
    servers = Servers(a=NO_CONNECTION, x=held(never, whole()), y=held(release, whole("y")))
    async with (
        open_path(servers, extra=models, serves={"x": "x", "y": "y"}, slots=1) as scene,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(scene.answer())]
        await wait_until(lambda: servers.order == ["a", "x"])
        tasks.append(group.create_task(scene.answer()))
        await wait_until(lambda: servers.order == ["a", "x", "y"])
        tasks.append(group.create_task(scene.answer()))
        await wait_until(lambda: scene.dispatcher.queue_depth("x") == 1)
        release.set()
        await wait_until(lambda: servers.order == ["a", "x", "y", "y"])
        never.set()
        assert [text(await task) for task in tasks] == ["hello", "y", "y"]


async def test_when_no_model_can_the_first_failure_is_told() -> None:
    servers = Servers(a=refusing(500), b=refusing(400, b"{}"), c=NO_CONNECTION)
    models = OTHER + '[[models]]\nname = "big"\nfallbacks = ["last"]\n'
    async with open_path(servers, extra=models, serves={**BIG, "c": "last"}) as scene:
        _, failure = await scene.failure(UpstreamError)
    assert servers.order == ["a", "a", "b", "c"]
    assert "HTTP 500" in failure.message


async def test_after_content_no_other_model_is_asked() -> None:
    servers = Servers(a=streaming(*talk("half")[:2]), b=streaming(*talk("other")))
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        came, _ = await scene.failure(UpstreamTruncated, stream=True)
    assert text(came) == "half"
    assert servers.order == ["a"]


@pytest.mark.parametrize("code", ["content_filter", "invalid_value"])
async def test_what_a_model_refuses_no_other_is_asked(code: str) -> None:
    refusal = jsontext.write({"error": {"message": "no", "code": code}})
    servers = Servers(a=refusing(400, refusal), b=whole())
    async with open_path(servers, extra=OTHER + 'context_fallbacks = ["big"]\n', serves=BIG) as scene:
        await scene.failure(UpstreamRejected)
    assert servers.order == ["a"]


async def test_a_key_goes_only_where_it_may() -> None:
    servers = Servers(a=refusing(500), b=whole())
    tenant = Tenant("t", frozenset({"m"}))
    async with open_path(servers, extra=OTHER, serves=BIG) as scene:
        plan = scene.plan(Call(ask().request, tenant))
        with pytest.raises(UpstreamError):
            async with aclosing(scene.events_of(plan)) as events:
                await anext(events)
    assert servers.order == ["a", "a"]


async def test_a_chat_too_long_for_one_model_goes_to_a_longer_one_unasked() -> None:
    servers = Servers(a=whole(), b=whole("long"))
    async with open_path(servers, extra=LONGER, serves=BIG) as scene:
        assert text(await scene.answer(messages=LONG)) == "long"
        assert scene.receipt.answered == "big"
        assert text(await scene.answer()) == "hello"
    assert servers.order == ["b", "a"]


async def test_a_backend_that_finds_it_too_long_is_asked_once() -> None:
    too_long = jsontext.write({"error": {"message": "x", "code": "context_length_exceeded"}})
    servers = Servers(a=refusing(400, too_long), c=whole(), b=whole("long"))
    async with open_path(servers, extra=LONGER, serves=BIG) as scene:
        assert text(await scene.answer()) == "long"
    assert servers.order == ["a", "b"]


async def test_too_long_is_no_outage_and_an_outage_not_too_long() -> None:
    servers = Servers(a=refusing(500), b=whole())
    async with open_path(servers, extra=LONGER, serves=BIG) as scene:
        await scene.failure(UpstreamError)
    async with open_path(servers, extra=OTHER + "context = 64\ndefault_output = 8\n", serves=BIG) as scene:
        with pytest.raises(ContextExceeded):
            scene.plan(messages=LONG)
    assert servers.order == ["a", "a"]


async def test_several_choices_stay_with_one_model() -> None:
    servers = Servers(a=refusing(500), b=native())
    async with open_path(servers, "chatglm2", OTHER, serves=BIG) as scene:
        await scene.failure(UpstreamError, n=2)
    assert "b" not in servers.order


# --- abilities that ask again -----------------------------------------------------------------------


class Longer(Ability):
    """Accepts no answer but a long one."""

    @classmethod
    def wanted(cls, request: ChatRequest, dialect: Dialect, profile: Profile) -> bool:
        return True

    @classmethod
    def begin(cls, request: ChatRequest, dialect: Dialect, outgoing: Outgoing) -> Longer:
        ability = cls()
        ability.request = request
        return ability

    request: ChatRequest

    def feed(self, event: Event) -> list[Event]:
        self.events = [*getattr(self, "events", ()), event]
        return []

    def judge(self) -> Judgement:
        if len(text(self.events)) > 5:
            return ACCEPT
        return AskAgain(self.request.of("longer"), "too_short", BadRequest("Too short."))

    def flush(self) -> list[Event]:
        return self.events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "chatglm2"])
async def test_an_ability_asks_again_once_before_anything_is_given(
    dialect: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ABILITIES", (Longer, *registry.ABILITIES))
    good = (native, whole)[dialect == "openai"]
    servers = Servers(a=[good("short"), good("long enough")])
    async with open_path(servers, dialect) as scene:
        events = await scene.answer(stream=stream)
    assert text(events) == "long enough"
    assert servers.order == ["a", "a"]
    assert scene.receipt.retries == ("too_short",)
    assert [attempt.outcome for attempt in scene.receipt.attempts] == ["ok", "ok"]


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_that_is_not_accepted_a_second_time_is_the_failure(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ABILITIES", (Longer,))
    servers = Servers(a=whole("short"))
    async with open_path(servers) as scene:
        await scene.failure(BadRequest, stream=stream)
        assert scene.busy == {"a": 0}
    assert servers.order == ["a", "a"]


@pytest.mark.parametrize("retries", ["attempts = 1", "budget = 0\nleast = 0"])
async def test_ability_does_not_ask_again_beyond_the_limits_of_retries(
    retries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ABILITIES", (Longer,))
    servers = Servers(a=whole("short"))
    async with open_path(servers, extra=f"[retries]\n{retries}\n") as scene:
        await scene.failure(BadRequest)
    assert servers.order == ["a"]


async def test_ability_does_not_ask_again_after_content_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Longer):
        """Gives its content before it judges."""

        def feed(self, event: Event) -> list[Event]:
            super().feed(event)
            return [event]

    monkeypatch.setattr(registry, "ABILITIES", (Late,))
    servers = Servers(a=streaming(*talk("a", "b")))
    async with open_path(servers) as scene:
        await scene.failure(BadRequest, stream=True)
    assert servers.order == ["a"]
