"""The fields of a request's line, and the templates that write them as JSON."""

from typing import Any

import pytest

from gateway.formats.events import Usage
from gateway.telemetry.logs.lines import timestamp, to_json
from gateway.telemetry.logs.request_lines import MOST_FRAMES, Frames, Stamps, access_fields
from gateway.telemetry.receipt import Receipt
from tests.unit.telemetry.logs.test_events import lines, log, receipt
from tests.unit.telemetry.logs.test_events import loggers_as_they_were as loggers_as_they_were


def test_what_a_request_never_came_to_is_null() -> None:
    fields = access_fields(Receipt("r-1", "other", received=1.0, finished=1.5))
    nothing = {name for name, value in fields.items() if value is None}
    assert nothing == {
        "answered",
        "canary",
        "tenant",
        "error",
        "backend",
        "dialect",
        "first_token_ms",
        "prompt_tokens",
        "completion_tokens",
        "usage_source",
        "finish",
        "left_while",
    }


def test_no_token_is_a_number_and_not_null() -> None:
    assert access_fields(receipt(usage=Usage(0, 0, "backend")))["completion_tokens"] == 0


# --- templates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="all"),
        pytest.param({"tenant": "", "backend": "", "dialect": "", "finish": ""}, id="empty-texts"),
        pytest.param({"usage": None, "first_token": None, "finished": None}, id="nothing-known"),
        pytest.param({"usage": Usage(0, 0, "backend"), "stream": False}, id="zeros"),
        pytest.param({"retries": [], "ignored": (), "repairs": []}, id="no-lists"),
        pytest.param({"ignored": ("seed", 'a"b'), "retries": ["x%sy", "\n"]}, id="odd-words"),
        pytest.param({"path": "/100%/%s/%d/{x}/{{", "model": "%(m)s"}, id="what-a-template-might-take"),
        pytest.param({"path": "/\u2028\u202e\x1b[2J\ud800", "model": "模型", "tenant": 'a"\\b'}, id="unsafe"),
        pytest.param({"path": "/" + "é" * 5000, "method": "M" * 5000}, id="long"),
        pytest.param({"error": "overloaded", "left_while": "queued", "status": 499}, id="left"),
        pytest.param({"queue_seconds": 0.00005, "upstream_seconds": 12345.678949}, id="rounding"),
    ],
)
def test_a_frame_makes_the_line_that_the_fields_would(changes: dict[str, Any]) -> None:
    one, stamp = receipt(**changes), timestamp(1e9)
    frames = Frames()
    for _ in range(2):  # the second line is made from the cached template
        line = frames.line(one, "info", stamp)
        assert line == to_json({"ts": stamp, "level": "info"} | access_fields(one))


@pytest.mark.parametrize("odd", ['a"b', "a\\b", "a\nb", "é", "x" * 2000, "\x7f"])
def test_an_id_that_is_not_plain_takes_the_long_way(odd: str) -> None:
    assert Frames().line(receipt(request_id=odd), "info", "") is None
    logs, stream = log()
    logs.settled(receipt(request_id=odd))
    (line,) = lines(stream)
    assert line["request_id"][:3] == odd[:3]


def test_frames_of_ever_new_paths_are_not_kept_for_ever() -> None:
    frames = Frames()
    for number in range(3 * MOST_FRAMES):
        frames.line(receipt(path=f"/{number}"), "info", "")
    assert len(vars(frames)["_frames"]) <= MOST_FRAMES


@pytest.mark.parametrize("now", [0.0, 1.5, 999.999, 1e9 + 0.001, 1_769_860_800.1239])
def test_a_stamp_is_a_timestamp(now: float) -> None:
    stamps = Stamps()
    assert [stamps.text(now), stamps.text(now)] == [timestamp(now)] * 2
