from __future__ import annotations

import json

from gateway.errors import BadRequest, TooManyConnections, UnsupportedTransferCoding
from gateway.http1.refusal import answer


def parts(raw: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert len(headers) == len(lines)
    return status, headers, body


def test_a_refusal_is_one_whole_answer_in_the_envelope_and_the_last() -> None:
    status, headers, body = parts(answer(BadRequest("No."), [(b"date", b"today")], [b"vary: Origin"]))
    assert status == b"HTTP/1.1 400 Bad Request"
    assert headers[b"connection"] == b"close"
    assert headers[b"date"] == b"today"
    assert headers[b"vary"] == b"Origin"
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)
    error = {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
    assert json.loads(body) == {"error": error}


def test_a_refusal_for_now_tells_when_to_come_again() -> None:
    _, headers, _ = parts(answer(TooManyConnections("Full.", retry_after=0.2)))
    assert headers[b"retry-after"] == b"1"
    assert headers[b"retry-after-ms"] == b"200"
    assert b"x-should-retry" not in headers


def test_a_refusal_for_ever_tells_that_too() -> None:
    status, headers, _ = parts(answer(UnsupportedTransferCoding("No.")))
    assert status == b"HTTP/1.1 501 Not Implemented"
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers
