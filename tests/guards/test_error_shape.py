"""Every error of the table has the canonical body, headers and status at every door."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from gateway import errors
from gateway.api import responses
from gateway.api.doors import native
from gateway.api.lifecycle import Lifecycle
from gateway.api.middleware import RequestMiddleware
from gateway.api.request_context import request_context
from gateway.errors import TABLE, ClientGone, GatewayError, Row, Unauthorized
from tests.support.asgi import Call, fetch

TYPES = {"invalid_request_error", "server_error", "rate_limit_error"}
REACHING = [kind for kind in TABLE if kind is not ClientGone]


def make(kind: type[GatewayError]) -> GatewayError:
    """One error of a kind."""
    return Unauthorized("missing") if kind is Unauthorized else kind('what is "wrong"\nand how to mend it')


async def refuse(error: GatewayError, error_body: Callable[[GatewayError], bytes]) -> Call:
    """What a client of the door sees of an error."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        request_context(scope).error_body = error_body
        raise error

    app = RequestMiddleware(
        door, hook=Nobody(), crash_log=Nobody(), clock=lambda: 0.0, new_id="{}1".format, lifecycle=Lifecycle()
    )
    return await fetch(app, "POST", "/")


class Nobody:
    """A hook and crash log that take no note; a crash would be a fault here."""

    def settled(self, receipt: Any) -> None: ...
    def queue_wait(self, model: str, outcome: str, seconds: float) -> None: ...
    def backend_changed(self, backend: str, up: bool, reason: str) -> None: ...
    def auth_failed(self, reason: str) -> None: ...

    def crash(self, request_id: str, error: Exception) -> None:
        raise AssertionError(error)


def kinds(base: type[GatewayError]) -> set[type[GatewayError]]:
    """A class and all that are made from it."""
    return {base}.union(*(kinds(child) for child in base.__subclasses__()))


def test_every_kind_of_error_that_can_be_raised_has_a_row() -> None:
    families = {errors.GatewayError, errors.Unavailable, errors.UpstreamTimeout}
    assert kinds(GatewayError) - families == set(TABLE)


@pytest.mark.parametrize("row", TABLE.values())
def test_a_row_is_consistent(row: Row) -> None:
    assert row.type in TYPES
    assert (row.type == "server_error") == (row.status >= 500)
    assert not (row.blames and row.status < 500)
    assert row.code is None or row.code.replace("_", "").isalpha()
    assert row.repeat is None or row.status in (501, 502, 504)


@pytest.mark.parametrize("kind", REACHING, ids=lambda kind: kind.__name__)
async def test_at_the_chat_door_an_error_is_openais_envelope(kind: type[GatewayError]) -> None:
    error = make(kind)
    call = await refuse(error, responses.error_body)
    assert call.status == error.row.status
    assert call.header("content-type") == "application/json"
    assert call.header("x-request-id") == "req_1"
    assert call.header("content-length") == str(len(call.body))
    assert call.json == {
        "error": {
            "message": error.message,
            "type": error.row.type,
            "param": None,
            "code": error.row.code,
        }
    }
    assert b"\n" not in call.body


@pytest.mark.parametrize("kind", REACHING, ids=lambda kind: kind.__name__)
async def test_at_the_native_door_an_error_is_detail_and_status(kind: type[GatewayError]) -> None:
    error = make(kind)
    call = await refuse(error, native.error_body)
    assert call.status == error.row.status
    assert call.header("content-type") == "application/json"
    assert call.json == {"detail": error.message, "status": error.row.status}


@pytest.mark.parametrize("kind", REACHING, ids=lambda kind: kind.__name__)
def test_an_error_may_name_its_field_and_its_own_code(kind: type[GatewayError]) -> None:
    if kind is Unauthorized:
        error: GatewayError = Unauthorized("wrong")
        assert json.loads(responses.error_body(error))["error"]["param"] is None
        return
    error = kind("x", param="messages[0].content", code="special")
    shown = json.loads(responses.error_body(error))["error"]
    assert (shown["param"], shown["code"]) == ("messages[0].content", "special")


@pytest.mark.parametrize("kind", REACHING, ids=lambda kind: kind.__name__)
async def test_errors_that_can_tell_when_to_come_back_do(kind: type[GatewayError]) -> None:
    error = make(kind)
    error.retry_after = 1.2
    call = await refuse(error, responses.error_body)
    assert call.header("retry-after") == "2"
    assert call.header("retry-after-ms") == "1200"


async def test_a_client_that_is_gone_is_sent_nothing() -> None:
    assert (await refuse(ClientGone("gone"), responses.error_body)).status == 0
