"""`/livez` and `/readyz`: the probes for liveness and readiness. They need no key and never wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from gateway.api import responses
from gateway.api.request_context import request_context
from gateway.formats import jsontext
from gateway.telemetry.metrics.exporter import ServiceState

Sight: TypeAlias = Callable[[Scope], bool]
"""Returns True if the sender of a request may see the names of backends."""


def everybody(scope: Scope) -> bool:  # noqa: ARG001 - a Sight
    """Allow everybody."""
    return True


class LivenessDoor:
    """Answers 200 as long as the event loop runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one probe."""
        request_context(scope).quiet = True
        await responses.send_whole(send, 200, b'{"status":"ok"}', responses.JSON)


class ReadinessDoor:
    """Answers 200 while at least one backend is available and the gateway is not shutting down, else 503.

    With `?verbose`, the body also has `backends` (whether each backend is available), `faults` (backends
    whose answers indicate a wrong configuration), and `discovery` (for each service: how many servers DNS
    names, and the result of the last query). It has names of backends only if `sees` allows that.
    """

    def __init__(
        self,
        backends: Callable[[], dict[str, bool]],
        draining: Callable[[], bool],
        services: Callable[[], Mapping[str, ServiceState]],
        faults: Callable[[], Mapping[str, str]],
        sees: Sight = everybody,
    ) -> None:
        self._sees = sees
        self._backends = backends
        self._draining = draining
        self._services = services
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one probe."""
        request_context(scope).quiet = True
        backends = self._backends()
        draining = self._draining()
        ready = any(backends.values()) and not draining
        answer: dict[str, object] = {"status": "ready" if ready else "not ready"}
        if b"verbose" in scope["query_string"]:
            answer["draining"] = draining
        if "draining" in answer and self._sees(scope):
            answer["backends"] = backends
            if faults := self._faults():
                answer["faults"] = faults
            if services := self._services():
                answer["discovery"] = {
                    name: {"members": one.members, "left_out": one.left_out, "result": one.result}
                    for name, one in services.items()
                }
        await responses.send_whole(send, 200 if ready else 503, jsontext.write(answer), responses.JSON)
