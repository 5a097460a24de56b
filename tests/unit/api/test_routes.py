"""Which path leads where: an exact list, and refusals in the envelope for everything else."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import responses, routes
from gateway.api.lifecycle import Lifecycle
from gateway.api.middleware import RequestMiddleware
from gateway.errors import ModelNotFound
from gateway.telemetry.receipt import Receipt
from tests.support.asgi import Call, fetch


class Door:
    """Answers with its name and what the path gave it."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = " ".join([self.name, *map(str, scope.get("path_params", {}).values())])
        await responses.send_whole(send, 200, said.encode(), [])


class Log:
    """A hook and crash log for what should not happen here, and for receipts."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def settled(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    def queue_wait(self, model: str, outcome: str, seconds: float) -> None: ...
    def backend_changed(self, backend: str, up: bool, reason: str) -> None: ...
    def auth_failed(self, reason: str) -> None: ...

    def crash(self, request_id: str, error: Exception) -> None:
        raise AssertionError(error)


def reception(log: Log) -> Middleware:
    return Middleware(
        RequestMiddleware,
        hook=log,
        crash_log=log,
        clock=lambda: 0.0,
        new_id=lambda prefix: f"{prefix}new",
        lifecycle=Lifecycle(),
    )


def data(log: Log | None = None) -> Starlette:
    probes = routes.health_routes(live=Door("live"), ready=Door("ready"))
    doors = routes.data_routes(chat=Door("chat"), native=Door("native"), models=Door("models"))
    return routes.application([*doors, *probes], reception(log or Log()))


def admin() -> ASGIApp:
    probes = routes.health_routes(live=Door("live"), ready=Door("ready"))
    pages = routes.admin_routes(metrics=Door("metrics"), version=Door("version"))
    return routes.application([*pages, *probes], reception(Log()))


async def fetch_data(method: str, path: str, **options: Any) -> Call:
    return await fetch(data(), method, path, **options)


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/", "native"),
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/chat/completions", "chat"),
        ("GET", "/v1/models", "models"),
        ("GET", "/models", "models"),
        ("GET", "/v1/models/m", "models m"),
        ("GET", "/models/m", "models m"),
        ("GET", "/v1/models/THUDM/chatglm2-6b", "models THUDM/chatglm2-6b"),
        ("GET", "/v1/models/模型", "models 模型"),
        ("GET", "/livez", "live"),
        ("GET", "/health", "live"),
        ("GET", "/healthz", "live"),
        ("GET", "/readyz", "ready"),
        ("POST", "/v1/chat/completions/", "chat"),
        ("POST", "//v1/chat/completions", "chat"),
        ("POST", "/v1//chat///completions//", "chat"),
        ("POST", "/v1/v1/chat/completions", "chat"),
        ("POST", "/v1/v1/v1/chat/completions/", "chat"),
        ("POST", "/v1/chat/completions/chat/completions", "chat"),
        ("POST", "/openai/v1/chat/completions", "chat"),
        ("POST", "/openai/chat/completions", "chat"),
        ("POST", "/openai/deployments/m/chat/completions", "chat m"),
        ("POST", "//openai/deployments/m/chat/completions/", "chat m"),
        ("POST", "/openai/deployments/THUDM/chatglm2-6b/chat/completions", "chat THUDM/chatglm2-6b"),
        ("POST", "/v1/chat/completions/v1/chat/completions", "chat"),
        ("POST", "/openai/v1/openai/v1/chat/completions", "chat"),
        ("POST", "/openai/openai/chat/completions", "chat"),
        ("POST", "/deployments/m/chat/completions", "chat m"),
        ("POST", "/v1/deployments/m/chat/completions/", "chat m"),
        ("POST", "/v1/openai/deployments/m/chat/completions", "chat m"),
        ("POST", "/openai/openai/deployments/m/chat/completions", "chat m"),
        ("POST", "/openai/v1/openai/deployments/a/b/chat/completions", "chat a/b"),
        ("GET", "/openai/v1/models", "models"),
        ("GET", "/openai/openai/models", "models"),
        ("GET", "/v1/models/", "models"),
        ("GET", "/v1/v1/models", "models"),
        ("GET", "/v1//models", "models"),
        ("GET", "/v1/models/m/", "models m"),
        ("GET", "/openai/models", "models"),
        ("GET", "/livez/", "live"),
    ],
)
async def test_the_data_plane_leads_to_its_doors(method: str, path: str, said: str) -> None:
    call = await fetch_data(method, path)
    assert (call.status, call.body.decode()) == (200, said)


@pytest.mark.parametrize(
    ("path", "said"),
    [("/metrics", "metrics"), ("/version", "version"), ("/livez", "live"), ("/readyz", "ready")],
)
async def test_the_admin_plane_leads_to_its_pages(path: str, said: str) -> None:
    call = await fetch(admin(), "GET", path)
    assert (call.status, call.body.decode()) == (200, said)


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/v1",
        "/v1/",
        "/v1/chat/completions/.",
        "/v1/chat/completions//..",
        "/v1/chat",
        "/V1/models",
        "/v1/../metrics",
        "/v1/../admin",
        "/./v1/models",
        "/v1/chat/completions\x00",
        "/v1/chat/completions;x=y",
        "/v1/chat/completions\n",
        "/livez\n",
        "/v1/models/m\n",
        "/livez/x",
        "/metrics",
        "/version",
        "/docs",
        "/openapi.json",
        "/favicon.ico",
        "*",
        "",
        "http://elsewhere/v1/models",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_other_path_is_a_404_in_the_envelope(path: str, method: str) -> None:
    call = await fetch_data(method, path)
    assert call.status == 404
    assert call.header("content-type") == "application/json"
    assert call.header("location") is None
    assert set(call.error) == {"message", "type", "param", "code"}
    assert call.error["code"] == "not_found"


@pytest.mark.parametrize(
    "raw",
    [b"/v1/v1/models/%E6%A8%A1/", b"/v1//models/%e6%a8%a1", b"/openai/v1/models/%E6%A8%A1"],
)
async def test_an_encoded_name_does_not_keep_a_path_from_being_tidied(raw: bytes) -> None:
    call = await fetch_data("GET", unquote(raw.decode()), raw_path=raw)
    assert (call.status, call.body.decode()) == (200, "models 模")


@pytest.mark.parametrize("plane", [data, admin])
async def test_options_of_everything_names_the_methods(plane: Callable[[], ASGIApp]) -> None:
    call = await fetch(plane(), "OPTIONS", "*")
    assert (call.status, call.body) == (200, b"")
    methods = {"GET", "HEAD", "OPTIONS"} | ({"POST"} if plane is data else set())
    assert set((call.header("allow") or "").split(", ")) == methods


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/v1%2fchat/completions/", "/v1/chat/completions/"),
        (b"/v1/%2e%2e/metrics/", "/v1/../metrics/"),
        (b"/v1/chat/completions/%00", "/v1/chat/completions/\0"),
        (b"/%2fv1/models", "//v1/models"),
    ],
)
async def test_encoded_path_is_not_tidied(raw: bytes, path: str) -> None:
    call = await fetch_data("POST", path, raw_path=raw)
    assert call.status == 404


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/chat/completion", "There is nothing at /v1/chat/completion. The nearest is POST /v1/chat/"),
        ("/V1/Models", "There is nothing at /V1/Models. The nearest is GET /v1/models."),
        ("/v1", "There is nothing at /v1. The nearest is POST /v1/chat/completions."),
        ("/v1/embeddings", "/v1/embeddings is not served by this gateway yet. It serves POST /v1/"),
        ("/v1/responses/", "/v1/responses is not served by this gateway yet."),
        ("", "There is nothing at an empty path."),
    ],
)  # fmt: skip
async def test_404_names_the_path_and_the_nearest(path: str, message: str) -> None:
    assert (await fetch_data("POST", path)).error["message"].startswith(message)


async def test_404_of_the_admin_plane_names_its_own_pages() -> None:
    call = await fetch(admin(), "GET", "/metric")
    assert call.error["message"] == "There is nothing at /metric. The nearest is GET /metrics."
    call = await fetch(admin(), "POST", "/v1/embeddings")
    assert "not served" not in call.error["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/", "/v1/chat/completions"])
async def test_nothing_of_the_data_plane_is_on_the_admin_plane(path: str) -> None:
    assert (await fetch(admin(), "POST", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/", {"POST"}),
        ("HEAD", "/", {"POST"}),
        ("OPTIONS", "/v1/chat/completions", {"POST"}),
        ("GET", "/v1/chat/completions", {"POST"}),
        ("GET", "/v1/chat/completions/", {"POST"}),
        ("GET", "/openai/deployments/m/chat/completions", {"POST"}),
        ("PUT", "/v1/chat/completions", {"POST"}),
        ("DELETE", "/chat/completions", {"POST"}),
        ("TRACE", "/v1/chat/completions", {"POST"}),
        ("post", "/v1/chat/completions", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("DELETE", "/v1/models/m", {"GET", "HEAD"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("OPTIONS", "/readyz", {"GET", "HEAD"}),
    ],
)
async def test_another_method_is_a_405_that_tells_the_right_one(
    method: str, path: str, allowed: set[str]
) -> None:
    call = await fetch_data(method, path)
    assert call.status == 405
    assert set((call.header("allow") or "").split(", ")) == allowed
    assert call.error["code"] == "method_not_allowed"
    assert call.header("access-control-allow-origin") is None


@pytest.mark.parametrize("path", ["/livez", "/health", "/readyz", "/v1/models"])
async def test_what_can_be_got_can_be_asked_about(path: str) -> None:
    assert (await fetch_data("HEAD", path)).status == 200


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_path_that_stands_in_the_list_leads_to_its_door_without_detours(method: str) -> None:
    depths: list[int] = []

    class Deep(Door):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            depths.append(len(inspect.stack()))
            await super().__call__(scope, receive, send)

    app = routes.application([routes.ExactRoute("/x", Deep("x"), methods=["POST", "GET"])], reception(Log()))
    await fetch(app, method, "/x")
    await fetch(app, "GET", "/x", headers={"x-request-id": "1"})
    await fetch(app, "HEAD", "/x")
    direct, again, long = depths
    assert direct == again
    assert long > direct + 3


async def test_added_middleware_runs_before_every_route() -> None:
    class Stamp:
        """Adds a header to every response."""

        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def stamped(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-stamp", b"1")]
                await send(message)

            await self._app(scope, receive, stamped)

    app = data()
    app.add_middleware(Stamp)
    for method, path in [
        ("POST", "/v1/chat/completions"), ("POST", "//v1/v1/chat/completions/"), ("GET", "/livez"),
        ("HEAD", "/livez"), ("GET", "/v1/models/m"), ("OPTIONS", "*"),
        ("POST", "/openai/deployments/m/chat/completions"), ("GET", "/nowhere"), ("GET", "/chat/completions"),
    ]:  # fmt: skip
        assert (await fetch(app, method, path)).header("x-stamp") == "1", (method, path)


async def test_an_error_of_a_door_is_in_the_envelope_on_both_ways() -> None:
    class Closed(Door):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise ModelNotFound("none", param="model")

    paths: list[Route] = [routes.ExactRoute(path, Closed(""), methods=["GET"]) for path in ("/x", "/y/{z}")]
    app = routes.application(paths, reception(Log()))
    for path in ("/x", "/y/1"):
        call = await fetch(app, "GET", path)
        assert (call.status, call.error["code"]) == (404, "model_not_found")


async def test_refusals_have_ids_and_are_accounted_for() -> None:
    log = Log()
    app = data(log)
    for method, path in [("GET", "/nowhere"), ("GET", "/")]:
        call = await fetch(app, method, path, headers={"x-request-id": "mine"})
        assert call.header("x-request-id") == "mine"
    assert [(one.status, one.outcome, one.error) for one in log.receipts] == [
        (404, "client_error", "not_found"),
        (405, "client_error", "method_not_allowed"),
    ]
