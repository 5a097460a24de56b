"""Which path leads to which door: an exact list, after doubled parts of a path are tidied away (`paths`).

Everything else is 404 or 405 in the envelope.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import responses
from gateway.api.paths import nothing_at, tidied
from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, NotFound


class ExactRoute(Route):
    """A route for its path and nothing else: Starlette's patterns also match one with a newline behind."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether the request is for this route."""
        return (Match.NONE, {}) if scope["path"].endswith("\n") else super().matches(scope)


def data_routes(*, chat: ASGIApp, native: ASGIApp, models: ASGIApp) -> list[Route]:
    """The doors of the data plane, each with and without `/v1`, and as Azure's clients ask for them."""
    deployment = "/openai/deployments/{deployment:path}/chat/completions"
    routes: list[Route] = [
        ExactRoute("/", native, methods=["POST"]),
        ExactRoute(deployment, chat, methods=["POST"]),
    ]
    for prefix in ("/v1", "", "/openai"):
        routes += [
            ExactRoute(f"{prefix}/chat/completions", chat, methods=["POST"]),
            ExactRoute(f"{prefix}/models", models, methods=["GET"]),
            ExactRoute(f"{prefix}/models/{{model:path}}", models, methods=["GET"]),
        ]
    return routes


def health_routes(*, live: ASGIApp, ready: ASGIApp) -> list[Route]:
    """The probes, on both planes."""
    paths = [ExactRoute(path, live, methods=["GET"]) for path in ("/livez", "/health", "/healthz")]
    return [*paths, ExactRoute("/readyz", ready, methods=["GET"])]


def admin_routes(*, metrics: ASGIApp, version: ASGIApp) -> list[Route]:
    """What the admin plane has besides the probes."""
    return [
        ExactRoute("/metrics", metrics, methods=["GET"]),
        ExactRoute("/version", version, methods=["GET"]),
    ]


class Everywhere:
    """`OPTIONS *`: which methods there are on a plane at all. Proxies send it to see whether we are there."""

    def __init__(self, routes: list[Route]) -> None:
        methods = sorted({"OPTIONS", *(method for route in routes for method in route.methods or ())})
        self._allow = ", ".join(methods).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one request."""
        scope["visit"].quiet = True
        await responses.send_whole(send, 200, b"", [(b"allow", self._allow)])


class PlaneApp(Starlette):
    """One plane. A path that stands in the list as it is leads straight to its door.

    What the list does not know word for word (other methods, paths with a part that varies, nothing at all)
    is tidied and looked up once more, then takes Starlette's way. The reception stands before the doors on
    all ways.
    """

    def __init__(self, routes: list[Route], reception: Middleware) -> None:
        super().__init__(
            routes=routes, middleware=[reception], exception_handlers={HTTPException: self._refuse}
        )
        self._served = [
            (method, route.path)
            for route in routes
            for method in sorted(route.methods or ())
            if method != "HEAD" and not route.param_convertors and not route.path.startswith("/openai")
        ]
        self.router.redirect_slashes = False
        self._everywhere = reception.cls(Everywhere(routes), *reception.args, **reception.kwargs)
        self._doors: dict[tuple[str, str], ASGIApp] = {
            (method, route.path): reception.cls(route.app, *reception.args, **reception.kwargs)
            for route in routes
            for method in (route.methods or ())
            if method != "HEAD" and not route.param_convertors
        }

    def __call__(  # type: ignore[override]  # a coroutine as well, but not one more around it
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] == "http":
            door = self._doors.get((scope["method"], scope["path"]))
            if door is not None:
                return door(scope, receive, send)
            if scope["path"] == "*" and scope["method"] == "OPTIONS":
                return self._everywhere(scope, receive, send)
            meant = tidied(scope["path"], scope.get("raw_path", b""))
            if meant != scope["path"]:
                scope["path"] = meant
                return self(scope, receive, send)
        return super().__call__(scope, receive, send)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals (404, 405) in our envelope."""
        if not isinstance(error, HTTPException):
            raise error
        ours = _as_ours(error)
        if error.status_code == 404:
            ours = NotFound(nothing_at(request.scope["path"], self._served))
        request.scope["visit"].receipt.error = ours.code or ""
        body = request.scope["visit"].error_body(ours)
        headers = dict(error.headers or {}) | {"content-type": "application/json"}
        return Response(body, status_code=ours.row.status, headers=headers)


def application(routes: list[Route], reception: Middleware) -> Starlette:
    """One plane."""
    return PlaneApp(routes, reception)


def _as_ours(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed("This path does not take this method. The Allow header tells which it takes.")
    return BadRequest("The request cannot be served.")
