"""The ASGI face of a simulated server: reads, records, plays faults, lets the program answer, sends."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from email.utils import formatdate
from http import HTTPStatus

from starlette.types import Message, Receive, Scope, Send

from gateway.simulator.connection import SCOPE_KEY, SimulatorConnection
from gateway.simulator.exchange import ClientGoneError, CutError, Headers, ModelError, Reply, Request, Stream
from gateway.simulator.fault_effects import spoil_event, spoil_reply, substitute
from gateway.simulator.faults import SimulatedFault, SimulatedFaults
from gateway.simulator.inspection import PREFIX, Inspection
from gateway.simulator.options import Options
from gateway.simulator.program import Program
from gateway.simulator.recorder import Recorder, RequestRecord


class App:
    """One simulated server as an ASGI application. Needs `SimulatorConnection` as its HTTP protocol."""

    def __init__(
        self, program: Program, recorder: Recorder, faults: SimulatedFaults, options: Options
    ) -> None:
        self._program = program
        self._recorder = recorder
        self._faults = faults
        self._sleep = options.sleep
        self._inspection = Inspection(options.dialect, recorder, faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        link: SimulatorConnection = scope[SCOPE_KEY]
        body = await _read(receive)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(scope["method"], scope["path"], headers, body, link)
        if request.path.startswith(PREFIX):
            await _send_reply(send, self._inspection.answer(request), ())
            return
        record = RequestRecord(request.method, request.path, headers, body.decode(errors="replace"))
        generates = self._program.generates(request.method, request.path)
        self._recorder.arrive(record, generates=generates)
        whole = False
        try:
            whole = await self._serve(request, link, send, generates=generates)
        except asyncio.CancelledError:
            if not link.gone:
                raise  # else the simulator stops, has dropped the connection, and ends what ran on behind it
        finally:
            self._recorder.settle(record, generates=generates, whole=whole)

    async def _serve(
        self, request: Request, link: SimulatorConnection, send: Send, *, generates: bool
    ) -> bool:
        fault = self._faults.take(request.path, generates=generates)
        if fault is None:
            return await self._answer(request, link, send, None)
        if fault.kind == "hang":
            await link.wait_gone()
        elif fault.kind == "reset":
            await link.reset()
        elif fault.kind == "close":
            await link.close()
        elif fault.kind in ("status", "garbage", "html"):
            await self._program.gate.wait_through()
            status = int(fault.value)
            refusal = self._program.refusal(status, HTTPStatus(status).phrase) if status else None
            await _send_reply(send, refusal or substitute(fault), self._program.headers(request))
        else:
            return await self._answer(request, link, send, fault)
        return False

    async def _answer(
        self, request: Request, link: SimulatorConnection, send: Send, fault: SimulatedFault | None
    ) -> bool:
        if fault is not None and fault.kind == "slow":
            await self._sleep(fault.value)
        if fault is not None and fault.kind == "empty":
            request = Request(request.method, request.path, request.headers, request.body, link, reply="")
        try:
            reply = await self._program.answer(request)
            headers = self._program.headers(request)
            if isinstance(reply, Stream):
                await _send_stream(send, reply, link, headers, fault)
            else:
                await _send_reply(send, spoil_reply(reply, fault), headers, cut=_cut(fault))
        except ClientGoneError:
            return False
        except (CutError, ModelError):
            await link.close()
            return False
        return not link.gone


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _cut(fault: SimulatedFault | None) -> int | None:
    return int(fault.value) if fault is not None and fault.kind == "cut" else None


def _head(status: int, *groups: Headers) -> Message:
    common = [("date", formatdate(usegmt=True)), ("server", "uvicorn")]
    pairs = [pair for group in (common, *groups) for pair in group]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _send_reply(send: Send, reply: Reply, headers: Headers, *, cut: int | None = None) -> None:
    typed = [("content-type", reply.content_type)] if reply.content_type else []
    length = [("content-length", str(len(reply.body)))]
    await send(_head(reply.status, list(reply.headers), length, typed, headers))
    if cut is not None and cut < len(reply.body):
        await send({"type": "http.response.body", "body": reply.body[:cut], "more_body": True})
        raise CutError
    await send({"type": "http.response.body", "body": reply.body})


_STREAM_HEADERS = (
    ("cache-control", "no-cache"),
    ("connection", "keep-alive"),
    ("x-accel-buffering", "no"),
    ("content-type", "text/event-stream; charset=utf-8"),
)


async def _send_stream(
    send: Send, stream: Stream, link: SimulatorConnection, headers: Headers, fault: SimulatedFault | None
) -> None:
    cut = _cut(fault)
    await send(_head(200, _STREAM_HEADERS, headers))
    sent = unheard = 0
    async with aclosing(stream.events) as events:
        async for event in events:
            if sent == cut:
                raise CutError
            if link.gone:
                if unheard == stream.linger:
                    raise ClientGoneError
                unheard += 1
            await send({"type": "http.response.body", "body": spoil_event(event, fault), "more_body": True})
            sent += 1
    if cut is not None:
        raise CutError
    await send({"type": "http.response.body", "body": b""})
