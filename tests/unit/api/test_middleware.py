"""Around every request: ids, standing headers, the receipt, and errors nobody caught."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import responses
from gateway.api.client_guard import ClientGuard
from gateway.api.lifecycle import Lifecycle
from gateway.api.middleware import RequestMiddleware
from gateway.api.request_context import RequestContext, request_context
from gateway.errors import BadRequest, QueueFull, UpstreamTruncated
from gateway.telemetry.receipt import Receipt
from tests.support.asgi import Call, begin, fetch


class Office:
    """A reception around one app, with a clock, a hook and a crash log of the test's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.settled_receipts: list[Receipt] = []
        self.crashes: list[tuple[str, Exception]] = []
        self.now = 100.0
        self.lifecycle = Lifecycle()
        self.app = RequestMiddleware(
            app,
            hook=self,
            crash_log=self,
            clock=lambda: self.now,
            new_id=lambda prefix: f"{prefix}new",
            lifecycle=self.lifecycle,
        )

    def settled(self, receipt: Receipt) -> None:
        self.settled_receipts.append(receipt)

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None: ...
    def backend_changed(self, backend: str, up: bool, reason: str) -> None: ...
    def auth_failed(self, reason: str) -> None: ...

    def crash(self, request_id: str, error: Exception) -> None:
        self.crashes.append((request_id, error))

    async def fetch(self, **options: Any) -> Call:
        return await fetch(self.app, "GET", "/x", **options)

    @property
    def receipt(self) -> Receipt:
        (receipt,) = self.settled_receipts
        return receipt


async def good(scope: Scope, receive: Receive, send: Send) -> None:
    await responses.send_whole(send, 200, b"{}", responses.JSON)


def raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app


# --- ids and headers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123_X.y", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("a\tb", False),
        ("a\r\nx: y", False),
        ("a\n", False),
        ("a\x00", False),
        ("a/b", False),
        ("a;b", False),
        ("é", False),
        ("'\"<script>", False),
    ],
)
async def test_a_clients_request_id_is_kept_only_if_it_is_plain(given: str, kept: bool) -> None:
    office = Office(good)
    call = await office.fetch(headers={"x-request-id": given})
    assert call.header("x-request-id") == (given if kept else "req_new")
    assert office.receipt.request_id == call.header("x-request-id")


async def test_without_an_id_one_is_made() -> None:
    assert (await Office(good).fetch()).header("x-request-id") == "req_new"


async def test_every_answer_has_the_standing_headers() -> None:
    office = Office(good)
    call = await office.fetch()
    assert call.header("x-content-type-options") == "nosniff"
    assert call.header("cache-control") == "no-store"
    assert call.header("openai-version") == "2020-10-01"
    assert call.header("openai-processing-ms") == "0"
    assert call.header("connection") is None
    assert call.header("server") is None


async def test_a_streams_own_cache_control_is_left_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.start_stream(send, [])
        await responses.end_stream(send, b"data: [DONE]\n\n")

    assert (await Office(app).fetch()).header("cache-control") == "no-cache"


async def test_the_time_taken_is_told_in_whole_milliseconds() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        office.now += 1.2345
        await good(scope, receive, send)

    office = Office(app)
    assert (await office.fetch()).header("openai-processing-ms") == "1234"
    assert office.receipt.seconds == pytest.approx(1.2345)


async def test_a_gateway_that_is_ending_closes_its_connections() -> None:
    office = Office(good)
    office.lifecycle.drain()
    assert (await office.fetch()).header("connection") == "close"


# --- errors ----------------------------------------------------------------------------------------


async def test_an_error_is_written_in_the_envelope() -> None:
    office = Office(raising(QueueFull("full", retry_after=3)))
    call = await office.fetch()
    assert call.status == 503
    assert call.error == {"message": "full", "type": "server_error", "param": None, "code": "overloaded"}
    assert call.header("retry-after") == "3"
    assert call.header("x-request-id") == "req_new"
    receipt = office.receipt
    assert (receipt.status, receipt.outcome, receipt.error) == (503, "queue_full", "overloaded")


