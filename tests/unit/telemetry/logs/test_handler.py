"""Lines of requests wait for one another and not for long, and the order of all lines is kept."""

import asyncio
import logging
from typing import Any

import pytest

from gateway.telemetry.logs.handler import LATER, MOST
from tests.unit.telemetry.logs.test_events import lines, log, receipt
from tests.unit.telemetry.logs.test_events import loggers_as_they_were as loggers_as_they_were


async def test_in_a_running_loop_lines_of_requests_wait_for_one_another_and_not_for_long() -> None:
    logs, stream = log()
    logs.settled(receipt())
    logs.settled(receipt(outcome="client_error"))
    assert stream.getvalue() == ""
    async with asyncio.timeout(20 * LATER):
        while not stream.getvalue():  # noqa: ASYNC110 - a stream has no event
            await asyncio.sleep(LATER / 10)
    assert [line["outcome"] for line in lines(stream)] == ["ok", "client_error"]


@pytest.mark.parametrize(
    "urge",
    [
        pytest.param(lambda logs: logs.settled(receipt(outcome="stall")), id="a-warning"),
        pytest.param(lambda logs: logs.crash("r-1", ValueError()), id="a-crash"),
        pytest.param(lambda logs: logs.backend_changed("gpu-0", up=True, reason="x"), id="life"),
    ],
)
async def test_what_matters_is_written_at_once_and_behind_what_waited(urge: Any) -> None:
    logs, stream = log()
    logs.settled(receipt())
    urge(logs)
    first, second = lines(stream)
    assert (first["event"], first["outcome"]) == ("request", "ok")
    assert second != first


async def test_much_is_written_at_once() -> None:
    logs, stream = log()
    for _ in range(MOST):
        logs.settled(receipt())
    assert len(lines(stream)) == MOST


async def test_what_waits_is_written_when_logging_ends() -> None:
    logs, stream = log()
    logs.settled(receipt())
    for handler in logging.getLogger("gateway").handlers:
        handler.flush()  # as `logging.shutdown` does
    assert len(lines(stream)) == 1


async def test_a_loop_that_ended_before_its_time_leaves_no_line_behind_for_ever() -> None:
    logs, stream = log()
    logs.settled(receipt())
    logs.flush()
    logs.settled(receipt())
    logs.flush()
    assert len(lines(stream)) == 2


def test_a_stream_that_cannot_be_written_fails_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    logs, stream = log()
    stream.close()
    logs.settled(receipt())
    assert capsys.readouterr() == ("", "")
