"""`/livez` and `/readyz`: is the process alive, and is there a backend to ask? No key, no queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from starlette.types import Receive, Scope, Send

from gateway.api import responses
from gateway.formats import jsontext
from gateway.telemetry.metrics.exporter import ServiceState

Sight: TypeAlias = Callable[[Scope], bool]
"""Whether who sent a request may see names of backends."""


def everybody(scope: Scope) -> bool:  # noqa: ARG001 - a Sight
    """Every sender of a request may."""
    return True


class LivenessDoor:
    """The process answers: that is all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one probe."""
        scope["visit"].quiet = True
        await responses.send_whole(send, 200, b'{"status":"ok"}', responses.JSON)


class ReadinessDoor:
    """200 while at least one backend may be asked and the gateway is not ending, else 503.

    `?verbose` lists the checks: `backends` gives each backend's name and whether it is up; `faults` says what
    seems to be wrong with the configuration of those that do not know what they are asked; `discovery` those
    that DNS is asked for, if there are any: how many servers it names, and how the last asking ended. Only
    those whom `sees` lets see them get names.
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
        scope["visit"].quiet = True
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