async def test_a_door_may_write_errors_its_own_way() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_context(scope).error_body = lambda error: error.message.upper().encode()
        raise BadRequest("oh no")

    call = await Office(app).fetch()
    assert (call.status, call.body) == (400, b"OH NO")


async def test_a_crash_is_a_500_that_tells_nothing_and_a_log_that_tells_all() -> None:
    error = ZeroDivisionError("secret prompt")
    office = Office(raising(error))
    call = await office.fetch()
    assert call.status == 500
    assert call.error["code"] == "internal_error"
    assert b"secret" not in call.body
    assert b"ZeroDivision" not in call.body
    assert office.crashes == [("req_new", error)]
    assert (office.receipt.status, office.receipt.outcome) == (500, "internal")


async def test_a_crash_after_the_head_is_logged_and_sends_nothing_more() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.start_stream(send, [])
        raise ZeroDivisionError

    office = Office(app)
    call = await office.fetch()
    assert call.status == 200
    assert not call.complete
    assert len(office.crashes) == 1
    assert (office.receipt.status, office.receipt.outcome) == (200, "internal")


async def test_an_error_after_the_head_is_noted_and_sends_nothing_more() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.start_stream(send, [])
        raise UpstreamTruncated("cut")

    office = Office(app)
    call = await office.fetch()
    assert call.chunks == []
    assert (office.receipt.status, office.receipt.outcome) == (200, "truncated")


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue ", "", ",", "100-continue, 100-continue"])
async def test_waiting_for_a_100_is_understood(expect: str) -> None:
    assert (await Office(good).fetch(headers={"expect": expect})).status == 200


@pytest.mark.parametrize("expect", ["200-ok", "100-continue, x", "100-continue;q=1", "\xff"])
async def test_any_other_expectation_is_a_417(expect: str) -> None:
    office = Office(good)
    call = await office.fetch(headers={"expect": expect})
    assert call.status == 417
    assert call.error["code"] == "expectation_failed"
    assert office.receipt.outcome == "client_error"


# --- the account -----------------------------------------------------------------------------------


async def test_a_good_answer_is_accounted_as_ok() -> None:
    office = Office(good)
    await office.fetch()
    receipt = office.receipt
    assert (receipt.method, receipt.path, receipt.status, receipt.outcome) == ("GET", "/x", 200, "ok")
    assert receipt.finished == 100.0


@pytest.mark.parametrize(("status", "outcome"), [(204, "ok"), (404, "client_error"), (500, "internal")])
async def test_a_bare_status_is_accounted_by_its_class(status: int, outcome: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await responses.send_whole(send, status, b"", [])

    office = Office(app)
    await office.fetch()
    assert (office.receipt.status, office.receipt.outcome) == (status, outcome)


async def test_a_long_path_is_cut_in_the_account() -> None:
    office = Office(good)
    await fetch(office.app, "GET", "/" + "x" * 100_000)
    assert len(office.receipt.path) == 256


async def test_a_quiet_visit_is_not_accounted_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_context(scope).quiet = True
        await good(scope, receive, send)

    office = Office(app)
    await office.fetch()
    assert office.settled_receipts == []


@pytest.mark.parametrize(
    ("granted", "first_token", "phase"),
    [(None, None, "queued"), (1.0, None, "before_first"), (1.0, 2.0, "streaming")],
)
async def test_a_client_that_left_is_accounted_with_where_it_was(
    granted: float | None, first_token: float | None, phase: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = request_context(scope)
        context.receipt.granted, context.receipt.first_token = granted, first_token
        await receive()
        with ClientGuard(scope["exchange"], Lifecycle()):
            await asyncio.Event().wait()

    office = Office(app)
    call = begin(office.app, "POST", "/x", body=b"{}")
    call.leave()
    await call.task
    assert call.status == 0
    receipt = office.receipt
    assert (receipt.status, receipt.outcome, receipt.left_while) == (499, "client_gone", phase)


async def test_other_kinds_of_scope_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    office = Office(app)
    await office.app({"type": "lifespan"}, _never, _ignore)
    assert seen == ["lifespan"]
    assert office.settled_receipts == []


async def _never() -> Message:
    raise AssertionError("nobody asked for a message")


async def _ignore(message: Message) -> None: ...
