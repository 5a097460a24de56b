from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.simulator.exchange import ModelError, RefusedError, Reply, Request, detail, json_reply
from gateway.simulator.program import Handler, Program
from tests.unit.simulator.helpers import get, make, post, whole


class Small(Program):
    cors = True

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("/", "POST"): self.create_item,
            ("/", "DELETE"): self.create_item,
            ("/models", "GET"): self.models,
        }

    async def create_item(self, request: Request) -> Reply:
        errors = {"model": ModelError(), "key": KeyError(), "refused": RefusedError(detail(418, "tea"))}
        raise errors[str(request.json())]

    async def models(self, _request: Request) -> Reply:
        return json_reply(["m"])


async def test_request_goes_to_its_endpoint() -> None:
    assert await whole(make(Small), get("/models")) == (200, ["m"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param("model", 500, id="model-error"),
        pytest.param("key", 500, id="programming-error"),
        pytest.param("refused", 418, id="refusal"),
        pytest.param(b"{", 500, id="no-json"),
    ],
)
async def test_what_goes_wrong_inside_has_its_status(body: object, status: int) -> None:
    assert (await whole(make(Small), post("/", body)))[0] == status


async def test_unknown_paths_and_methods_are_refused_as_fastapi_does() -> None:
    program = make(Small)
    assert await whole(program, get("/nothing")) == (404, {"detail": "Not Found"})
    reply = await program.answer(get("/"))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers) == (405, (("allow", "DELETE, POST"),))


async def test_openapi_page_lists_the_endpoints() -> None:
    status, page = await whole(make(Small), get("/openapi.json"))
    assert status == 200
    assert page["paths"]["/models"]["get"]["operationId"] == "models_models_get"


async def test_preflight_echoes_origin_and_headers() -> None:
    headers = {
        "origin": "http://x",
        "access-control-request-method": "POST",
        "access-control-request-headers": "a,b",
    }
    program, request = make(Small), Request("OPTIONS", "/anything", headers, b"")
    reply = await program.answer(request)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"OK")
    assert dict(reply.headers)["access-control-allow-origin"] == "http://x"
    assert dict(reply.headers)["access-control-allow-headers"] == "a,b"
    assert program.headers(request) == ()


def test_every_origin_may_read_the_replies_of_a_program_with_cors() -> None:
    program = make(Small)
    assert dict(program.headers(get("/", origin="http://x")))["access-control-allow-origin"] == "*"
    assert program.headers(get("/")) == ()


def test_refusal_of_a_status_has_the_body_of_the_program() -> None:
    assert make(Small).refusal(500, "x").body == b"Internal Server Error"
    assert make(Small).refusal(503, "Service Unavailable").body == b'{"detail":"Service Unavailable"}'
