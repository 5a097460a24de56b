"""What every test of a fault checks of an answer and of the gateway's books."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.support.fleet import SERVERS, Server
from tests.support.peer import Script, Talk, answering
from tests.support.site import Site, site
from tests.support.tapes import STREAMING
from tests.support.visitor import Answer

SECRET = "canary-4711"
"""Stands in the bodies of spoiled answers; nobody outside may ever see it."""

PROMPT = 5.0
"""Seconds within which ends what ends at once or at a short limit, however loaded the machine is. All that it
must not wait for takes longer: see `limits`."""

ONCE = "[retries]\nattempts = 1\n"
"""Nothing is tried twice, a backend that said when to come again included."""

_TWINS = ("chatglm3-2023-11", "chatglm3-2024-01", "chatglm-cpp-v3")

EVERY = pytest.mark.parametrize(
    "server", [one for one in SERVERS if one.id not in _TWINS], ids=lambda server: server.id
)
"""One server of each dialect."""
EVERY_STREAM = pytest.mark.parametrize("server", STREAMING, ids=lambda server: server.id)
"""Every server that streams."""
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
"""A client that streams, and one that does not."""


def check_good(answer: Answer, text: str) -> None:
    """The whole answer, once."""
    assert answer.status == 200, answer.body
    assert answer.whole
    assert answer.text == text
    assert answer.finishes == ["stop"]
    assert answer.done is answer.streamed


def check_refused(answer: Answer, status: int, code: str | None) -> None:
    """A failure before any content: a plain HTTP error."""
    assert (answer.status, answer.error["code"]) == (status, code), answer.body
    assert answer.whole
    assert not answer.streamed
    assert answer.error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    check_silent(answer)


def check_broken(answer: Answer, code: str, text: str) -> None:
    """A failure after content: the beginning of `text`, one error event, nothing like an end."""
    assert answer.status == 200, answer.body
    assert answer.whole, "the framing must end well, however the answer ended"
    assert answer.error["code"] == code
    assert answer.text
    assert text.startswith(answer.text)
    assert [event for event in answer.events if "error" in event] == answer.events[-1:]
    check_silent(answer)


def check_silent(answer: Answer) -> None:
    """No word that an answer is complete, and none of what the backend said."""
    assert answer.finishes == [] if answer.streamed else "choices" not in answer.json
    assert not answer.done
    assert SECRET not in answer.body.decode()


def tries(here: Site, outcome: str, backend: str = "gpu-0") -> int:
    """How many tries on a backend ended so, as the metrics tell it."""
    return int(here.metric("gateway_backend_requests_total", backend=backend, outcome=outcome))


def ended(here: Site, outcome: str, status: int) -> int:
    """How many requests ended so, as the metrics tell it."""
    return int(here.metric("gateway_requests_total", outcome=outcome, status=str(status)))


def over(
    server: Server, *urls: str, extra: str = "", **options: Any
) -> contextlib.AbstractAsyncContextManager[Site]:
    """A gateway over servers of one kind at these addresses: gpu-0, gpu-1, ... Options as for `site`."""
    fleet = {f"gpu-{place}": (url, server.dialect) for place, url in enumerate(urls)}
    return site(fleet, extra, **(server.backend | options))


def playing(
    *answers: bytes, size: int | None = None, end: str = "keep", requests: list[bytes] | None = None
) -> Script:
    """A server's script: these answers in turn, each connection from the first on; probes too."""
    return answering(*answers, size=size, end=end, requests=requests, probed=True)


async def leave_at_once(talk: Talk) -> None:
    """A server's script: read the request and close."""
    await talk.wait_request()


async def reset_at_once(talk: Talk) -> None:
    """A server's script: read the request and reset the connection."""
    await talk.wait_request()
    talk.reset()


async def stay_silent(talk: Talk) -> None:
    """A server's script: read the request and never say a word."""
    await talk.wait_request()
    await talk.wait_left()


def limits(**seconds: float) -> str:
    """The table of time-outs, generous but for these."""
    values: dict[str, Any] = {"connect": 10, "first_token": 10, "between_tokens": 10, "total": 20} | seconds
    values |= {name: min(value, values["total"]) for name, value in values.items()}
    return "[timeouts]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
