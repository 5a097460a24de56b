"""What faults make of a reply: bodies that should not be, and good bodies spoiled."""

from __future__ import annotations

import json
from dataclasses import replace

from gateway.simulator.exchange import Reply, compact
from gateway.simulator.faults import SimulatedFault

_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


def substitute(fault: SimulatedFault) -> Reply:
    """The reply that stands in for the program's own, for the faults `garbage` and `html`."""
    if fault.kind == "html":
        return Reply(200, _PAGE, "text/html; charset=utf-8")
    return Reply(200, b'{"response": "half a rep')


def spoil_reply(reply: Reply, fault: SimulatedFault | None) -> Reply:
    """A reply as the fault leaves it; without a fault, the same."""
    if fault is None or fault.kind != "missing-response":
        return reply
    return replace(reply, body=_emptied(reply.body.decode()).encode())


def spoil_event(event: bytes, fault: SimulatedFault | None) -> bytes:
    """One event of a stream as the fault leaves it."""
    if fault is None or fault.kind != "missing-response" or not event.startswith(b"data: {"):
        return event
    return f"data: {_emptied(event.decode().removeprefix('data: ').strip())}\r\n\r\n".encode()


def _emptied(text: str) -> str:
    body: object = json.loads(text)
    if isinstance(body, dict) and "choices" in body:
        body["choices"] = []
    elif isinstance(body, dict):
        body.pop("response", None)
    return compact(body)
