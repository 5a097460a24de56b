"""The routes of both planes, and the application that serves them.

Only the listed paths are served, and those that `paths` normalises to a listed one. Everything else is
answered with 404 or 405, in the error format of the API.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import responses
from gateway.api.paths import nothing_at, tidied
from gateway.api.request_context import request_context
from gateway.errors import BadRequest, GatewayError, MethodNotAllowed, NotFound


class ExactRoute(Route):
    """A route that does not match its path with a newline appended, as Starlette's patterns do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is for this route."""
        return (Match.NONE, {}) if scope["path"].endswith("\n") else super().matches(scope)


def data_routes(*, chat: ASGIApp, native: ASGIApp, models: ASGIApp) -> list[Route]:
    """Return the doors of the data plane: with and without `/v1`, and under the paths of Azure's clients."""
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
    """Return the probes, which both planes serve."""
    paths = [ExactRoute(path, live, methods=["GET"]) for path in ("/livez", "/health", "/healthz")]
    return [*paths, ExactRoute("/readyz", ready, methods=["GET"])]


def admin_routes(*, metrics: ASGIApp, version: ASGIApp) -> list[Route]:
    """Return the pages of the admin plane, without the probes."""
    return [
        ExactRoute("/metrics", metrics, methods=["GET"]),
        ExactRoute("/version", version, methods=["GET"]),
    ]


class AnyPath:
    """Answers `OPTIONS *` with the methods of a plane. Proxies send it to check that a server is there."""

    def __init__(self, routes: list[Route]) -> None:
        methods = sorted({"OPTIONS", *(method for route in routes for method in route.methods or ())})
        self._allow = ", ".join(methods).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one request."""
        request_context(scope).quiet = True
        await responses.send_whole(send, 200, b"", [(b"allow", self._allow)])


class PathTable:
    """Finds the door of a request: by an exact lookup, then once more with the path normalised.

    Requests that neither lookup finds (other methods, paths with a parameter, unknown paths) go to
    `otherwise`, which is Starlette's router.
    """

    def __init__(self, routes: list[Route], plane: PlaneApp, otherwise: ASGIApp) -> None:
        self._plane = plane
        self._otherwise = otherwise
        self._doors: dict[tuple[str, str], ASGIApp] = {("OPTIONS", "*"): AnyPath(routes)}
        for route in routes:
            if not route.param_convertors:
                exact = (method for method in route.methods or () if method != "HEAD")
                self._doors |= {(method, route.path): route.app for method in exact}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request. Returns the door's own coroutine, to save one around it for each request."""
        if scope["type"] == "http":
            door = self._doors.get((scope["method"], scope["path"]))
            if door is not None:
                return door(scope, receive, send)
            path = tidied(scope["path"], scope.get("raw_path", b""))
            if path != scope["path"]:
                scope["path"] = path
                return self(scope, receive, send)
        scope["app"] = self._plane  # Starlette's router raises its 404 only with this entry
        return self._otherwise(scope, receive, send)


class PlaneApp(Starlette):
    """The application of one plane: its middleware, then `PathTable`, then Starlette's router.

    Starlette's own outermost middleware, which answers unexpected exceptions, is left out:
    `RequestMiddleware` answers and counts them.
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
        self._exact = routes
        self.router.redirect_slashes = False

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application as requests pass through it; called by Starlette before the first one."""
        errors = ExceptionMiddleware(self.router, handlers=self.exception_handlers, debug=self.debug)
        app: ASGIApp = PathTable(self._exact, self, errors)
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app

    def __call__(  # type: ignore[override]  # returns the coroutine of the first middleware
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Serve one request."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        return self.middleware_stack(scope, receive, send)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Return Starlette's own refusals (404, 405) as an error in the format of the door's API."""
        if not isinstance(error, HTTPException):
            raise error
        context, ours = request_context(request.scope), _as_ours(error)
        if error.status_code == 404:
            ours = NotFound(nothing_at(request.scope["path"], self._served))
        context.receipt.error = ours.code or ""
        headers = dict(error.headers or {}) | {"content-type": "application/json"}
        return Response(context.error_body(ours), status_code=ours.row.status, headers=headers)


def application(routes: list[Route], reception: Middleware) -> Starlette:
    """Return the application of one plane."""
    return PlaneApp(routes, reception)


def _as_ours(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed("This path does not take this method. The Allow header tells which it takes.")
    return BadRequest("The request cannot be served.")
